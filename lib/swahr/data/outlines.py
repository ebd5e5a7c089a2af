"""Outlines of people and crowds, in COCO's two formats: polygons and run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as run_lengths

from swahr.files import shorten

MAX_COORDINATE = 1e9  # px; larger numbers are no coordinates


def are_coordinates(values: Sequence[Any]) -> bool:
    """Whether all values are finite numbers that are small enough to be pixels."""
    try:
        return sum(map(abs, values)) < MAX_COORDINATE  # false for NaN too
    except (TypeError, OverflowError):
        return False


def why_no_coordinates(values: Sequence[Any]) -> str:
    """For a message: what is wrong with values for which `are_coordinates` is false."""
    if all(isinstance(value, int | float) and abs(value) < inf for value in values):
        largest = max(values, key=abs)
        return f"are not all numbers of pixels: {shorten(largest)} is too large"
    return "are not all finite numbers"


def is_outline(value: Any, size: tuple[int, int]) -> bool:
    """Whether pycocotools can draw an outline in an image of `size` (w, h) pixels.

    An outline is a list of polygons [[x, y, x, y, x, y, ...], ...], or run lengths
    {'size': [h, w], 'counts': [...] or text}. Runs or coordinates that do not fit the image are
    refused, because pycocotools would write beyond its memory.
    """
    if isinstance(value, list):
        limit = 2 * max(size)
        return all(_is_polygon(polygon, limit) for polygon in value)
    if not isinstance(value, dict) or value.get("size") != [size[1], size[0]]:
        return False
    runs = value.get("counts")
    runs = _unpack(runs) if isinstance(runs, str) else runs
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        return False
    return sum(runs) == size[0] * size[1]


def draw_mask(outlines: Sequence[Any], height: int, width: int) -> NDArray[np.uint8]:
    """(height, width): 0 inside the outlines, 1 elsewhere."""
    parts: list[Any] = []
    for outline in outlines:
        if isinstance(outline, dict) and isinstance(outline["counts"], str):
            parts.append(outline)
        else:
            runs = run_lengths.frPyObjects(outline, height, width)
            parts += runs if isinstance(runs, list) else [runs]
    return np.ascontiguousarray(1 - run_lengths.decode(run_lengths.merge(parts)))


def _is_polygon(value: Any, limit: float) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 6
        and len(value) % 2 == 0
        and are_coordinates(value)
        and -limit < min(value)
        and max(value) < limit
    )


def _unpack(text: str) -> list[int] | None:
    """Run lengths of COCO's text format; None if the text is not in that format.

    A character minus '0' has six bits: five of a number, the lowest first, and one that says
    whether more follow. From the fourth run on, the number is the difference to the run two before.
    """
    runs: list[int] = []
    value = 0
    digits = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or digits > 8:
            return None
        value |= (bits & 31) << 5 * digits
        digits += 1
        if not bits & 32:
            value -= (bits & 16) << 5 * digits - 4  # the highest bit of a number is its sign
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = 0
            digits = 0
    return None if digits else runs
