"""Settings as they were typed: out of YAML files, with the files they build upon, and of the
command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from swahr.config.errors import Problem
from swahr.config.keys import KEYS, SECTIONS, nearest_key
from swahr.config.values import Loader, shorten

BASE = "_BASE_"
COMMAND_LINE = "command line"


class Setting(NamedTuple):
    """One key with its value, where it was set (file and line) and its layer: bases first, command
    line last.
    """

    key: str
    value: Any
    where: str
    layer: int


class Reader:
    """Collects settings, in the order in which they apply, and the problems met on the way."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []
        self.problems: list[Problem] = []
        self._layer = 0

    def _complain(self, where: str, keys: Sequence[str], text: str) -> None:
        self.problems.append(Problem(tuple(keys), text, where))

    def read_file(self, path: Path, inside: tuple[Path, ...] = (), named_by: str = "") -> None:
        """Settings of a YAML file, after those of its base; `inside` are the files it is a base of,
        by `named_by`.
        """
        chain = (*inside, path.resolve())
        if chain[-1] in inside:
            circle = " -> ".join(file.name for file in chain)
            return self._complain(named_by, [BASE], f"goes round in a circle: {circle}")
        try:
            settings = self._parse(path)
        except OSError as error:
            keys = [BASE] if named_by else []
            return self._complain(
                named_by, keys, f"{path}: cannot be read ({error.strerror or error})"
            )
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            return self._complain(_place_of_error(path, error), (), _reason(error))
        for base in (setting for setting in settings if setting.key == BASE):
            if isinstance(base.value, str) and base.value:
                self.read_file(path.parent / base.value, chain, base.where)
            else:
                text = f"must be the path of a YAML file, relative to this one, not {shorten(base.value)}"
                self._complain(base.where, [BASE], text)
        self.settings += [
            setting._replace(layer=self._layer) for setting in settings if setting.key != BASE
        ]
        self._layer += 1

    def read_pairs(self, opts: Sequence[Any]) -> None:
        """Settings of the command line: KEY VALUE KEY VALUE ..."""
        if len(opts) % 2:
            text = f"settings are KEY VALUE pairs, separated by spaces; {shorten(opts[-1])} has no partner"
            return self._complain(COMMAND_LINE, (), text)
        for key, value in zip(map(str, opts[::2]), opts[1::2], strict=True):
            if key in SECTIONS:
                example = next(known for known in KEYS if known.startswith(key + "."))
                self._complain(
                    COMMAND_LINE, [key], f"is a section; name one of its keys, as in {example}"
                )
            elif key in KEYS:
                self.settings.append(Setting(key, value, COMMAND_LINE, self._layer))
            else:
                self._unknown(key, COMMAND_LINE)

    def _parse(self, path: Path) -> list[Setting]:
        loader = Loader(path.read_bytes().decode("utf-8-sig"))
        try:
            root = loader.get_single_node()
            return [] if root is None else list(self._walk(loader, root, str(path)))
        finally:
            loader.dispose()

    def _walk(
        self, loader: Any, node: yaml.Node, file: str, section: str = ""
    ) -> Iterator[Setting]:
        """Settings of a section's node; what is no setting is complained about."""
        if not isinstance(node, yaml.MappingNode):
            empty = isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null")
            if not empty:
                self._complain(
                    _place(file, node),
                    [section] if section else [],
                    "must be a mapping of keys to values",
                )
            return
        first: dict[str, str] = {}
        for key_node, value_node in node.value:
            where = _place(file, key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(where, [section] if section else [], "has a key that is not a name")
                continue
            key = f"{section}.{key_node.value}" if section else key_node.value
            if key in first:
                self._complain(where, [key], f"is given twice, first at {first[key]}")
            elif key in SECTIONS:
                yield from self._walk(loader, value_node, file, key)
            elif key in KEYS or key == BASE:
                yield Setting(key, _construct(loader, value_node), where, 0)
            else:
                self._unknown(key, where)
            first[key] = where

    def _unknown(self, key: str, where: str) -> None:
        nearest = nearest_key(key)
        # The key that was probably meant counts as wrong too: what follows from its old value is
        # not worth a line.
        self._complain(where, [key, nearest], f"unknown key; the nearest one is {nearest}")


def _construct(loader: Any, node: yaml.Node) -> Any:
    """The value of a node; YAMLError where it has none, such as the date 2024-99-99."""
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, TypeError, KeyError, OverflowError):
        problem = "this value cannot be understood"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _place(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def _place_of_error(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not valid YAML: nested too deeply"
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f"not valid YAML: {str(reason).splitlines()[0]}"
