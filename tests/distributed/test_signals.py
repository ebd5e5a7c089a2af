"""Signals ask to stop; only where nothing could be lost do they interrupt."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from swahr.distributed import comm, signals
from swahr.distributed.signals import (
    SIGNALS,
    Interrupted,
    LeaveSignalsToParent,
    StopRequest,
    mark_in,
    marks_in,
)


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


def test_a_launcher_sends_ctrl_c_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a second one of its processes is no wish to stop at once."""
    monkeypatch.setattr(comm, "launched", lambda: True)
    with StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT


def test_another_thread_changes_no_handler() -> None:
    def handlers() -> list[object]:
        with StopRequest():
            return [signal.getsignal(number) for number in SIGNALS]

    before = [signal.getsignal(number) for number in SIGNALS]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handlers).result() == before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_mark_is_there_while_signals_are_handled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the outermost StopRequest."""
    monkeypatch.setattr(signals, "_mark", None)
    with StopRequest():
        assert marks_in(str(tmp_path)) == []
    monkeypatch.setattr(comm, "rank", lambda: 12)
    mark_in(str(tmp_path))
    with StopRequest():
        with StopRequest():
            assert marks_in(str(tmp_path)) == [12]
        assert marks_in(str(tmp_path)) == [12]
    assert marks_in(str(tmp_path)) == []


def test_at_once() -> None:
    with StopRequest() as stop:
        with pytest.raises(Interrupted, match="stopped by SIGTERM") as caught, stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.exit_status == 143
        with pytest.raises(Interrupted), stop.at_once():
            pytest.fail("a signal from before does not let it begin")


def test_a_second_signal_does_not_disturb_the_exit() -> None:
    is_tidy = False
    with StopRequest() as stop, pytest.raises(Interrupted), stop.at_once():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            is_tidy = True
    assert is_tidy


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


def test_a_worker_that_is_done_ends_by_itself() -> None:
    fork = multiprocessing.get_context("fork")
    worker = fork.Process(target=LeaveSignalsToParent(), args=(3,), daemon=True)
    worker.start()
    worker.join(30)
    assert worker.exitcode == 0


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
