"""Skipped steps are counted; too many consecutive ones end the run, with all that is needed to
repeat the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from swahr.data.loaders import Batch
from swahr.distributed import comm
from swahr.distributed.launch import launch
from swahr.engine.step_monitor import SAVE, NonFiniteLossError, StepMonitor
from tests.engine.distributed_workers import CPU, SmallNet, bad_steps, make_batches, make_train_step

BAD = torch.tensor(True)
GOOD = torch.tensor(False)
LOSSES = {"heatmap0": torch.tensor(float("nan")), "scale0": torch.tensor(1.0)}


def test_counts(tmp_path: Path) -> None:
    monitor = StepMonitor(CPU, 3, tmp_path, bad_steps=10)
    seen = []
    for step, bad in enumerate([GOOD, BAD, BAD, GOOD, BAD]):
        monitor.check(step, bad, 0, make_batches(1, 2), LOSSES)
        seen.append((monitor.bad_steps, monitor.consecutive))
    assert seen == [(10, 0), (11, 1), (12, 2), (12, 0), (13, 1)]
    assert not list(tmp_path.iterdir())


def test_a_signal_is_passed_on(tmp_path: Path) -> None:
    monitor = StepMonitor(CPU, 3, tmp_path)
    monitor.check(0, GOOD, 0, [], {})
    assert monitor.stop_signal == 0
    monitor.check(1, GOOD, 15, [], {})
    assert monitor.stop_signal == 15


def test_too_many_consecutive_steps(tmp_path: Path) -> None:
    monitor = StepMonitor(CPU, 2, tmp_path, replay=lambda: {"state_dict": {"w": torch.ones(1)}})
    batches = make_batches(2, 3)
    monitor.check(7, BAD, 0, batches, LOSSES)
    path = tmp_path / "bad_step_rank0.pth.tar"
    with pytest.raises(NonFiniteLossError) as caught:
        monitor.check(8, BAD, 0, batches, LOSSES)
    assert str(caught.value) == (
        "the loss or its gradient was non-finite in 2 consecutive steps (TRAIN.MAX_BAD_STEPS); the "
        "last is step 8 with images 100, 101, 102, 200, 201, 202; its batches, losses and the "
        f"network are in {path}"
    )
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == 8 and saved["losses"]["scale0"] == 1.0 and "w" in saved["state_dict"]
    assert torch.equal(saved["batches"][1]["images"], batches[1].images)
    assert torch.equal(saved["batches"][1]["joints"][0], batches[1].joints[0])


@pytest.fixture
def exchanged(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """What two processes exchange; the other one got no signal."""
    seen: list[list[float]] = []

    def reduce_max(values: torch.Tensor) -> torch.Tensor:
        seen.append(values.tolist())
        return values

    monkeypatch.setattr(comm, "has_group", lambda: True)
    monkeypatch.setattr(comm, "reduce_max", reduce_max)
    return seen


def test_processes_exchange_signals_now_and_then(
    tmp_path: Path, exchanged: list[list[float]]
) -> None:
    monitor = StepMonitor(CPU, 5, tmp_path, signal_steps=4)
    known = []
    for step in range(5):
        monitor.check(step, BAD if step == 1 else GOOD, 15 if step > 1 else 0, [], {})
        known.append((monitor.bad_steps, monitor.stop_signal))
    assert exchanged == [[0, 15]]
    assert known == [(0, 0), (1, 0), (1, 0), (1, 15), (1, 15)]


def test_processes_exchange_signals_at_the_end_of_an_epoch(
    tmp_path: Path, exchanged: list[list[float]]
) -> None:
    monitor = StepMonitor(CPU, 5, tmp_path, signal_steps=10)
    monitor.check(0, GOOD, 15, [], {})
    assert not exchanged and monitor.stop_signal == 0
    monitor.check(1, GOOD, 15, [], {}, last=True)
    assert monitor.stop_signal == 15


def test_signals_are_exchanged_in_every_step_on_a_cpu_and_every_tenth_on_a_gpu(
    tmp_path: Path,
) -> None:
    devices = [CPU, torch.device("cuda")]
    assert [StepMonitor(device, 5, tmp_path).signal_steps for device in devices] == [1, 10]


class FakeEvent:
    """A CUDA event that has always passed."""

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


@pytest.fixture
def gpu_monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StepMonitor]:
    """gpu_monitor(limit, **options) -> a monitor that reads answers as on a GPU."""
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    return lambda limit, **options: StepMonitor(torch.device("cuda"), limit, tmp_path, **options)


def test_on_a_gpu_the_network_is_saved_before_the_next_step(
    gpu_monitor: Callable[..., StepMonitor], tmp_path: Path
) -> None:
    weights = torch.zeros(1)  # each step adds 1
    monitor = gpu_monitor(2, replay=lambda: {"state_dict": {"w": weights.clone()}})
    with pytest.raises(NonFiniteLossError, match="the last is step 2"):
        for step, bad in enumerate([GOOD, BAD, BAD, GOOD, GOOD]):
            weights += 1
            monitor.check(step, bad, 0, make_batches(1, 2), LOSSES)
    saved = torch.load(tmp_path / "bad_step_rank0.pth.tar", weights_only=True)
    assert saved["state_dict"]["w"] == 3


def test_on_a_gpu_the_last_step_is_counted_by_flush(
    gpu_monitor: Callable[..., StepMonitor],
) -> None:
    monitor = gpu_monitor(3)
    monitor.check(0, GOOD, 0, [], {})
    monitor.check(1, BAD, 15, [], {})
    assert (monitor.bad_steps, monitor.stop_signal) == (0, 0)  # the processor did not wait for it
    for _ in range(2):
        monitor.flush()
        assert (monitor.bad_steps, monitor.consecutive, monitor.stop_signal) == (1, 1, 15)


def test_all_processes_leave_out_a_step_that_is_bad_on_one(tmp_path: Path) -> None:
    """Weights and statistics are those of the good steps alone; in the end only the batch of
    the bad rank is named and kept, and the step can be repeated.
    """
    everyone = launch(bad_steps, (tmp_path,), 2)
    assert everyone is not None
    for found in everyone:
        assert found["counts"] == [(0, 0), (1, 1), (1, 0), (2, 1)]
        assert found["disturbed"] == found["plain"]
        assert (
            "in 2 consecutive steps" in found["said"]
            and "step 4 with images 400, 401, 402, 403;" in found["said"]
        )
    [path] = tmp_path.iterdir()
    assert path.name == "bad_step_rank1.pth.tar" and everyone[0]["said"].endswith(f" are in {path}")
    saved = torch.load(path, weights_only=True)
    network = SmallNet()
    network.load_state_dict(saved["state_dict"])
    again = make_train_step(network)([Batch(**batch) for batch in saved["batches"]], 0.1)
    assert (
        again.bad
        and torch.isnan(again.losses["near"])
        and torch.isnan(torch.tensor(saved["losses"]["near"]))
    )


def test_a_request_for_a_checkpoint_is_passed_on(
    tmp_path: Path, exchanged: list[list[float]]
) -> None:
    """With the next exchange, and to the end of an epoch; it is no signal."""
    monitor = StepMonitor(CPU, 3, tmp_path, signal_steps=2)
    known = []
    for step in range(3):
        monitor.check(step, GOOD, SAVE if step < 2 else 0, [], {})
        known.append((monitor.save_requested, monitor.stop_signal))
    assert exchanged == [[0, SAVE]]
    assert known == [(False, 0), (True, 0), (True, 0)]


def test_on_a_gpu_a_request_for_a_checkpoint_is_known_one_step_later(
    gpu_monitor: Callable[..., StepMonitor],
) -> None:
    monitor = gpu_monitor(3)
    monitor.check(0, GOOD, SAVE, [], {})
    assert not monitor.save_requested
    monitor.check(1, GOOD, 0, [], {})
    assert monitor.save_requested
