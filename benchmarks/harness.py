"""What the benchmark is made of: a clock, rows of results, the register of pieces, and the
report.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch


@dataclass
class Row:
    """One measurement: milliseconds of the plain version and of ours, and what the aim is."""

    piece: str
    case: str
    plain_ms: float | None
    ours_ms: float
    images: int = 1  # that are done in that time
    goal_ratio: float | None = None
    goal_ms: float | None = None
    same: bool | None = None  # whether both gave the same result, where they can be compared
    memory_mb: float | None = None  # peak on the GPU, of ours
    share: float | None = None  # of our time that was spent inside the network
    goal_share: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.plain_ms / self.ours_ms if self.plain_ms else None

    @property
    def met(self) -> bool | None:
        met = [self.ratio >= self.goal_ratio] if self.ratio and self.goal_ratio else []
        met += [self.ours_ms <= self.goal_ms] if self.goal_ms else []
        met += [self.share >= self.goal_share] if self.share and self.goal_share else []
        return all(met) if met else None


class Bench:
    """What the pieces need to know, and the clock."""

    def __init__(
        self, device: str, people: list[int], seconds: float, folder: Path, data: Path | None = None
    ) -> None:
        """people: sizes of the crowds; seconds: least time for each measurement; folder: for files,
        removed later; data: a tree like COCO's, for validation on images that are not made here.
        """
        self.device = torch.device(device)
        self.people = people
        self.seconds = seconds
        self.folder = folder
        self.data = data
        self.cuda = self.device.type == "cuda"
        self.kept: dict[str, Any] = {}  # what a piece leaves for a later one

    def measure(self, function: Callable[[], Any], at_least: int = 3) -> tuple[float, Any]:
        """The best time in milliseconds of at least so many calls and as many more as there is time
        for; the result.
        """
        best = float("inf")
        start = time.perf_counter()
        while at_least > 0 or time.perf_counter() - start < self.seconds:
            self.wait()
            begin = time.perf_counter()
            result = function()
            self.wait()
            best = min(best, time.perf_counter() - begin)
            at_least = at_least - 1
        return 1e3 * best, result

    def row(
        self,
        piece: str,
        case: str,
        plain: Callable[[], Any] | None,
        ours: Callable[[], Any],
        same: Callable[[Any, Any], bool] | None = None,
        **goal: Any,
    ) -> Row:
        """Measure both; same(our result, plain result) says whether they give the same."""
        ours()  # compiled, warm
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        ours_ms, got = self.measure(ours)
        memory = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else None
        plain_ms, want = (
            self.measure(plain, at_least=1) if plain else (None, None)
        )  # it can take seconds
        return Row(
            piece,
            case,
            plain_ms,
            ours_ms,
            same=same(got, want) if same else None,
            memory_mb=memory,
            **goal,
        )

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


Piece = Callable[[Bench], Iterator[Row]]
PIECES: dict[str, Piece] = {}


def piece(function: Piece) -> Piece:
    """Register a piece under its name, with spaces for _.

    What it measures it imports itself, so that the other pieces can be measured where that fails.
    """
    PIECES[function.__name__.replace("_", " ")] = function
    return function


def describe(bench: Bench) -> dict[str, str]:
    """Where the times were taken."""
    name = torch.cuda.get_device_name() if bench.cuda else _processor()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "linux" else 1 << 30
    )
    return {
        "device": f"{name} ({bench.device})",
        "dtype": "float32 where nothing else is said",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}"
        if bench.cuda
        else torch.__version__,
        "threads": f"{torch.get_num_threads()} (compiled loops: 1) on {os.cpu_count()} cores",
        "numpy, numba, python": f"{np.__version__}, {numba.__version__}, {platform.python_version()}",
        "peak memory of the process": f"{peak:.1f} GiB",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def table(about: dict[str, str], rows: list[Row], problems: dict[str, str]) -> str:
    """The report in Markdown."""

    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:,.{digits}f}"

    lines = [
        "# Benchmark",
        "",
        *(f"- {key}: {value}" for key, value in about.items()),
        "",
        "| piece | case | plain, ms | ours, ms | ratio | images/s | in network | goal | met | same | GPU MiB |",
        "|---|---|---:|---:|---:|---:|---:|---|---|---|---:|",
    ]
    said = {None: "", True: "yes", False: "no"}
    for row in rows:
        goals = [
            f"{row.goal_ratio:g}x" if row.goal_ratio else "",
            f"{row.goal_ms:,.4g} ms" if row.goal_ms else "",
            f"{row.goal_share:.0%}" if row.goal_share else "",
        ]
        per_second = 1e3 * row.images / row.ours_ms
        cells = [
            row.piece,
            row.case,
            number(row.plain_ms),
            number(row.ours_ms, 3),
            number(row.ratio, 1),
            number(per_second, 1),
            "" if row.share is None else f"{row.share:.1%}",
            ", ".join(filter(None, goals)),
            said[row.met],
            said[row.same],
            number(row.memory_mb, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return (
        "\n".join(
            lines + [f"\nNot measured: {name}: {problem}" for name, problem in problems.items()]
        )
        + "\n"
    )
