"""Values of settings: from what a YAML file or a command line says to the type of the default."""

from __future__ import annotations

import ast
import math
from typing import Any

import yaml

# With libyaml where PyYAML was built with it: ten times faster, the same results.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_PLURALS = {bool: "true or false", int: "whole numbers", float: "numbers", str: "texts"}


def coerce(value: Any, default: Any) -> Any:
    """`value` with the type of `default`; lists are typed by the first entry of theirs.

    Text is read as a Python or YAML literal where no text is wanted, so that "(True, False)",
    "[0.5, 1, 2]", "1e-3" and "true" work; nothing is ever evaluated. Tuples become lists. Raises
    ValueError, saying what would be right, if the value is of another kind.
    """
    result = _coerce(value, default)
    if result is None:
        raise ValueError(f"must be {_kind(default)}, not {shorten(value)}")
    return result


def _coerce(value: Any, default: Any) -> Any:
    """As `coerce`, with None for what does not fit."""
    if isinstance(default, str):
        return _text(value)
    if isinstance(value, str):
        value = _literal(value)
    if isinstance(default, list):
        if not isinstance(value, list | tuple):
            return None
        entries = [_coerce(entry, default[0]) for entry in value]
        return None if any(entry is None for entry in entries) else entries
    if isinstance(default, bool) or isinstance(value, bool):
        return value if type(value) is type(default) else None
    return _number(value, type(default))


def _text(value: Any) -> str | None:
    """Text as it stands, without quotes around it that a shell has left; an empty YAML entry is
    ''.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return None
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _number(value: Any, kind: type) -> int | float | None:
    """A finite number; a float without a fraction is also a whole number."""
    if not isinstance(value, int | float) or abs(value) > 1e300 or math.isnan(value):
        return None
    if kind is int:
        return int(value) if value == int(value) else None
    return float(value)


def _literal(text: str) -> Any:
    """What the text says as a Python literal, else as YAML, else the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        return yaml.load(text, Loader=Loader)  # a safe loader: plain values only
    except (ValueError, yaml.YAMLError, RecursionError):
        return text


def _kind(default: Any) -> str:
    return (
        f"a list of {_PLURALS[type(default[0])]}"
        if isinstance(default, list)
        else _KINDS[type(default)]
    )


def shorten(value: Any, length: int = 60) -> str:
    """repr(value), cut to one line of at most `length` characters."""
    try:
        text = repr(value)
    except (
        ValueError,
        RecursionError,
    ):  # integers of thousands of digits, lists that hold themselves
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= length else text[: length - 3] + "..."
