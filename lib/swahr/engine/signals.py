"""Stopping on request: what schedulers send before they take a machine away becomes a flag, looked at between two steps."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(RuntimeError):
    """A signal ended the run in good order. `exit_status` is 128 + its number, as shells have it: 143 after SIGTERM."""

    def __init__(self, number: int, detail: str = "") -> None:
        self.exit_status = 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}{detail}")


class StopRequest:
    """While entered, SIGTERM, SIGUSR1 and SIGINT only set `signal`; a second SIGINT (Ctrl-C) interrupts at once, as ever.

    Outside the main thread signals cannot be caught, and nothing is changed.
    """

    def __init__(self) -> None:
        self.signal = 0  # the number of the signal that asked to stop, 0 for none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number


def leave_signals_to_parent(then: Callable[[int], None] | None) -> Callable[[int], None]:
    """A DataLoader's worker_init_fn: its processes ignore the signals above (which a scheduler or Ctrl-C sends to the whole job),
    so that the step in hand can end; they end when the process that reads from them does.
    """
    return _IgnoreSignals(then)


class _IgnoreSignals:
    """A class, because a closure could not be sent to spawned workers."""

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.then is not None:
            self.then(worker)
