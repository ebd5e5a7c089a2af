"""How far a loop over images or frames has come: a bar on a terminal, a log line now and then
elsewhere.
"""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

from swahr.distributed import comm

logger = logging.getLogger("swahr")

LINES = 10  # log lines of a loop whose length is known
INTERVAL = 100  # items between two lines otherwise


class ProgressBar:
    """Counts the items of this process. The main process shows them: as a bar if stderr is a
    terminal, else as log lines, so that pipes and job logs get a few whole lines.

    total: number of items, 0 if it is unknown. unit: what an item is called. shown: False shows
    nothing. count: items so far.
    """

    def __init__(self, title: str, total: int, unit: str, *, shown: bool = True) -> None:
        shown = shown and comm.is_main()
        on_terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=total or None,
            desc=title,
            unit=unit,
            dynamic_ncols=True,
            disable=not on_terminal,
        )
        self._title = title
        self._unit = unit
        self._total = total
        self.count = 0
        self._interval = (max(1, -(-total // LINES)) if total else INTERVAL) if shown else 0
        if on_terminal:
            self._interval = 0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self) -> None:
        """Count one item."""
        self.count += 1
        self._bar.update()
        if self._interval and (self.count % self._interval == 0 or self.count == self._total):
            logger.info(
                "%s: %d%s %ss%s",
                self._title,
                self.count,
                f" of {self._total}" if self._total else "",
                self._unit,
                f" of rank 0 of {comm.world_size()}" if comm.world_size() > 1 else "",
            )
