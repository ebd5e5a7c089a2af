"""How many threads a CPU has room for that other programs use too.

The threads of an operation wait for each other. If one of them waits for a core, all do, some
thousand times in a training step; see docs/benchmarks.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

CORE_TIMES = Path("/proc/stat")
IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
COUNTED = 8  # columns before those that others contain


class CPUTimes(NamedTuple):
    """Seconds so far: of the clock, that the cores of this process were busy, and that this process
    used of them.
    """

    clock: float
    busy: float
    own: float


def count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def can_read_times() -> bool:
    """Whether the system tells the times of its cores; Linux does."""
    return CORE_TIMES.is_file()


def read_times() -> CPUTimes:
    """The times now, where `can_read_times`."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in CORE_TIMES.read_text(encoding="ascii").splitlines():
        name, *columns = line.split()
        if name in cores:
            ticks += sum(int(value) for i, value in enumerate(columns[:COUNTED]) if i not in IDLE)
    return CPUTimes(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


def busy_with_others(before: CPUTimes, now: CPUTimes) -> float:
    """Cores that other programs kept busy between two times."""
    clock, busy, own = (late - early for early, late in zip(before, now))
    return max(busy - own, 0.0) / max(clock, 1e-9)


def free_threads(cores: int, others: float) -> int:
    """Threads for `cores` cores of which other programs keep `others` busy: 1 to cores."""
    return min(max(int(cores - others + 0.5), 1), cores)
