"""Signals ask to stop; only where nothing could be lost do they interrupt."""

from __future__ import annotations

import os
import signal

import pytest

from swahr.engine.signals import Interrupted, StopRequest, leave_signals_to_parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_noted(number: int) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.signal == 0
        os.kill(os.getpid(), number)
        assert stop.signal == number
    assert signal.getsignal(number) == before


def test_the_first_signal_counts_and_a_second_ctrl_c_interrupts() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_at_once() -> None:
    with StopRequest() as stop:
        with pytest.raises(Interrupted, match="stopped by SIGTERM") as caught, stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.exit_status == 143
        with pytest.raises(Interrupted), stop.at_once():
            pytest.fail("a signal from before does not let it begin")


def test_workers_ignore_signals_and_keep_their_own_start() -> None:
    started: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        leave_signals_to_parent(started.append)(3)
        leave_signals_to_parent(None)(4)
        assert started == [3]
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
