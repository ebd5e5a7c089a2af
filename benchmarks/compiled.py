"""Benchmarks of compiled networks and steps, on a GPU.

tools/benchmark.py imports them last, because compiling takes the most time.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Bench, Row, benchmark
from benchmarks.network import MIXED_TRAINING, latencies, trainings
from benchmarks.training_steps import BF16, rows_of

STEPS = {
    "bf16, compiled": [*BF16, "TRAIN.COMPILE", "default"],
    "bf16, reduce-overhead": [*BF16, "TRAIN.COMPILE", "reduce-overhead"],
    "bf16, max-autotune": [*BF16, "TRAIN.COMPILE", "max-autotune"],
}


@benchmark
def compiled_latency(bench: Bench) -> Iterator[Row]:
    """One image with flip testing, by compiled networks."""
    if bench.cuda:
        yield from latencies(bench, [["TEST.COMPILE"], ["TEST.COMPILE", "TEST.CUDA_GRAPHS"]])


@benchmark
def compiled_training(bench: Bench) -> Iterator[Row]:
    """Compiled steps, with and without the loading of data."""
    if bench.cuda:
        yield from trainings(
            bench, {"bf16, TRAIN.COMPILE": [*MIXED_TRAINING, "TRAIN.COMPILE", True]}
        )
        yield from rows_of(bench, STEPS)
