"""Training on a CPU that other work shares: how much of its fair share a run gets.

Each measurement is a process of its own, as the settings of OpenMP hold from the moment torch is
loaded. Called as a program, this module is that process:

    python -m benchmarks.shared_cpu STEPS KEY VALUE ...    # prints the seconds of a step
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Bench, Row, benchmark, run_python

ROOT = Path(__file__).resolve().parents[1]
COMPETITORS = (0, 1, 2, 4)
STEPS = 16  # the first quarter is not counted: time for share_cpu to look at the cores
BATCH = 8


class Setting(NamedTuple):
    """Environment variables and settings of a run."""

    variables: dict[str, str]
    opts: list[str]


SETTINGS = {
    "default": Setting({}, []),
    "OMP_WAIT_POLICY=passive": Setting({"OMP_WAIT_POLICY": "passive"}, []),
    "TRAIN.HOOKS share_cpu": Setting({}, ["TRAIN.HOOKS", "[share_cpu]"]),
}


@benchmark
def shared_cpu(bench: Bench) -> Iterator[Row]:
    """Steps of the tiny network beside processes that never rest.

    The fair share of a run with as many threads as cores is cores / (cores + competitors) of its
    speed alone.
    """
    if bench.cuda:
        return
    cores = os.cpu_count() or 1
    alone: dict[str, float] = {}

    def row(name: str, count: int) -> Row:
        with competitors(count):
            seconds = step_seconds(STEPS, SETTINGS[name])
        share = "not compared"
        if count == 0:
            alone[name] = seconds
            share = "alone"
        elif name in alone:
            fair = alone[name] * (cores + count) / cores
            share = f"{fair / seconds:.0%} of the fair share"
        case = f"tiny, 192 px, batch {BATCH}, {count} competitors, {name}: {share}"
        return Row("shared cpu", case, None, 1e3 * seconds, images=BATCH)

    cases = {
        f"{name}, {count} competitors": partial(row, name, count)
        for name in SETTINGS
        for count in COMPETITORS
    }
    yield from bench.each("shared cpu", cases)


@contextmanager
def competitors(count: int) -> Iterator[None]:
    """That many processes that never rest."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def step_seconds(steps: int, setting: Setting) -> float:
    """Seconds of a training step in a new process."""
    path = os.pathsep.join([str(ROOT / "lib"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    program = ["-m", "benchmarks.shared_cpu", steps, *setting.opts]
    printed = run_python(program, {"PYTHONPATH": path} | setting.variables)
    return float(printed.splitlines()[-1])


def main(steps: int, opts: list[str]) -> None:
    from benchmarks.network import TINY, train

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench("cpu", [], seconds=0, calls=1, folder=Path(folder))
        begin = time.perf_counter()
        seconds, _ = train(bench, TINY, [*options(bench, steps), *opts], steps)
        print(f"{time.perf_counter() - begin:.1f} s in all", file=sys.stderr)
    print(seconds)


def options(bench: Bench, steps: int) -> list[object]:
    """Settings of a run over a few images that are made here, for that many steps."""
    from benchmarks.network import make_images

    return [
        *("DATASET.ROOT", make_images(bench, BATCH, 1)),
        *("DATASET.REPEAT", steps),
        *("WORKERS", 1),
        *("TRAIN.IMAGES_PER_GPU", BATCH),
        *("MODEL.PRETRAINED", ""),
    ]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
