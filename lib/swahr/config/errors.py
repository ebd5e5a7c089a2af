"""The error of a configuration that cannot be used. It lists every problem, one line each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong.

    keys: the key that is wrong first, then those that make it wrong; the line names the first one.
    text: the rest of the line.
    where: the file and line, or the command line, where it comes from; '' if not known.
    """

    keys: tuple[str, ...]
    text: str
    where: str = ""

    def __str__(self) -> str:
        line = ": ".join(part for part in (self.where, *self.keys[:1], self.text) if part)
        return "".join(letter if letter.isprintable() else "?" for letter in line)


class ConfigError(ValueError):
    """A configuration with problems: `problems` is their list, str() has one line for each."""

    def __init__(self, problems: Iterable[object]) -> None:
        self.problems = list(dict.fromkeys(str(problem) for problem in problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.problems,)
