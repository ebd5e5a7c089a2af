"""Recorded steps, on a stub of CUDA: plain calls first, then one recording for each shape."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from swahr.acceleration.cuda_graphs import WARM_UP, StepGraphs

Log = list[tuple[str, float]]


class Counting:
    """A step: adds its input to a total, and gives the total; notes how it was called."""

    def __init__(self) -> None:
        self.total = torch.zeros(())
        self.log: Log = []
        self.capturing = False

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        self.log.append(("captured" if self.capturing else "plain", float(inputs[0].sum())))
        if self.capturing:  # nothing is computed then
            self.static = inputs
            return {"total": self.total}
        self.total += inputs[0].sum()
        return {"total": self.total.clone()}

    def replay(self) -> None:
        self.log.append(("replayed", float(self.static[0].sum())))
        self.total += self.static[0].sum()


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()

    @contextmanager
    def capture(graph: Any, **options: Any) -> Iterator[None]:
        counting.capturing = True
        try:
            yield
        finally:
            counting.capturing = False

    stubs: dict[str, Any] = {
        "graph_pool_handle": object,
        "CUDAGraph": lambda: counting,
        "Stream": MagicMock,
        "stream": lambda stream: nullcontext(),
        "current_stream": MagicMock,
        "graph": capture,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    return counting


def test_every_call_counts_once(step: Counting) -> None:
    graphs = StepGraphs(step)
    results = [graphs([torch.full((2,), float(i))])["total"] for i in range(1, WARM_UP + 4)]
    assert [float(result) for result in results] == [2, 6, 12, 20, 30, 42]
    kinds = [kind for kind, _ in step.log]
    assert kinds == ["plain"] * WARM_UP + ["captured"] + ["replayed"] * 3


def test_each_shape_is_recorded(step: Counting) -> None:
    graphs = StepGraphs(step)
    for _ in range(WARM_UP + 1):
        graphs([torch.ones(2)])
        graphs([torch.ones(3)])
    assert len(graphs.recorded) == 2 and float(step.total) == 5 * (WARM_UP + 1)


def test_a_step_that_cannot_be_recorded_is_called_plainly(
    step: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[str] = []

    def refuse(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        if step.capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return step(inputs)

    graphs = StepGraphs(refuse, lambda: failures.append("told"))
    with caplog.at_level(logging.WARNING, "swahr"):
        for _ in range(WARM_UP + 3):
            graphs([torch.ones(2)])
    assert float(step.total) == 2 * (WARM_UP + 3) and failures == ["told"]
    assert [record.getMessage() for record in caplog.records] == [
        "TRAIN.CUDA_GRAPHS: steps are not recorded: "
        "operation not permitted when stream is capturing"
    ]
