"""What all benchmarks share: the clock, rows of results, their names, and the report."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch


@dataclass
class Row:
    """One measurement: milliseconds of the plain version and of ours, and the goal.

    ours_ms: None where the case says what was counted and no time was taken. images: processed in
    that time. same: whether both gave the same result; None if they cannot be compared. memory_mb:
    peak on the GPU, of ours. share: part of our time that was spent inside the network.
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
    ) -> None:
        """people: sizes of the crowds. seconds, calls: least time and number of calls for each
        measurement. folder: for files, removed later. data: root of a set like COCO's, for
        validation on images that are not made here.
        """
        self.device = torch.device(device)
        self.people = people
        self.seconds = seconds
        self.calls = calls
        self.folder = folder
        self.data = data
        self.cuda = self.device.type == "cuda"
        self.cache: dict[str, Any] = {}  # results that a later benchmark uses too
        self.estimates: dict[str, str] = {}  # computed, not measured: told below the table

    def measure(self, *functions: Callable[[], Any]) -> list[float]:
        """The best time of each function in milliseconds.

        The functions are called in turn, each as often as the others, so that they share whatever
        else the machine does meanwhile.
        """
        best = [float("inf")] * len(functions)
        calls = 0
        start = time.perf_counter()
        while calls < self.calls or time.perf_counter() - start < self.seconds:
            for i, function in enumerate(functions):
                self.wait()
                begin = time.perf_counter()
                function()
                self.wait()
                best[i] = min(best[i], time.perf_counter() - begin)
            calls += 1
        return [1e3 * seconds for seconds in best]

    def row(
        self,
        benchmark: str,
        case: str,
        plain: Callable[[], Any] | None,
        ours: Callable[[], Any],
        same: Callable[[Any, Any], bool] | None = None,
        **goal: Any,
    ) -> Row:
        """Call each version once without a clock, compare the results, and measure both.

        same(result of ours, result of plain): whether they are the same. goal: further fields of
        the row.
        """
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        result = ours()  # compiles what is not compiled yet
        self.wait()
        memory = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else None
        agree = None
        if plain is None:
            plain_ms = None
            (ours_ms,) = self.measure(ours)
        else:
            plain_result = plain()
            agree = bool(same(result, plain_result)) if same else None
            del plain_result
            plain_ms, ours_ms = self.measure(plain, ours)
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "linux" else 1 << 30
    )
    torch_version = torch.__version__
    if bench.cuda:
        torch_version = f"{torch_version}, CUDA {torch.version.cuda}"
    return {
        "command": f"`{shlex.join(['python', 'tools/benchmark.py', *arguments])}`",
        "device": f"{name} ({bench.device})",
        "dtype": "float32 where nothing else is said",
        "torch": torch_version,
        "threads": f"{torch.get_num_threads()} (compiled loops: 1) on {os.cpu_count()} cores",
        "numpy, numba, python": ", ".join(
            (np.__version__, numba.__version__, platform.python_version())
        ),
        "peak memory of the process": f"{peak:.1f} GiB",
        "times": f"the best of at least {bench.calls} calls; plain and ours are called in turn, "
        "each as often",
        "a single benchmark": "the command above with `--only NAME`, for the name in the first "
        "column",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
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
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    lines += [f"\nResults differ: {row.benchmark}, {row.case}" for row in different(rows)]
    lines += [f"\nNot measured: {name}: {problem}" for name, problem in problems.items()]
    if estimates:
        lines += ["", "## Computed from the card's measured limits, not measured", ""]
        lines += [f"- {text}" for text in estimates.values()]
    return "\n".join(lines) + "\n"


def different(rows: list[Row]) -> list[Row]:
    """The rows whose two versions gave different results."""
    return [row for row in rows if row.same is False]


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
