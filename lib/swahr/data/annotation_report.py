"""The problems of one annotation file, collected so that they can be reported together."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

MAX_LINES = 20  # of one kind that a report prints; the rest is counted

logger = logging.getLogger(__name__)


class AnnotationError(ValueError):
    """Annotations that cannot be used. The message has one line for each of the first 20 problems,
    and the number of all.
    """


class Report:
    """Problems of one annotation file, each with its repair."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.count = 0
        self.lines: list[str] = []
        self.repairs: Counter[str] = Counter()

    def add(self, problem: str, repair: str) -> None:
        """Record a problem that would make results wrong, and how it was repaired."""
        self.count += 1
        self.repairs[repair] += 1
        if len(self.lines) < MAX_LINES:
            self.lines.append(f"{problem} -> {repair}")

    def __str__(self) -> str:
        more = (
            [f"  ... and {self.count - len(self.lines)} more"]
            if self.count > len(self.lines)
            else []
        )
        head = f"{self.path}: {self.count} problem{'s' * (self.count != 1)}"
        return "\n".join([head, *(f"  {line}" for line in self.lines), *more])

    def raise_or_warn(self, strict: bool) -> None:
        """Raise AnnotationError if there are problems and strict is true; otherwise log them with
        their repairs.
        """
        if self.count and strict:
            raise AnnotationError(f"{self}\n  (-> is the repair that DATASET.STRICT False makes)")
        if self.count:
            repairs = ", ".join(f"{repair}: {count}" for repair, count in self.repairs.items())
            logger.warning("%s\n  repaired (%s)", self, repairs)
