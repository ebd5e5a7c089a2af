"""The benchmarks of the network see a wrong network, and one that fails loses no other row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import engines, network, training_steps
from benchmarks.harness import Bench, Row, close
from swahr.acceleration import fuse
from swahr.config import load_config
from swahr.models.weights import published_state

SMALL = ["DATASET.INPUT_SIZE", 128, "AMP.ENABLED", False, "TEST.FLIP_TEST", True]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", [1], seconds=0, calls=1, folder=tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network in place of W32, for small images."""
    monkeypatch.setattr(network, "W32", network.TINY)
    monkeypatch.setattr(network, "SIZE", 64)
    monkeypatch.setattr(network, "IMAGE", (64, 96, 3))
    make = network.crowd_predictor
    monkeypatch.setattr(
        network, "crowd_predictor", lambda bench, opts: make(bench, [*SMALL, *opts])
    )


def zeros(model: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A network that is as wrong as can be."""
    return lambda images: [stage.map(torch.zeros_like) for stage in model(images)]


def failing(*_: object, **__: object) -> Any:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("wrong", [False, True])
def test_a_network_of_zeros_is_not_the_same(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, small: None, wrong: bool
) -> None:
    if wrong:
        monkeypatch.setattr(fuse, "optimize_for_inference", zeros)
    [row] = network.network(bench)
    assert row.same is not wrong


@pytest.mark.parametrize("wrong", [False, True])
def test_a_network_of_zeros_does_not_pass_for_the_crowd(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, small: None, wrong: bool
) -> None:
    """The people come from the crowd's maps, whatever the network's are."""
    make = network.crowd_predictor

    def predictor(bench: Bench, opts: list[Any]) -> Any:
        made = make(bench, opts)
        if wrong and "TEST.FUSE" not in opts:
            made.model.model = zeros(made.model.model)
        return made

    monkeypatch.setattr(network, "crowd_predictor", predictor)
    [row] = network.latency(bench)
    assert row.same is not wrong


def test_a_convolution_of_zeros_is_seen_in_the_network_that_is_compared() -> None:
    """In one as it is before training, most can be zero and the maps stay the same."""
    model = network.random_network(load_config(network.TINY))
    image = torch.randn(1, 3, 64, 64)
    layers = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and "conv_scale_layers" not in name
    ]
    with torch.inference_mode():
        want = model(image)[-1].heatmaps
        for layer in layers[::5]:
            weight = layer.weight.clone()
            layer.weight.zero_()
            assert not close(model(image)[-1].heatmaps, want, network.TF32_TOLERANCE)
            layer.weight.copy_(weight)


def test_engines_compare_that_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bench: Bench
) -> None:
    monkeypatch.setattr(engines, "CONFIG", network.TINY)
    monkeypatch.setattr(engines, "EXPORT", ("not_there",))
    engines.write_files(bench, tmp_path / "w.pth", tmp_path / "w.onnx")
    written = torch.load(tmp_path / "w.pth", weights_only=True)
    random = published_state(network.random_network(load_config(network.TINY)))
    assert all(torch.equal(written[name], value) for name, value in random.items())


def test_an_engine_that_does_not_start_loses_no_other(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    class Process:
        def __init__(self, name: str, variant: engines.Variant, *files: Path) -> None:
            if name == "ours":
                failing()
            self.variant = variant
            self.value = 0.0 if name == "zeros" else 1e-9

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def load_maps(self) -> torch.Tensor:
            return torch.full((2,), self.value)

        def seconds(self) -> float:
            return 1.0

    variants = {name: engines.Variant(()) for name in ("plain", "ours", "zeros", "last")}
    monkeypatch.setattr(engines, "VARIANTS", variants)
    monkeypatch.setattr(engines, "Process", Process)
    monkeypatch.setattr(engines, "write_files", lambda *_: None)
    rows = list(engines.engines(bench))
    assert [row.case.split(",")[0] for row in rows] == ["plain", "zeros", "last"]
    assert [row.same for row in rows] == [True, False, True]
    assert bench.problems == {"engines, ours": "RuntimeError: out of memory"}


def test_a_setting_that_fails_loses_no_other_row_of_latency(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, small: None
) -> None:
    make = network.crowd_predictor

    def predictor(bench: Bench, opts: list[Any]) -> Any:
        return failing() if "TEST.CUDNN_FUSE" in opts else make(bench, opts)

    monkeypatch.setattr(network, "crowd_predictor", predictor)
    rows = list(network.latencies(bench, [["TEST.CUDNN_FUSE"], []]))
    assert [row.case for row in rows] == ["W32, 96 x 64, flip, 3 people"]
    assert list(bench.problems) == ["latency, TEST.CUDNN_FUSE"]


def test_a_float32_training_that_fails_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    tried: list[bool] = []

    def train(bench: Bench, file: Path, opts: list[Any], steps: int) -> tuple[float, Any]:
        tried.append("AMP.ENABLED" in opts)
        return failing() if tried[-1] else (0.5, torch.ones(steps))

    monkeypatch.setattr(network, "train", train)
    monkeypatch.setattr(network, "make_images", lambda *_: Path())
    rows = [row for name in ("a", "b") for row in network.trainings(bench, {name: []})]
    assert tried == [True, False, False]
    assert [(row.case, row.plain_ms, row.same) for row in rows] == [
        ("tiny, 192 px, batch 20, a", None, None),
        ("tiny, 192 px, batch 20, b", None, None),
    ]
    assert list(bench.problems) == ["training, float32"]


def test_precisions_are_measured_where_float32_fails(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    def train(bench: Bench, file: Path, opts: list[Any], steps: int) -> tuple[float, Any]:
        return failing() if opts[-2:] == training_steps.FLOAT32 else (0.5, torch.ones(steps))

    monkeypatch.setattr(network, "train", train)
    monkeypatch.setattr(network, "make_images", lambda *_: Path())
    rows = list(training_steps.mixed_precision_losses(bench))
    assert [(row.case, row.same) for row in rows] == [
        ("tiny, 3 steps, bf16, channels_last: loss 1.00000", None),
        ("tiny, 3 steps, fp16, channels_last: loss 1.00000", None),
    ]
    assert list(bench.problems) == ["mixed precision losses, float32"]


@pytest.fixture
def two_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """W32 and W48, whose steps are stubs; W32 in fp16 fails."""
    networks = [training_steps.Network(name, Path(), 2, []) for name in ("W32", "W48")]

    def build(bench: Bench, network: Any, opts: list[Any]) -> tuple[Any, Any, int]:
        if network.name == "W32" and opts == training_steps.FP16:
            failing()
        step = lambda *_: None  # noqa: E731
        return step, None, 1

    monkeypatch.setattr(training_steps, "networks", lambda bench: networks)
    monkeypatch.setattr(training_steps, "build", build)


def cases(rows: list[Row]) -> list[str]:
    return [row.case.replace(", batch 2", "") for row in rows]


def test_a_setting_that_fails_loses_no_other_row_of_steps(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, two_networks: None
) -> None:
    monkeypatch.setattr(training_steps, "published_step", lambda *_: lambda: None)
    variants = {"fp16": training_steps.FP16, "bf16": training_steps.BF16}
    rows = list(training_steps.rows_of(bench, variants))
    published = ["W32: the published way", "W48: the published way"]
    assert cases(rows) == [*published, "W48, fp16", "W32, bf16", "W48, bf16"]
    assert all(row.plain_ms is not None for row in rows[2:])
    assert bench.problems == {"training steps, W32, fp16": "RuntimeError: out of memory"}


def test_a_published_step_that_fails_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, two_networks: None
) -> None:
    tried: list[str] = []

    def published(bench: Bench, network: Any) -> Any:
        tried.append(network.name)
        return failing() if network.name == "W48" else lambda: None

    monkeypatch.setattr(training_steps, "published_step", published)
    first = list(training_steps.rows_of(bench, {"bf16": training_steps.BF16}))
    second = list(training_steps.rows_of(bench, {"compiled": training_steps.BF16}))
    assert tried == ["W32", "W48"]
    assert cases(first) == ["W32: the published way", "W32, bf16", "W48, bf16"]
    assert cases(second) == ["W32, compiled", "W48, compiled"]
    assert [row.plain_ms is None for row in second] == [False, True]
    assert list(bench.problems) == ["training steps, W48, the published way"]


def test_no_limit_is_computed_where_the_card_was_not_measured(bench: Bench) -> None:
    step = SimpleNamespace(parameters=[torch.ones(3)])
    bench.cache["flops of bfloat16"] = 1e12
    training_steps.note_roofline(bench, training_steps.networks(bench)[0], step, 1)
    assert not bench.estimates
