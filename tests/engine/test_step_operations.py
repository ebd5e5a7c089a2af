"""A step on a GPU never waits for it, and does little besides the network; no GPU is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.step_operations import build_step, count_step, make_batch
from swahr.codec.targets import TargetEncoder
from swahr.config import load_config
from swahr.engine.schedule import make_sgd
from swahr.engine.train_step import LossScaler
from tests.engine.distributed_workers import CPU

# What a GPU has to answer before the processor can go on.
WAITS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique")


class Refusal(TorchDispatchMode):
    """Raises an error for every operation that waits for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITS, f"{name} waits for the device"
        indexed = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        assert not indexed, "an index of truth values is counted"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors cannot be brought to the host."""
    for name in ("cpu", "numpy", "tolist"):
        monkeypatch.setattr(Tensor, name, lambda *_: pytest.fail("a copy to the host"))


def tiny(config_file: Path, *opts: str) -> Any:
    return load_config(config_file, opts)


@pytest.mark.parametrize("accumulation", ["1", "4"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_waits_for_nothing(
    config_file: Path, no_copies: None, optimizer: str, dtype: str, accumulation: str
) -> None:
    amp = ("AMP.ENABLED", "True", "AMP.DTYPE", dtype, "TRAIN.ACCUMULATION_STEPS", accumulation)
    cfg = tiny(config_file, *amp)
    step = build_step(cfg)
    if optimizer == "sgd":
        step.optimizer = make_sgd(step.parameters, fused=True, lr=0.1, momentum=0.9)
    batch = make_batch(cfg.DATASET.INPUT_SIZE, cfg.DATASET.OUTPUT_SIZE)
    batches = [batch] * cfg.TRAIN.ACCUMULATION_STEPS
    with Refusal():
        for sample_size in (0, 2) if len(batches) == 1 else (2,):
            result = step(batches, 0.1, sample_size=sample_size)
    assert result.sample is not None and len(result.losses) == 6


def test_reading_a_value_is_refused() -> None:
    """The test above sees what it is there for."""
    with pytest.raises(AssertionError, match="_local_scalar_dense"), Refusal():
        torch.ones(1).item()
    with pytest.raises(AssertionError, match="nonzero"), Refusal():
        TargetEncoder(
            sizes=(16,), sigma=2, scale_aware=False, tag_per_joint=True, drop_absent=True
        )([torch.zeros(1, 1, 3, 3)], [torch.zeros(1, 16, 16)])
    with pytest.raises(AssertionError, match="truth values"), Refusal():
        torch.ones(2)[torch.ones(2, dtype=torch.bool)]


def test_operations_outside_the_network(config_file: Path) -> None:
    """Fewer than half of the 1,038 that a step had before it was counted; no gradient is scanned
    again for infinities or multiplied by one, and no statistic is looked at by itself.
    """
    counter = count_step(tiny(config_file))
    operations, _ = counter.outside_network()
    assert operations < 1038 / 2
    update = counter.names["update"]
    assert not any("non_finite_check" in name or "foreach_mul" in name for name in update)
    assert "aten.view.default" not in update


@pytest.mark.parametrize("drop_absent", [True, False])
def test_absent_joints_may_be_drawn_as_nothing(drop_absent: bool) -> None:
    joints = torch.rand(2, 5, 3, 3, generator=torch.Generator().manual_seed(0)) * 20 - 2
    joints[..., 2] = (joints[..., 2] > 5).float()
    encoder = TargetEncoder(
        sizes=(16,), sigma=2, scale_aware=False, tag_per_joint=True, drop_absent=drop_absent
    )
    [got] = encoder([joints], [torch.ones(2, 16, 16)])
    [want] = TargetEncoder(sizes=(16,), sigma=2, scale_aware=False, tag_per_joint=True)(
        [joints], [torch.ones(2, 16, 16)]
    )
    assert torch.equal(got.heatmaps, want.heatmaps)


@pytest.mark.parametrize("nesterov", [True, False])
def test_fused_sgd_starts_right_after_a_skipped_step(nesterov: bool) -> None:
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": nesterov}

    def weights(fused: bool, bad_first: bool) -> Tensor:
        weight = torch.nn.Parameter(torch.ones(5))
        optimizer = make_sgd([weight], fused=fused, **options)
        scaler = LossScaler(CPU)
        scaler.scale(torch.ones(1))
        for bad in [True, False, False] if bad_first else [False, False]:
            weight.grad = torch.arange(5.0) + (float("nan") if bad else 0.0)
            scaler.step(optimizer, torch.tensor(bad) if fused else None)
        return weight.detach()

    torch.testing.assert_close(weights(True, bad_first=True), weights(False, bad_first=False))
    torch.testing.assert_close(weights(True, bad_first=False), weights(False, bad_first=False))
