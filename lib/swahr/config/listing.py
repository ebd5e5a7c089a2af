"""The table of all settings as text, for --list-keys, and as Markdown, for docs/settings.md."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from swahr.config.rules import condition
from swahr.config.schema import SCHEMA, Key

_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_HEAD = """# Settings

Every key of a YAML file and of the command line (`KEY VALUE` or `KEY=VALUE`). "per stage" is a list
with one entry for each of LOSS.NUM_STAGES stages, low resolution to high; one entry stands for all.
This page is made by `python tools/dist_train.py --list-keys markdown > docs/settings.md`.
"""


class Row(NamedTuple):
    """One key in words."""

    key: str
    default: str
    values: str
    meaning: str


def list_keys(markdown: bool = False) -> str:
    """A table of all keys: name, default, type and range, meaning and when it has no effect."""
    rows = [_row(name, key) for name, key in SCHEMA.items()]
    return _markdown(rows) if markdown else _text(rows)


def _row(name: str, key: Key) -> Row:
    return Row(name, repr(key.default), _values(key), _meaning(key))


def _values(key: Key) -> str:
    first = key.default[0] if isinstance(key.default, list) else key.default
    kind = _TYPES[type(first)]
    if isinstance(key.default, list):
        kind = f"list of {kind}, per stage" if key.per_stage else f"list of {kind}"
    return f"{kind}, {key.right}" if key.right else kind


def _meaning(key: Key) -> str:
    if key.no_effect:
        return f"{key.meaning}; no effect: {key.no_effect}"
    return f"{key.meaning}; {condition(key.only_with)}" if key.only_with else key.meaning


def _text(rows: list[Row]) -> str:
    rows = [Row("key", "default", "type and values", "meaning"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _markdown(rows: list[Row]) -> str:
    def section(row: Row) -> str:
        return row.key.partition(".")[0] if "." in row.key else ""

    parts = [_HEAD]
    for name, group in groupby(rows, section):
        title = name or "The run"
        lines = [
            f"| `{row.key}` | `{row.default}` | {row.values} | {_escape(row.meaning)} |"
            for row in group
        ]
        head = "| key | default | type and values | meaning |\n|---|---|---|---|"
        parts.append("\n".join([f"## {title}\n", head, *lines]) + "\n")
    return "\n".join(parts)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
