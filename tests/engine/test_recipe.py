"""What a run built from a configuration does in each step, against the recipe's numbers.

Runs elsewhere are compared with each other; these are compared with what the settings say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from swahr.config import load_config
from swahr.distributed import comm
from swahr.engine import setup
from swahr.engine.train import train

FOLDER = "output/coco_kpt/pose_higher_hrnet/tiny"


class Recorder:
    """What happened in a run, in order.

    rates: learning rate of each step of the optimiser. passes: for each pass of the network in
    training, whether images and weights are channels_last, and the dtype that the first convolution
    gives. images: of all passes. events: "epoch N", "broadcast" and "validate".
    """

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.passes: list[tuple[bool, bool, torch.dtype]] = []
        self.images = 0
        self.events: list[str] = []

    def watch(self, model: nn.Module) -> nn.Module:
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_hook(self._note_pass)
        return model

    def _note_pass(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if module.training:
            layout = {"memory_format": torch.channels_last}
            self.images += len(inputs[0])
            weight = module.get_parameter("weight")
            formats = (inputs[0].is_contiguous(**layout), weight.is_contiguous(**layout))
            self.passes.append((*formats, output.dtype))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    build = setup.build_model
    monkeypatch.setattr(setup, "build_model", lambda cfg: recorder.watch(build(cfg)))
    monkeypatch.setattr(
        comm, "broadcast_buffers", lambda model: recorder.events.append("broadcast")
    )
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *args: recorder.rates.append(optimizer.param_groups[0]["lr"])
    )
    yield recorder
    handle.remove()


@pytest.fixture
def run(config_file: Path, recorder: Recorder) -> Callable[..., Recorder]:
    """run(KEY, value, ...) -> what happened."""

    def validate(cfg: Any, model: nn.Module, **options: Any) -> dict[str, float]:
        recorder.events.append("validate")
        return {"AP": 0.25, "AR": 0.75}

    def call(*opts: Any) -> Recorder:
        train(load_config(config_file, list(opts)), config_file, validate)
        return recorder

    return call


def linear(steps_per_epoch: int, batches: int, *, rate: float = 0.001) -> list[float]:
    """Two epochs, one of them warm-up: 0.1 -> 1, then 1 -> 0."""
    rise = [0.1 + 0.9 * step / steps_per_epoch for step in range(steps_per_epoch)]
    fall = [1 - step / steps_per_epoch for step in range(steps_per_epoch)]
    return [rate * batches * factor for factor in rise + fall]


def test_the_learning_rate_of_each_step(run: Callable[..., Recorder]) -> None:
    assert run().rates == pytest.approx(linear(steps_per_epoch=4, batches=1), rel=1e-12)


def test_the_learning_rate_is_multiplied_by_world_size_and_accumulation(
    run: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comm, "world_size", lambda: 2)
    recorder = run("TRAIN.ACCUMULATION_STEPS", 2)
    assert recorder.rates == pytest.approx(linear(steps_per_epoch=1, batches=4), rel=1e-12)
    assert recorder.images == 2 * 4  # this process's half of two epochs of eight images


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("AMP.ENABLED", False, (False, False, torch.float32)),
        ("AMP.ENABLED", True, (False, False, torch.bfloat16)),
        ("TRAIN.CHANNELS_LAST", True, (True, True, torch.float32)),
    ],
)
def test_dtype_and_layout_of_each_step(
    run: Callable[..., Recorder], key: str, value: Any, expected: tuple[Any, ...]
) -> None:
    assert run(key, value, "TRAIN.END_EPOCH", 1).passes == 4 * [expected]


def test_the_network_is_compiled_if_asked_for(
    run: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    class Compiled(nn.Module):
        def __init__(self, module: nn.Module, mode: str) -> None:
            super().__init__()
            self.module = module
            assert mode == "default"

        def forward(self, *batch: Any) -> Any:
            compiled.append(self.module)
            return self.module(*batch)

    monkeypatch.setattr(torch, "compile", Compiled)
    run("TRAIN.END_EPOCH", 1)
    assert not compiled
    run("TRAIN.END_EPOCH", 1, "TRAIN.COMPILE", True, "AUTO_RESUME", False)
    assert len(compiled) == 4


@pytest.mark.parametrize(
    ("sync", "kind", "group", "expected"),
    [
        (True, "cuda", True, nn.SyncBatchNorm),
        (True, "cuda", False, nn.BatchNorm2d),
        (False, "cuda", True, nn.BatchNorm2d),
        (True, "cpu", True, nn.BatchNorm2d),
    ],
)
def test_batch_norms_are_synchronised_between_gpus_if_asked_for(
    config_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    sync: bool,
    kind: str,
    group: bool,
    expected: type,
) -> None:
    monkeypatch.setattr(comm, "has_group", lambda: group)
    monkeypatch.setattr(nn.Module, "to", lambda self, *args, **options: self)  # no GPU here
    cfg = load_config(config_file, ["MODEL.SYNC_BN", sync])
    model = setup.build_network(cfg, torch.device(kind))
    norms = {type(m) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert norms == {expected}


@pytest.mark.parametrize(
    ("interval", "validated"), [(0, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5])]
)
def test_when_validation_takes_place(
    run: Callable[..., Recorder],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    interval: int,
    validated: list[int],
) -> None:
    """Every VAL_INTERVAL epochs and after the last, with the same running statistics everywhere."""
    original = setup.Trainer.train_one_epoch

    def train_one_epoch(self: setup.Trainer) -> None:
        original(self)
        recorder.events.append(f"epoch {self.progress.epoch}")

    monkeypatch.setattr(setup.Trainer, "train_one_epoch", train_one_epoch)
    run("TRAIN.VAL_INTERVAL", interval, "TRAIN.END_EPOCH", 5, "TRAIN.IMAGES_PER_GPU", 8)
    expected = []
    for epoch in range(1, 6):
        expected.append(f"epoch {epoch}")
        expected += ["broadcast", "validate"] if epoch in validated else []
    assert recorder.events == expected


def test_the_average_is_broadcast_too(run: Callable[..., Recorder]) -> None:
    recorder = run("TRAIN.EMA", 0.9)
    assert recorder.events == ["broadcast", "broadcast", "validate"]


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each tag of TensorBoard's only log in a folder."""
    [file] = folder.rglob("events*")
    data = file.read_bytes()
    curves: dict[str, list[tuple[int, float]]] = {}
    while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            if value.HasField("simple_value"):
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
        data = data[16 + length :]
    return curves


def test_the_curves_that_tensorboard_gets(run: Callable[..., Recorder], tmp_path: Path) -> None:
    run("TRAIN.VAL_INTERVAL", 1, "PRINT_FREQ", 3)
    curves = read_curves(tmp_path / "log")
    assert curves["validation/AP"] == [(4, 0.25), (8, 0.25)]
    assert curves["validation/AR"] == [(4, 0.75), (8, 0.75)]
    steps = [3, 4, 7, 8]  # every third step of an epoch, and the last
    rates = linear(steps_per_epoch=4, batches=1)
    assert curves["train/learning_rate"] == [
        (step, pytest.approx(rates[step - 1], rel=1e-6)) for step in steps
    ]
    losses = ("total", "heatmap0", "scale0", "push0", "pull0", "heatmap1", "scale1")
    others = ("images_per_second", "skipped_steps", "gradient_norm", "data_wait")
    for name in (*losses, *others):
        assert [step for step, _ in curves[f"train/{name}"]] == steps, name
