"""What one batch of an evaluation asks of a GPU, counted on a pretended one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Bench, Row, benchmark
from benchmarks.network import crowd_predictor
from benchmarks.pretend_device import DEVICE, Counts, PretendDevice, pretended

IMAGE = (480, 640, 3)
PEOPLE = 10
BATCHES = (1, 8)


class CountedNetwork:
    """A network that runs once, on one image and its mirror image, whose maps serve all batches.

    Its operations are in `counts`; those that NetworkWithCrowd adds are not counted.
    """

    def __init__(self, crowded: Any, device: PretendDevice) -> None:
        self.crowded = crowded
        self.inside = crowded.model
        self.device = device
        self.counts = Counts()
        self.outputs: list[Any] = []
        crowded.model = self.run

    def __call__(self, images: torch.Tensor) -> Any:
        with counted(self.device):
            return self.crowded(images)

    def run(self, images: torch.Tensor) -> Any:
        half = len(images) // 2
        if not self.outputs:
            with counted(self.device) as self.counts:
                self.outputs = self.inside(images[::half])
        sides = [0] * half + [1] * half
        return [stage.map(lambda maps: maps[sides]) for stage in self.outputs]


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
    ways = {
        "exact": [],
        "fast": ["TEST.FAST_DECODE", True],
        "TEST.CUDNN_FUSE": ["TEST.CUDNN_FUSE", True],
    }

    def rows(way: str) -> list[Row]:
        counts = count_batches(bench, ways[way], BATCHES)
        cases = [f"{way}, {part}: {count}" for part, count in counts.items()]
        return [Row("evaluation operations", case, None, None) for case in cases]

    yield from bench.each("evaluation operations", {way: partial(rows, way) for way in ways})


def count_batches(bench: Bench, opts: list[Any], batches: Sequence[int]) -> dict[str, Counts]:
    """The counts of the network, and of what is around it in batches of these sizes, each after a
    first batch that fills all caches.
    """
    found: dict[str, Counts] = {}
    with pretended() as device:
        predictor = crowd_predictor(bench, opts, PEOPLE, device=DEVICE)
        network = CountedNetwork(predictor.model, device)
        predictor.model = network
        for batch in batches:
            predictor.batch_size = batch
            images = [np.random.default_rng(0).integers(0, 256, IMAGE, np.uint8)] * batch
            [(_, prepared)] = predictor.prepare(images)
            predictor.decode(prepared, predictor.maps(prepared))
            with counted(device) as around:
                maps = predictor.maps(prepared)
            with counted(device) as decoding:
                predictor.decode(prepared, maps)
            name = f"{batch} x 640 x 480 with {PEOPLE} people"
            found |= {f"{name}, maps": around, f"{name}, decoding": decoding}
    return {"network with flip, 1 x 640 x 480": network.counts, **found}
