"""TRAIN.CPU_KERNELS: who gets them, and the line for those who do not."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn

from swahr.acceleration import conv_training
from swahr.config import load_config
from swahr.engine.setup import build_network, build_train_step, use_cpu_kernels
from swahr.losses.criterion import build_criterion
from tests.acceleration.test_winograd import needs_threads

CPU = torch.device("cpu")
ON = ("TRAIN.CPU_KERNELS", True, "TRAIN.CHANNELS_LAST", True)
WIDE = ("MODEL.EXTRA.STAGE2.NUM_CHANNELS", "[32, 64]", "DATASET.INPUT_SIZE", 128)


@needs_threads
@pytest.mark.parametrize(
    "opts, device, reason",
    (
        ((), "cpu", ""),
        ((), "cuda", "the device is cuda"),
        (("AMP.ENABLED", True, "AMP.DTYPE", "bf16"), "cpu", "AMP.ENABLED: they compute in float32"),
        (("TRAIN.CHANNELS_LAST", False), "cpu", "they need TRAIN.CHANNELS_LAST True"),
        (("TRAIN.COMPILE", "default"), "cpu", "TRAIN.COMPILE default has its own"),
    ),
)
def test_who_gets_them(
    config_file: Path,
    caplog: pytest.LogCaptureFixture,
    opts: tuple[object, ...],
    device: str,
    reason: str,
) -> None:
    model = nn.Conv2d(32, 32, 3, padding=1)
    with caplog.at_level("INFO", "swahr"):
        use_cpu_kernels(model, load_config(config_file, [*ON, *opts]), torch.device(device))
    lines = [line for line in caplog.messages if "CPU_KERNELS" in line]
    assert lines == [f"TRAIN.CPU_KERNELS are not used: {reason}"] * bool(reason)
    assert ("forward" in vars(model)) == (not reason)


def test_a_machine_without_them(config_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Conv2d(32, 32, 3, padding=1)
    conv_training.are_gradients_right.cache_clear()
    with (
        caplog.at_level("INFO", "swahr"),
        patch.object(conv_training, "is_available", return_value=False),
    ):
        use_cpu_kernels(model, load_config(config_file, list(ON)), CPU)
    conv_training.are_gradients_right.cache_clear()
    assert caplog.messages == [
        "TRAIN.CPU_KERNELS are not used: this processor or system has no use for them"
    ]
    assert "forward" not in vars(model)


@needs_threads
def test_a_step_is_that_of_pytorch(config_file: Path) -> None:
    """All gradients of a network, up to rounding, and some of its convolutions are ours."""
    found = []
    for kernels in (False, True):
        cfg = load_config(config_file, [*ON, *WIDE, "TRAIN.CPU_KERNELS", kernels])
        step = build_train_step(cfg, build_network(cfg, CPU), build_criterion(cfg), CPU)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, 3, 128, 128, generator=generator)
        with patch.object(
            conv_training, "gradient_of_weight", wraps=conv_training.gradient_of_weight
        ) as ours:
            outputs = step.model.train()(images.contiguous(memory_format=torch.channels_last))
            sum(output.heatmaps.square().sum() for output in outputs).backward()
        assert ours.called == kernels
        found.append([weight.grad for weight in step.model.parameters() if weight.grad is not None])
    # A rounded value may fall on the other side of a ReLU.
    for mine, theirs in zip(*found, strict=True):
        assert (mine - theirs).norm() < 1e-2 * theirs.norm()
