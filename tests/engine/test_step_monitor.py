"""Steps that were left out are counted; too many in a row end the run, with everything at hand to
look into it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swahr.data.loaders import Batch
from swahr.distributed.launch import launch
from swahr.engine.step_monitor import NonFiniteLossError, StepMonitor
from tests.engine.distributed_workers import CPU, SmallNet, bad_steps, make_batches, make_stepper

BAD = torch.tensor(True)
GOOD = torch.tensor(False)
LOSSES = {"heatmap0": torch.tensor(float("nan")), "scale0": torch.tensor(1.0)}


def test_counts(tmp_path: Path) -> None:
    guard = StepMonitor(CPU, 3, tmp_path, bad_steps=10)
    seen = []
    for step, bad in enumerate([GOOD, BAD, BAD, GOOD, BAD]):
        guard.check(step, bad, 0, make_batches(1, 2), LOSSES)
        seen.append((guard.bad_steps, guard.consecutive))
    assert seen == [(10, 0), (11, 1), (12, 2), (12, 0), (13, 1)]
    assert not list(tmp_path.iterdir())


def test_a_signal_is_passed_on(tmp_path: Path) -> None:
    guard = StepMonitor(CPU, 3, tmp_path)
    guard.check(0, GOOD, 0, [], {})
    assert guard.stop_signal == 0
    guard.check(1, GOOD, 15, [], {})
    assert guard.stop_signal == 15


def test_too_many_in_a_row(tmp_path: Path) -> None:
    guard = StepMonitor(CPU, 2, tmp_path, replay=lambda: {"state_dict": {"w": torch.ones(1)}})
    batches = make_batches(2, 3)
    guard.check(7, BAD, 0, batches, LOSSES)
    path = tmp_path / "bad_step_rank0.pth.tar"
    with pytest.raises(NonFiniteLossError) as caught:
        guard.check(8, BAD, 0, batches, LOSSES)
    assert str(caught.value) == (
        "the loss or its gradient was not finite for 2 steps in a row (TRAIN.MAX_BAD_STEPS), the last of them step 8 "
        f"with images 100, 101, 102, 200, 201, 202; its batches, losses and the network are in {path}"
    )
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == 8 and saved["losses"]["scale0"] == 1.0 and "w" in saved["state_dict"]
    assert torch.equal(saved["batches"][1]["images"], batches[1].images)
    assert torch.equal(saved["batches"][1]["joints"][0], batches[1].joints[0])


def test_all_processes_leave_out_a_step_that_is_bad_on_one(tmp_path: Path) -> None:
    """Weights and statistics are those of the good steps alone; in the end only the culprit's batch
    is named and kept, and the step can be done once more.
    """
    everyone = launch(bad_steps, (tmp_path,), 2)
    assert everyone is not None
    for found in everyone:
        assert found["counts"] == [(0, 0), (1, 1), (1, 0), (2, 1)]
        assert found["disturbed"] == found["plain"]
        assert (
            "for 2 steps in a row" in found["said"]
            and "step 4 with images 400, 401, 402, 403;" in found["said"]
        )
    [path] = tmp_path.iterdir()
    assert path.name == "bad_step_rank1.pth.tar" and everyone[0]["said"].endswith(f" are in {path}")
    saved = torch.load(path, weights_only=True)
    network = SmallNet()
    network.load_state_dict(saved["state_dict"])
    again = make_stepper(network)([Batch(**batch) for batch in saved["batches"]], 0.1)
    assert (
        again.bad
        and torch.isnan(again.losses["near"])
        and torch.isnan(torch.tensor(saved["losses"]["near"]))
    )
