"""Values of annotation files: whole numbers, amounts and file names, as exporters write them."""

from __future__ import annotations

import os
import unicodedata
from typing import Any

from swahr.files import shorten

MAX_ID = 2**53  # from here on, not every whole number is a JSON number
MAX_AMOUNT = 1e12
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of pairs, line separators


def whole_number(value: Any) -> int | None:
    """The whole number that a value is, also if it was written as 7.0; otherwise None."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < MAX_ID else None


def why_no_whole_number(value: Any) -> str:
    """For a message: what is wrong with a value for which `whole_number` gives None."""
    if isinstance(value, str):
        return f"{shorten(value)} is text, not a whole number"
    if type(value) is int or (type(value) is float and value.is_integer()):
        return f"{shorten(value)} is too large; it must lie between -2^53 and 2^53"
    return f"{shorten(value)} is not a whole number"


def is_amount(value: Any) -> bool:
    """Whether a value is a finite number, not negative, and not absurdly large."""
    return isinstance(value, int | float) and 0 <= value < MAX_AMOUNT  # false for NaN too


def names_a_file(text: str) -> bool:
    """Whether a text can be a file name: no control characters. Spaces of any kind are allowed."""
    if text.isprintable():
        return bool(text)
    return not any(unicodedata.category(letter) in _UNPRINTABLE for letter in text)


def leaves_folder(file_name: str) -> bool:
    """Whether a file name is an absolute path, or a relative path that leads out of its folder."""
    path = os.path.normpath(file_name)
    return os.path.isabs(path) or path == os.pardir or path.startswith(os.pardir + os.sep)
