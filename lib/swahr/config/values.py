"""Values of settings: from the text of a YAML file or a command line to the type of the default."""

from __future__ import annotations

import ast
import codecs
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from swahr.files import shorten

# libyaml's loader, if PyYAML was built with it, is ten times faster and gives the same results.
# Both are safe loaders: plain values only.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_NODES = 20_000  # values of a YAML text, each alias counted as what it stands for
MAX_WHOLE_NUMBER = 2**63 - 1  # what fits into 64 bits
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_PLURALS = {bool: "true or false", int: "whole numbers", float: "numbers", str: "texts"}
# What YAML 1.1 reads as octal, such as 0300, or in base 60, such as 1:30.
_OTHER_BASE = r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9_.]+)+)"


class Loader(_SafeLoader):
    """A safe loader that leaves numbers in octal and in base 60 as text; 0x10 and 0b11 are
    numbers.
    """


def _plain_number(loader: Any, node: yaml.Node) -> Any:
    """The number of a node, or its text, see Loader."""
    if re.fullmatch(_OTHER_BASE, str(node.value)):
        return node.value
    return _SafeLoader.yaml_constructors[node.tag](loader, node)


Loader.add_constructor("tag:yaml.org,2002:int", _plain_number)
Loader.add_constructor("tag:yaml.org,2002:float", _plain_number)


def coerce(value: Any, default: Any) -> Any:
    """`value` with the type of `default`; the entries of a list get the type of its first default.

    If the default is not text, text is read as a Python or YAML literal, so that "(True, False)",
    "[0.5, 1, 2]", "1e-3" and "true" work; nothing is ever evaluated. Tuples become lists. Raises
    ValueError, which says what would be right, if the value is of another type.
    """
    result = _coerce(value, default)
    if result is None:
        remedy = _remedy(value, default) or _example(value, default)
        raise ValueError(f"must be {_kind(default)}, not {shorten(value)}{remedy}")
    return result


def _remedy(value: Any, default: Any) -> str:
    """What helps where a number has a decimal comma, or is in octal or in base 60; '' elsewhere."""
    first = default[0] if isinstance(default, list) else default
    is_number = type(first) in (int, float) and isinstance(value, str | list | tuple)
    comma = re.fullmatch(r"\s*([-+]?\d+),(\d+)\s*", str(value))
    if comma and isinstance(default, float):
        return f"; write {comma[1]}.{comma[2]}, with a point"
    if not is_number or not re.search(rf"(?<![\w.:-]){_OTHER_BASE}(?![\w.:])", str(value)):
        return ""
    return "; write numbers in base 10, without leading zeros and colons"


def _example(value: Any, default: Any) -> str:
    """How what was given is written as a list, for a shell and for YAML; '' where it is none."""
    if not isinstance(default, list):
        return ""
    words = value.replace(",", " ").split() if isinstance(value, str) else [value]
    entries = [_coerce(word, default[0]) for word in words]
    text = str(entries)
    if not entries or None in entries or len(text) > 60 or set(text) & set('"$`\\!'):
        return ""
    return f'; write "{text}"'


def _coerce(value: Any, default: Any) -> Any:
    """As `coerce`, but None if the value does not fit."""
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
    """The text, without quotes that a shell has left around it; an empty YAML entry is ''."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return None
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _number(value: Any, kind: type) -> int | float | None:
    """A finite number; a whole number may also be a float without a fraction."""
    if not isinstance(value, int | float) or math.isnan(value if isinstance(value, float) else 0):
        return None
    if kind is int:
        whole = abs(value) <= MAX_WHOLE_NUMBER and value == int(value)
        return int(value) if whole else None
    return float(value) if abs(value) <= 1e300 else None


def _literal(text: str) -> Any:
    """The value of a Python literal, else of YAML, else the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        with compose(text) as (loader, root):
            return None if root is None else construct(loader, root)
    except (yaml.YAMLError, RecursionError):
        return text


def decode(data: bytes) -> str:
    """The text of a YAML file in UTF-8, with or without a byte order mark.

    Raises UnicodeDecodeError or YAMLError if it is in another encoding.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise yaml.YAMLError("it is in UTF-16; save it as UTF-8")
    return data.decode("utf-8-sig")


@contextmanager
def compose(text: str) -> Iterator[tuple[Any, yaml.Node | None]]:
    """A safe loader and the root node of a YAML text, None if it is empty.

    Raises YAMLError if the text is not YAML, or its aliases stand for too many values.
    """
    loader = Loader(text)
    try:
        try:
            root = loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            if error.problem_mark and text[error.problem_mark.index :][:1] == "\t":
                error.problem = f"{error.problem}; YAML indents with spaces, not with tabs"
            raise
        if root is not None:
            _check_size(root)
        yield loader, root
    finally:
        loader.dispose()


def construct(loader: Any, node: yaml.Node) -> Any:
    """The value of a node.

    Raises YAMLError where it has none, such as the date 2024-99-99 or a `!!int` without a text.
    """
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):  # PyYAML's own
        problem = "this value cannot be understood"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _check_size(root: yaml.Node) -> None:
    """Raise YAMLError if the nodes, with each alias replaced by what it stands for, are too many.

    Nested aliases of a few hundred bytes can stand for billions of values.
    """
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = 1  # a list that contains itself is refused later
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        size = 1 + sum(map(size_of, children))
        if size > MAX_NODES:
            problem = f"aliases and values stand for more than {MAX_NODES} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        sizes[id(node)] = size
        return size

    size_of(root)


def _kind(default: Any) -> str:
    return (
        f"a list of {_PLURALS[type(default[0])]}"
        if isinstance(default, list)
        else _KINDS[type(default)]
    )
