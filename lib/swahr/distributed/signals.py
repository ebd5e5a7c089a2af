"""Stopping on request: what schedulers send before they take a machine away becomes a flag, seen
between steps.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from swahr.distributed import comm

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(RuntimeError):
    """A signal ended the run in good order. `exit_status` is 128 + its number, as shells have it:
    143 after SIGTERM.
    """

    def __init__(self, number: int, detail: str = "") -> None:
        self.exit_status = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}{detail}")


class StopRequest:
    """While entered, SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) only set `signal`, for the loop to see
    between two steps.

    A second Ctrl-C interrupts at once, as ever, unless a launcher may have sent it: those pass on
    what the terminal sent already. Outside the main thread signals cannot be caught, and nothing is
    changed.
    """

    def __init__(self) -> None:
        self.signal = 0  # the number of the signal that asked to stop, 0 for none
        self._immediate = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this, signals raise Interrupted: for work that has nothing to save."""
        self._immediate = True
        try:
            self._raise_if_asked()
            yield
        finally:
            self._immediate = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT and not comm.launched():
            raise KeyboardInterrupt
        self.signal = self.signal or number
        if self._immediate:
            self._immediate = False  # once: a second one must not disturb the way out
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self.signal:
            raise Interrupted(
                self.signal,
                "; the same command with AUTO_RESUME True goes on from the last checkpoint",
            )


class LeaveSignalsToParent:
    """A DataLoader's worker_init_fn whose processes go on after the signals above, until their
    parent ends them.

    A scheduler, or Ctrl-C, sends the signals to the whole job, and the step in hand needs its data
    to end. Only a SIGTERM that the parent sends itself, on its way out, ends the worker. then: the
    worker_init_fn there was.
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
