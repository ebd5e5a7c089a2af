"""How many threads a shared CPU has room for."""

from __future__ import annotations

from pathlib import Path

import pytest

from swahr.distributed import free_cores
from swahr.distributed.free_cores import CPUTimes, busy_with_others, free_threads

STAT = """\
cpu  999 999 999 999 999 999 999 999 999 999
cpu0 100 20 30 4000 50 6 7 8 9 10
cpu1 1 2 3 4 5 6 7 8 9 10
cpu2 10000 0 0 0 0 0 0 0 0 0
intr 1 2 3
"""


def test_busy_time_is_that_of_the_own_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without idle and disk, with steal, and without guest, which user contains."""
    (tmp_path / "stat").write_text(STAT)
    monkeypatch.setattr(free_cores, "CORE_TIMES", tmp_path / "stat")
    monkeypatch.setattr(free_cores.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(free_cores.os, "sysconf", lambda name: 10)
    assert free_cores.can_read_times()
    busy = (100 + 20 + 30 + 6 + 7 + 8) + (1 + 2 + 3 + 6 + 7 + 8)
    assert free_cores.read_times().busy == busy / 10


def test_others_are_what_is_not_ours() -> None:
    before = CPUTimes(clock=100, busy=50, own=20)
    assert busy_with_others(before, CPUTimes(clock=110, busy=65, own=30)) == 0.5
    assert busy_with_others(before, CPUTimes(clock=110, busy=55, own=30)) == 0


@pytest.mark.parametrize(
    "cores, others, threads",
    [(2, 0, 2), (2, 0.4, 2), (2, 0.67, 1), (2, 1, 1), (2, 4, 1), (16, 2.8, 13), (1, 3, 1)],
)
def test_threads_are_the_free_cores(cores: int, others: float, threads: int) -> None:
    assert free_threads(cores, others) == threads
