"""What one batch of an evaluation asks of a GPU, counted on a pretended one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Bench, Row, benchmark
from benchmarks.network import crowd_predictor
from benchmarks.pretend_device import DEVICE, Counts, PretendDevice, pretended

IMAGE = (480, 640, 3)
PEOPLE = 10


class CountedNetwork:
    """A network whose operations are counted apart from those around it: those of `inside` alone,
    without those that NetworkWithCrowd adds.
    """

    def __init__(self, crowded: Any, device: PretendDevice) -> None:
        self.crowded = crowded
        self.inside = crowded.model
        self.device = device
        self.counts = Counts()
        crowded.model = self.run

    def __call__(self, images: torch.Tensor) -> Any:
        with counted(self.device):
            return self.crowded(images)

    def run(self, images: torch.Tensor) -> Any:
        with counted(self.device) as self.counts:
            return self.inside(images)


@contextmanager
def counted(device: PretendDevice) -> Iterator[Counts]:
    """Counts of what happens within, which are not those of the device afterwards."""
    before = device.counts
    device.counts = Counts()
    try:
        yield device.counts
    finally:
        device.counts = before


@benchmark
def evaluation_operations(bench: Bench) -> Iterator[Row]:
    """Operations, copies and waits of one evaluated batch: no times, on any machine."""
    for name, opts in {"exact": [], "fast": ["TEST.FAST_DECODE", True]}.items():
        for batch in (1, 4):
            for part, counts in count_batch(bench, opts, batch).items():
                case = f"{name}, batch {batch} of 640 x 480 with {PEOPLE} people, {part}: {counts}"
                yield Row("evaluation operations", case, None, None, images=batch)


def count_batch(bench: Bench, opts: list[Any], batch: int) -> dict[str, Counts]:
    """The counts of each part of one batch, after a first batch that fills all caches."""
    images = [np.random.default_rng(0).integers(0, 256, IMAGE, np.uint8)] * batch
    with pretended() as device:
        predictor = crowd_predictor(
            bench, ["TEST.IMAGES_PER_GPU", batch, *opts], PEOPLE, device=DEVICE
        )
        network = CountedNetwork(predictor.model, device)
        predictor.model = network
        [(_, prepared)] = predictor.prepare(images)
        predictor.decode(prepared, predictor.maps(prepared))
        with counted(device) as around:
            maps = predictor.maps(prepared)
        with counted(device) as decoding:
            predictor.decode(prepared, maps)
    return {"network": network.counts, "maps": around, "decoding": decoding}
