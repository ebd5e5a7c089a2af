"""Figures of a validation, and which of them are undefined."""

from __future__ import annotations

import math

UNDEFINED = -1.0  # a figure that nobody labelled counts for, as COCO's scorers give it


def is_defined(value: float | None) -> bool:
    """False for None, NaN and UNDEFINED."""
    return value is not None and not math.isnan(value) and value != UNDEFINED
