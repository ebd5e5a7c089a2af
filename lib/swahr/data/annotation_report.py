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
    """What was found in one annotation file: problems, which would make results wrong, each with
    its repair; and notes on what is suspicious, or decides results without being wrong.

    skipped_images: the ids of images that are not used because of a problem.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.count = 0
        self.lines: list[str] = []
        self.repairs: Counter[str] = Counter()
        self.notes: list[str] = []
        self.skipped_images: set[int] = set()

    def add(self, problem: str, repair: str) -> None:
        """Record a problem, and how it was repaired."""
        self.count += 1
        self.repairs[repair] += 1
        if len(self.lines) < MAX_LINES:
            self.lines.append(f"{problem} -> {repair}")

    def note(self, text: str) -> None:
        """Record what is worth knowing, but does not stop anybody."""
        self.notes.append(text)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.count} problem{'s' * (self.count != 1)}"]
        lines += [f"  {line}" for line in self.lines]
        if self.count > len(self.lines):
            lines.append(f"  ... and {self.count - len(self.lines)} more")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def failure(self, reason: str) -> str:
        """The message of an error for which nothing can be used: the reason, with what was found.

        Without problems the reason stands first, and not below their number.
        """
        if self.count:
            return f"{self}\n  {reason}"
        return "\n".join([f"{self.path}: {reason}", *str(self).splitlines()[1:]])

    def raise_or_warn(self, strict: bool) -> None:
        """Raise AnnotationError if there are problems and strict is true. Otherwise log what was
        found, with the repairs.
        """
        if self.count and strict:
            raise AnnotationError(f"{self}\n  (-> is the repair that DATASET.STRICT False makes)")
        if self.count:
            repairs = ", ".join(f"{repair}: {count}" for repair, count in self.repairs.items())
            logger.warning("%s\n  repaired (%s)", self, repairs)
        elif self.notes:
            logger.warning("%s", self)
