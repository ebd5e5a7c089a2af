"""Signals that ask a run to stop, as a flag that is read between two steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from swahr.distributed import comm

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


# The mark of this process while it handles signals, None for none. The launcher reads from marks
# that are left over which processes it killed before they had stopped by themselves.
_mark: Path | None = None


def mark_in(folder: str) -> None:
    """Leave a mark of this process in the folder whenever a StopRequest is entered."""
    global _mark
    _mark = Path(folder) / f"handles_signals_{comm.rank()}"


def marks_in(folder: str) -> list[int]:
    """The ranks whose marks are in the folder."""
    return sorted(int(path.name.rpartition("_")[2]) for path in Path(folder).glob("handles_*_*"))


class Interrupted(BaseException):
    """A signal ended the run in good order.

    It is no Exception, like KeyboardInterrupt, so that what catches the errors of some work does
    not catch a signal that comes meanwhile. `exit_status` is 128 + the signal's number, as in
    shells: 143 after SIGTERM.
    """

    def __init__(self, number: int, detail: str = "") -> None:
        self.number = number
        self.exit_status = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}{detail}")


class StopRequest:
    """While entered, SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) only set `signal`.

    A second Ctrl-C raises KeyboardInterrupt, unless there is a launcher: it sends each Ctrl-C again
    to processes that got it from the terminal. Signals can only be caught in the main thread; in
    other threads nothing is changed.
    """

    def __init__(self) -> None:
        self.signal = 0  # the number of the signal that asked to stop, 0 for none
        self._immediate = False
        self._marked = False  # whether the mark is ours; a StopRequest within another has none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        except ValueError:  # not the main thread
            self._before = {}
        if self._before and _mark is not None and not _mark.exists():
            _mark.touch()
            self._marked = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._marked and _mark is not None:
            _mark.unlink(missing_ok=True)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While the block runs, signals raise Interrupted: for work that has nothing to save.

        Where Python ignores what a handler raises, as in callbacks of C code, the end of the block
        raises it.
        """
        self._immediate = True
        try:
            self._raise_if_asked()
            yield
            self._raise_if_asked()
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT and not comm.launched():
            raise KeyboardInterrupt
        self.signal = self.signal or number
        if self._immediate:
            self._immediate = False  # a second signal must not disturb the exit
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self.signal:
            raise Interrupted(
                self.signal,
                "; the same command with AUTO_RESUME True resumes from the last checkpoint",
            )


class LeaveSignalsToParent:
    """A DataLoader's worker_init_fn; its processes ignore the signals until their parent ends them.

    A scheduler or Ctrl-C sends the signals to the whole job, but the current step still needs data.
    Only a SIGTERM from the parent itself ends the worker. then: another worker_init_fn, called
    afterwards.
    """

    def __init__(self, then: Callable[[int], None] | None = None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        for number in SIGNALS:
            if number != signal.SIGTERM:
                signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, "sigwaitinfo"):  # not on macOS
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_end_with_parent, daemon=True).start()
        if self.then is not None:
            self.then(worker)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != (parent.pid if parent else os.getppid()):
        pass
    os._exit(0)
