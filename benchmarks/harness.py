"""What all benchmarks share: the clock, rows of results, their names, and the report."""

from __future__ import annotations

import gc
import os
import platform
import resource
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

PLAIN_SECONDS = 2.0  # on a GPU: of clocked calls, after which a plain version is called no more
LONGEST_ALARM = 1e9  # seconds; more, as good as for ever, are too many for some systems
WARM_UP = 6  # unclocked calls of ours on a GPU: CUDA graphs are recorded in the fifth one


class TimeOver(BaseException):
    """The minutes for all benchmarks are over.

    Like KeyboardInterrupt, it is none of the errors that measured code may catch.
    """


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeOver in the block after so many seconds, where the system has alarms.

    A call that does not come back to Python, such as a wait for a GPU, is not interrupted.
    """
    if seconds > LONGEST_ALARM or not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise TimeOver

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Row:
    """One measurement: milliseconds of the plain version and of ours, and the goal.

    ours_ms: None where the case says what was counted and no time was taken. images: processed in
    that time. same: whether both gave the same result; None if they cannot be compared. memory_mb:
    see MEMORY. share: part of our time that was spent inside the network.
    """

    benchmark: str
    case: str
    plain_ms: float | None
    ours_ms: float | None
    images: int = 1
    goal_ratio: float | None = None
    goal_ms: float | None = None
    same: bool | None = None
    memory_mb: float | None = None
    share: float | None = None
    goal_share: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times less time ours takes; None without a plain version."""
        return self.plain_ms / self.ours_ms if self.plain_ms and self.ours_ms else None

    @property
    def met(self) -> bool | None:
        """Whether all goals are met; None without a goal."""
        met = [self.ratio >= self.goal_ratio] if self.ratio and self.goal_ratio else []
        met += [self.ours_ms <= self.goal_ms] if self.ours_ms and self.goal_ms else []
        met += [self.share >= self.goal_share] if self.share and self.goal_share else []
        return all(met) if met else None


class Bench:
    """What benchmarks need to know, and the clock."""

    def __init__(
        self,
        device: str,
        people: list[int],
        *,
        seconds: float,
        calls: int,
        folder: Path,
        data: Path | None = None,
        minutes: float = float("inf"),
    ) -> None:
        """people: sizes of the crowds. seconds, calls: least time and number of calls for each
        measurement. folder: for files, removed later. data: root of a set like COCO's, for
        validation on images that are not made here. minutes: after these, no further row starts.
        """
        self.device = torch.device(device)
        self.people = people
        self.seconds = seconds
        self.calls = calls
        self.folder = folder
        self.data = data
        self.cuda = self.device.type == "cuda"
        # On a CPU ratios count, so both versions are called as often there.
        self.plain_seconds = PLAIN_SECONDS if self.cuda else float("inf")
        self.minutes = minutes
        self.end = time.monotonic() + 60 * minutes
        self.cache: dict[str, Any] = {}  # results that a later benchmark uses too
        self.problems: dict[str, str] = {}  # why a benchmark, or a row of one, was not measured
        self.estimates: dict[str, str] = {}  # computed, not measured: told below the table

    def check_time(self) -> None:
        """Raises TimeOver after the minutes."""
        if time.monotonic() >= self.end:
            raise TimeOver

    def note(self, name: str, error: Exception) -> None:
        """Remember why a benchmark, or a row of one, was not measured; print where it failed."""
        traceback.print_exception(error)
        reason = str(error).strip().splitlines() or [""]
        self.problems[name] = f"{type(error).__name__}: {reason[0]}"

    def each(
        self, benchmark: str, cases: Mapping[str, Callable[[], Row | list[Row]]]
    ) -> Iterator[Row]:
        """The rows of all cases. One that fails is noted, and the next one runs.

        Each case starts without the memory of the one before. Raises TimeOver before a case that
        would start after the minutes.
        """
        for case, measured in cases.items():
            self.check_time()
            try:
                self.free()
                rows = measured()
            except Exception as error:  # also of a GPU that does not work any more
                self.note(f"{benchmark}, {case}", error)
            else:
                yield from [rows] if isinstance(rows, Row) else rows

    def free(self) -> None:
        """Give back the memory of what is not used any more.

        Training steps are in reference cycles, so they keep their memory until it is collected.
        """
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def measure(
        self, ours: Callable[[], Any], plain: Callable[[], Any] | None = None
    ) -> tuple[float, float | None]:
        """The best times of ours and of the plain version in milliseconds.

        They are called in turn, so that they share whatever else the machine does meanwhile. The
        plain version is called until it has taken `plain_seconds`.
        """
        ours_best = plain_best = float("inf")
        plain_total = 0.0
        calls = 0
        start = time.perf_counter()
        while calls < self.calls or time.perf_counter() - start < self.seconds:
            if plain is not None and plain_total < self.plain_seconds:
                seconds = self.clock(plain)
                plain_best = min(plain_best, seconds)
                plain_total += seconds
            ours_best = min(ours_best, self.clock(ours))
            calls += 1
        return 1e3 * ours_best, 1e3 * plain_best if plain is not None else None

    def clock(self, function: Callable[[], Any]) -> float:
        """Seconds of one call."""
        self.wait()
        begin = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - begin

    def row(
        self,
        benchmark: str,
        case: str,
        plain: Callable[[], Any] | None,
        ours: Callable[[], Any],
        same: Callable[[Any, Any], bool] | None = None,
        **goal: Any,
    ) -> Row:
        """Call each version without a clock, compare the results, and measure both.

        same(result of ours, result of plain): whether they are the same. goal: further fields of
        the row.
        """
        self.free()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(WARM_UP if self.cuda else 1):
            result = ours()  # compiles what is not compiled yet
        self.wait()
        memory = torch.cuda.max_memory_reserved() / 2**20 if self.cuda else None
        agree = None
        if plain is not None:
            plain_result = plain()
            agree = bool(same(result, plain_result)) if same else None
            del plain_result
        del result
        ours_ms, plain_ms = self.measure(ours, plain)
        return Row(benchmark, case, plain_ms, ours_ms, same=agree, memory_mb=memory, **goal)

    def wait(self) -> None:
        """Wait until the GPU has finished."""
        if self.cuda:
            torch.cuda.synchronize()


Benchmark = Callable[[Bench], Iterator[Row]]
BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(function: Benchmark) -> Benchmark:
    """Add a benchmark to BENCHMARKS under its function's name, with spaces for underscores.

    A benchmark imports what it measures inside the function, so that the others can run where that
    import fails.
    """
    BENCHMARKS[function.__name__.replace("_", " ")] = function
    return function


def close(got: Tensor, want: Tensor, tolerance: float) -> bool:
    """Whether no value differs by more than this fraction of the largest value of `want`.

    False where `want` is zero everywhere, which shows nothing.
    """
    largest = float(want.abs().max())
    error = float((got.float() - want.float()).abs().max())
    return largest > 0 and error <= tolerance * largest


def run_python(arguments: Sequence[object], variables: Mapping[str, str]) -> str:
    """What a Python of its own prints, with these arguments and environment variables besides ours.

    Raises RuntimeError with the last line of its errors where it fails.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | dict(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout


def describe(bench: Bench, arguments: Sequence[str]) -> dict[str, str]:
    """The command and the machine on which the times were measured.

    arguments: those of the command.
    """
    name = torch.cuda.get_device_name() if bench.cuda else _processor()
    torch_version = torch.__version__
    if bench.cuda:
        torch_version = f"{torch_version}, CUDA {torch.version.cuda}"
    often = (
        f"the plain version until it has taken {PLAIN_SECONDS:g} s"
        if bench.cuda
        else "each as often"
    )
    about = {
        "command": f"`{shlex.join(['python', 'tools/benchmark.py', *arguments])}`",
        "device": f"{name} ({bench.device})",
        "dtype": "float32 where nothing else is said",
        "torch": torch_version,
        "threads": f"{torch.get_num_threads()} (compiled loops: 1) on {os.cpu_count()} cores",
        "numpy, numba, python": ", ".join(
            (np.__version__, numba.__version__, platform.python_version())
        ),
        "times": f"the best of at least {bench.calls} calls; plain and ours are called in turn, "
        f"{often}",
        "a single benchmark": "the command above with `--only NAME`, for the name in the first "
        "column",
    }
    return about | ({"GPU MiB": MEMORY} if bench.cuda else {})


def peak_memory() -> str:
    """The most memory that this process has had so far."""
    unit = 1 << 20 if sys.platform == "linux" else 1 << 30
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


MEMORY = (
    f"the most that PyTorch took from the card in the first {WARM_UP} calls of ours, with what it "
    "keeps for later and what a plain version has on the card"
)
COLUMNS = (
    "benchmark",
    "case",
    "plain, ms",
    "ours, ms",
    "ratio",
    "images/s",
    "in network",
    "goal",
    "met",
    "same",
    "GPU MiB",
)


def table(
    about: dict[str, str],
    rows: list[Row],
    problems: dict[str, str],
    estimates: dict[str, str] | None = None,
) -> str:
    """The report in Markdown. problems: why a benchmark was not measured. estimates: what was
    computed; it stands apart from what was measured.
    """
    lines = ["# Benchmark", "", *(f"- {key}: {value}" for key, value in about.items()), ""]
    lines.append(f"| {' | '.join(COLUMNS)} |")
    lines.append("|---|---|---:|---:|---:|---:|---:|---|---|---|---:|")
    lines += map(table_line, rows)
    lines += [f"\nResults differ: {row.benchmark}, {row.case}" for row in different(rows)]
    lines += [f"\nNot measured: {name}: {problem}" for name, problem in problems.items()]
    if estimates:
        lines += ["", "## Computed from the card's measured limits, not measured", ""]
        lines += [f"- {text}" for text in estimates.values()]
    return "\n".join(lines) + "\n"


def different(rows: list[Row]) -> list[Row]:
    """The rows whose two versions gave different results."""
    return [row for row in rows if row.same is False]


def table_line(row: Row) -> str:
    """The row of the table."""
    return f"| {' | '.join(_cells(row))} |"


def _cells(row: Row) -> list[str]:
    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:,.{digits}f}"

    words = {None: "", True: "yes", False: "no"}
    goals = [
        f"{row.goal_ratio:g}x" if row.goal_ratio else "",
        f"{row.goal_ms:,.4g} ms" if row.goal_ms else "",
        f"{row.goal_share:.0%}" if row.goal_share else "",
    ]
    return [
        row.benchmark,
        row.case,
        number(row.plain_ms),
        number(row.ours_ms, 3),
        number(row.ratio, 1),
        number(1e3 * row.images / row.ours_ms if row.ours_ms else None, 1),
        "" if row.share is None else f"{row.share:.1%}",
        ", ".join(filter(None, goals)),
        words[row.met],
        words[row.same],
        number(row.memory_mb, 0),
    ]
