"""Numbers and names in messages for people."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, such as "1 image" or "2,000 images".

    many: the plural, where it is not `one` with an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
