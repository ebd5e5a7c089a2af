"""Settings as they were typed, in YAML files, the files they build upon, and the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from swahr.config.errors import ConfigError, Problem
from swahr.config.places import COMMAND_LINE
from swahr.config.schema import SCHEMA, sections
from swahr.config.values import compose, construct, decode
from swahr.files import shorten

BASE = "_BASE_"
RUN_NAME = "RUN_NAME"  # it names one run, so it is not taken from a base
_MISSING = object()


class Setting(NamedTuple):
    """One key with its value, where it was set (file and line, or command line), and its layer.

    Layers are numbered in the order in which they apply: base files first, the command line last.
    """

    key: str
    value: Any
    where: str
    layer: int


class Reader:
    """Collects settings, in the order in which they apply, and the problems of reading them."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []
        self.problems: list[Problem] = []
        self._layer = 0
        self._sections = sections()

    def _complain(self, where: str, keys: Sequence[str], text: str) -> None:
        self.problems.append(Problem(tuple(keys), text, where))

    def read_file(self, path: Path, inside: tuple[Path, ...] = (), named_by: str = "") -> None:
        """Add the settings of a YAML file, after those of its base.

        inside: the files it is a base of. named_by: the place of the _BASE_ that names it.
        """
        chain = (*inside, path.resolve())
        if chain[-1] in inside:
            circle = " -> ".join(file.name for file in chain)
            return self._complain(named_by, [BASE], f"goes round in a circle: {circle}")
        try:
            settings = self._parse(path)
        except OSError as error:
            keys = [BASE] if named_by else []
            text = f"{path}: cannot be read ({error.strerror or error})"
            return self._complain(named_by, keys, text)
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            return self._complain(_place_of_error(path, error), (), _reason(error))
        for base in (setting for setting in settings if setting.key == BASE):
            if isinstance(base.value, str) and base.value:
                file = path.parent / os.path.expanduser(base.value)
                self.read_file(file, chain, base.where)
            else:
                given = shorten(base.value)
                text = f"must be the path of a YAML file, relative to this one, not {given}"
                self._complain(base.where, [BASE], text)
        not_inherited = (BASE, RUN_NAME) if inside else (BASE,)
        self.settings += [
            setting._replace(layer=self._layer)
            for setting in settings
            if setting.key not in not_inherited
        ]
        self._layer += 1

    def replace_skeleton(self, path: Path) -> None:
        """Let a skeleton file stand for the one that the YAML file read last names, in its layer,
        so that what that file says of data sets and numbers of keypoints holds.
        """
        self.settings.append(Setting("DATASET.SKELETON", str(path), str(path), self._layer - 1))

    def read_pairs(self, opts: Sequence[Any]) -> None:
        """Add the settings of the command line: KEY VALUE or KEY=VALUE, any number of them."""
        for key, value in _pairs(opts):
            if value is _MISSING:
                self.problems.append(_without_value(key))
            elif key in self._sections:
                example = next(known for known in SCHEMA if known.startswith(key + "."))
                text = f"is a section; name one of its keys, as in {example}"
                self._complain(COMMAND_LINE, [key], text)
            elif key in SCHEMA:
                self.settings.append(Setting(key, value, COMMAND_LINE, self._layer))
            else:
                self._unknown(key, COMMAND_LINE)

    def _parse(self, path: Path) -> list[Setting]:
        with compose(decode(path.read_bytes())) as (loader, root):
            return [] if root is None else list(self._walk(loader, root, str(path), {}))

    def _walk(
        self, loader: Any, node: yaml.Node, file: str, first: dict[str, str], section: str = ""
    ) -> Iterator[Setting]:
        """The settings of a section's node; a problem for each entry that is none.

        first: the place of each key of the file that was read before, which is added to.
        """
        if not isinstance(node, yaml.MappingNode):
            empty = isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null")
            if not empty:
                self._complain(
                    _place(file, node),
                    [section] if section else [],
                    "must be a mapping of keys to values",
                )
            return
        inner: dict[str, str] = {}  # sections of this mapping; others may add keys to the same ones
        for key_node, value_node in node.value:
            where = _place(file, key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(where, [section] if section else [], "has a key that is not a name")
                continue
            key = f"{section}.{key_node.value}" if section else key_node.value
            seen = inner if key in self._sections else first
            if key in seen:
                self._complain(where, [key], f"is given twice, first at {seen[key]}")
            elif key in self._sections:
                yield from self._walk(loader, value_node, file, first, key)
            elif key in SCHEMA or key == BASE:
                yield Setting(key, construct(loader, value_node), where, 0)
            else:
                self._unknown(key, where)
            seen[key] = where

    def _unknown(self, key: str, where: str) -> None:
        nearest = nearest_key(key)
        # The nearest key counts as wrong too: what follows from its old value is not reported.
        self._complain(where, [key, nearest], f"unknown key; the nearest one is {nearest}")


def check_pairs(opts: Sequence[Any]) -> None:
    """Raise ConfigError where a setting of a command line has no value."""
    problems = [_without_value(key) for key, value in _pairs(opts) if value is _MISSING]
    if problems:
        raise ConfigError(problems)


def _pairs(opts: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Each key with its value, which is _MISSING where there is none."""
    rest = iter(opts)
    for item in rest:
        key, equals, text = str(item).partition("=")
        yield key, text if equals else next(rest, _MISSING)


def _without_value(key: str) -> Problem:
    text = f"settings are KEY VALUE or KEY=VALUE; {shorten(key)} has no value"
    return Problem((), text, COMMAND_LINE)


def nearest_key(key: str) -> str:
    """The known key or section most like `key`, by its full name and by its last part."""
    key = key.upper()[:100]

    def likeness(known: str) -> float:
        last = SequenceMatcher(None, key.split(".")[-1], known.split(".")[-1]).ratio()
        return last + SequenceMatcher(None, key, known).ratio()

    return max((*SCHEMA, *sections()), key=likeness)


def _place(file: str, node: yaml.Node) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def _place_of_error(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not valid YAML: nested too deeply"
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    remedy = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
    return f"not valid YAML: {str(reason).splitlines()[0]}{remedy}"
