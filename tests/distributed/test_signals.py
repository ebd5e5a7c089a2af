"""Signals ask to stop; only where nothing could be lost do they interrupt."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from contextlib import suppress
from multiprocessing.connection import Connection

import pytest

from swahr.distributed.signals import Interrupted, LeaveSignalsToParent, StopRequest


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


def test_what_catches_the_errors_of_some_work_catches_no_signal() -> None:
    with StopRequest() as stop, pytest.raises(Interrupted), stop.at_once():
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the signal is lost")


def test_a_signal_that_c_code_ignored_counts_at_the_end() -> None:
    done = False
    with StopRequest() as stop, pytest.raises(Interrupted), stop.at_once():
        with suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        done = True
    assert done


def work(ready: Connection) -> None:
    LeaveSignalsToParent(ready.send)(3)
    ready.send("busy")
    signal.pause()


def test_workers_end_when_their_parent_says_so_and_not_before() -> None:
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
    worker.start()
    assert ours.recv() == 3 and ours.recv() == "busy"
    for name in ("TERM", "USR1", "INT"):
        subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
    worker.join(0.2)
    assert worker.is_alive()
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
