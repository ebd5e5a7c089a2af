"""results.csv: one line for each epoch of a run, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path

from swahr.engine.checkpoint import unused_path
from swahr.files import WriteError, why_unreadable, write_text

logger = logging.getLogger("swahr")
EPOCH = "epoch"


class ResultsFile:
    """A table with a line for each epoch, written whole each time.

    A resumed run replaces the lines of the epochs that it trains again. path: None writes nothing
    (processes other than the main one).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def add_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write the line of an epoch, counted from 1, in place of those of it and later ones."""
        rows = {number: row for number, row in self.rows().items() if number < epoch}
        self._write(rows | {epoch: as_text(values)})

    def add_figures(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Add the figures of validation to the line of an epoch."""
        rows = self.rows()
        rows[epoch] = rows.get(epoch, {}) | as_text(figures)
        self._write(rows)

    def rows(self) -> dict[int, dict[str, str]]:
        """The lines by their epochs, as texts by the names of their columns.

        A file that cannot be read is named once, and left as it is.
        """
        if self.path is None or not self.path.exists():
            return {}
        if problem := why_unreadable(self.path):
            logger.error("%s: %s; training continues without it", self.path, problem)
            self.path = None
            return {}
        text = self.path.read_text(encoding="utf-8", errors="replace")
        table = csv.DictReader(io.StringIO(text))
        if EPOCH not in (table.fieldnames or []):  # another program wrote it
            self.path.rename(unused_path(self.path))
            return {}
        return {
            int(row[EPOCH]): {name: row[name] for name in row if name and row[name] is not None}
            for row in table
            if (row[EPOCH] or "").isdigit()
        }

    def _write(self, rows: Mapping[int, Mapping[str, str]]) -> None:
        if self.path is None:
            return
        names = dict.fromkeys(name for row in rows.values() for name in row if name != EPOCH)
        file = io.StringIO()
        table = csv.DictWriter(file, [EPOCH, *names], restval="", lineterminator="\n")
        table.writeheader()
        for epoch in sorted(rows):
            table.writerow({**rows[epoch], EPOCH: str(epoch)})
        try:
            write_text(self.path, file.getvalue())
        except WriteError as error:
            logger.error("%s; training continues without it", error)


def as_text(values: Mapping[str, float]) -> dict[str, str]:
    """Values as a line of the table has them."""
    return {name: f"{value:.8g}" for name, value in values.items()}
