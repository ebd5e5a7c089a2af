"""The compiled step: one graph, compiled once, with the results of the plain one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from benchmarks.step_operations import make_batch
from swahr.config import load_config
from swahr.config.errors import ConfigError
from swahr.engine import setup
from swahr.engine.loss_network import pad_people
from swahr.engine.train_step import TrainStep
from swahr.losses.criterion import build_criterion
from swahr.models.build import build_model
from swahr.models.network import Backbone, Head, PoseNetwork, StageOutput
from tests.engine.distributed_workers import CPU

Build = Callable[..., TrainStep]


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts what is compiled, by a backend that needs no compiler; a graph break is an error."""
    counter = CompileCounterWithBackend("eager")
    plain = torch.compile

    def compiled(module: nn.Module, mode: str) -> Any:
        return plain(module, backend=counter, fullgraph=True)

    monkeypatch.setattr(torch, "compile", compiled)
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


class ToyBackbone(Backbone):
    """One convolution and a batch norm."""

    channels = 4
    stride = 4
    size_divisor = 4

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 7, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class ToyHead(Head):
    """Scale maps, heatmaps and tags at both resolutions, of one convolution each."""

    upsampling = (1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(4, 3 * 17, 1) for _ in self.upsampling)

    def forward(self, features: Tensor) -> list[StageOutput]:
        finer = nn.functional.interpolate(features, scale_factor=2)
        maps = [layer(x) for layer, x in zip(self.maps, (features, finer), strict=True)]
        return [StageOutput(*stage.chunk(3, 1)) for stage in maps]


@pytest.fixture
def build(config_file: Path) -> Build:
    """build(KEY, value, ...) -> the step of those settings, always with the same weights."""

    def make(*opts: str) -> TrainStep:
        cfg = load_config(config_file, opts)
        torch.manual_seed(0)
        model = PoseNetwork(ToyBackbone(), ToyHead())
        return setup.build_train_step(cfg, model, build_criterion(cfg), CPU)

    return make


def batch_of(people: int) -> Any:
    batch = make_batch(64, [16, 32], people)
    random = torch.Generator().manual_seed(people)
    images = torch.randint(0, 256, batch.images.shape, dtype=torch.uint8, generator=random)
    joints = [torch.rand(j.shape, generator=random) * 16 for j in batch.joints]
    return batch._replace(images=images, joints=joints, masks=[m + 1 for m in batch.masks])


def test_one_graph_for_every_number_of_people(
    counter: CompileCounterWithBackend, build: Build
) -> None:
    """Up to 32 people it is one shape; results are those of a plain step."""
    compiled = build("TRAIN.COMPILE", "default")
    plain = build()
    for people in (3, 30):
        ours = compiled([batch_of(people)], 0.001, sample_size=1)
        theirs = plain([batch_of(people)], 0.001, sample_size=1)
        torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-3, atol=1e-6)
        for one, other in zip(compiled.parameters, plain.parameters, strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)
    assert counter.frame_count == 1
    assert ours.sample is not None and theirs.sample is not None
    assert torch.equal(ours.sample.targets[0].heatmaps, theirs.sample.targets[0].heatmaps)


def test_accumulated_batches_in_mixed_precision_are_one_graph(
    counter: CompileCounterWithBackend, build: Build
) -> None:
    mixed = ("AMP.ENABLED", "True", "AMP.DTYPE", "bf16", "TRAIN.CHANNELS_LAST", "True")
    step = build("TRAIN.COMPILE", "default", "TRAIN.ACCUMULATION_STEPS", "2", *mixed)
    plain = build(*mixed)
    for _ in range(2):
        ours = step([batch_of(3), batch_of(4)], 0.001)
        theirs = plain([batch_of(3), batch_of(4)], 0.001)
        torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-2, atol=1e-4)
    assert counter.frame_count == 1


@pytest.mark.parametrize("people, padded", [(1, 32), (32, 32), (33, 64), (64, 64), (65, 128)])
def test_people_are_padded_with_nobody(people: int, padded: int) -> None:
    joints = torch.ones(2, people, 3, 4)
    result = pad_people(joints)
    assert result.shape == (2, padded, 3, 4)
    assert torch.equal(result[:, :people], joints) and not result[:, people:].any()


@pytest.mark.parametrize(
    "given, meant",
    [
        ("True", "default"),
        ("false", ""),
        ("max-autotune", "max-autotune"),
        ("reduce-overhead", "reduce-overhead"),
    ],
)
def test_modes(config_file: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda module, mode: modes.append(mode) or module)
    cfg = load_config(config_file, ["TRAIN.COMPILE", given])
    setup.build_train_step(cfg, build_model(cfg), build_criterion(cfg), CPU)
    assert meant == cfg.TRAIN.COMPILE and modes == [meant] * bool(meant)


@pytest.mark.parametrize(
    "given, used", [("reduce-overhead", "default"), ("max-autotune", "max-autotune-no-cudagraphs")]
)
def test_accumulated_batches_have_no_cuda_graphs(
    config_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: str,
    used: str,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, mode: mode)
    cfg = load_config(config_file, ["TRAIN.COMPILE", given, "TRAIN.ACCUMULATION_STEPS", "2"])
    with caplog.at_level(logging.INFO, "swahr"):
        assert setup.compiled(nn.Identity(), cfg, torch.device("cpu")) == used
    assert f"TRAIN.COMPILE {given}: no CUDA graphs, as batches are accumulated" in caplog.text


def test_an_unknown_mode_is_named(config_file: Path) -> None:
    with pytest.raises(
        ConfigError, match="TRAIN.COMPILE.*one of '', default, reduce-overhead, max"
    ):
        load_config(config_file, ["TRAIN.COMPILE", "fast"])


def test_a_compiled_module_is_inside_the_one_that_exchanges_gradients(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So DistributedDataParallel lets torch.compile cut the graph at its buckets."""
    order: list[str] = []

    def note(name: str) -> Callable[..., Any]:
        return lambda module, **options: order.append(name) or module

    monkeypatch.setattr(torch, "compile", note("compile"))
    monkeypatch.setattr(setup, "DistributedDataParallel", note("parallel"))
    monkeypatch.setattr(setup.comm, "has_group", lambda: True)
    cfg = load_config(config_file, ["TRAIN.COMPILE", "default"])
    setup.build_train_step(cfg, build_model(cfg), build_criterion(cfg), CPU)
    assert order == ["compile", "parallel"]
