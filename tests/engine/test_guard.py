"""Steps that were left out are counted; too many in a row end the run, with everything at hand to look into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swahr.engine.guard import NonFiniteLossError, StepGuard
from tests.engine.replicas import CPU, make_batches

BAD, GOOD = torch.tensor(True), torch.tensor(False)
LOSSES = {"heatmap0": torch.tensor(float("nan")), "scale0": torch.tensor(1.0)}


def test_counts(tmp_path: Path) -> None:
    guard = StepGuard(CPU, 3, tmp_path, bad_steps=10)
    seen = []
    for step, bad in enumerate([GOOD, BAD, BAD, GOOD, BAD]):
        guard.check(step, bad, 0, make_batches(1, 2), LOSSES)
        seen.append((guard.bad_steps, guard.in_a_row))
    assert seen == [(10, 0), (11, 1), (12, 2), (12, 0), (13, 1)]
    assert not list(tmp_path.iterdir())


def test_a_signal_is_passed_on(tmp_path: Path) -> None:
    guard = StepGuard(CPU, 3, tmp_path)
    guard.check(0, GOOD, 0, [], {})
    assert guard.stop_signal == 0
    guard.check(1, GOOD, 15, [], {})
    assert guard.stop_signal == 15


def test_too_many_in_a_row(tmp_path: Path) -> None:
    guard = StepGuard(CPU, 2, tmp_path, replay=lambda: {"state_dict": {"w": torch.ones(1)}})
    batches = make_batches(2, 3)
    guard.check(7, BAD, 0, batches, LOSSES)
    path = tmp_path / "bad_step_rank0.pth.tar"
    with pytest.raises(NonFiniteLossError) as caught:
        guard.check(8, BAD, 0, batches, LOSSES)
    assert str(caught.value) == (
        "the loss or its gradient was not finite for 2 steps in a row (TRAIN.MAX_BAD_STEPS), the last of them step 8 "
        f"with images 100, 101, 102, 200, 201, 202; its batches, losses and the network are in {path}")
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == 8 and saved["losses"]["scale0"] == 1.0 and "w" in saved["state_dict"]
    assert torch.equal(saved["batches"][1]["images"], batches[1].images)
    assert torch.equal(saved["batches"][1]["joints"][0], batches[1].joints[0])
