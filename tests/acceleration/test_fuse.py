from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from swahr.acceleration.cuda_graphs import CudaGraphs
from swahr.acceleration.fuse import fold_batch_norms, optimize_for_inference, supports_dtype
from swahr.models.network import StageOutput
from swahr.models.weights import published_state
from tests.models.tiny_networks import VARIANTS, images, network

CPU = torch.device("cpu")


def assert_same(
    outputs: list[StageOutput], expected: list[StageOutput], tolerance: float = 1e-4
) -> None:
    """Heatmaps and tags within `tolerance` of the largest value; no scales."""
    assert len(outputs) == len(expected)
    for output, reference in zip(outputs, expected):
        assert isinstance(output, StageOutput) and output.scales is None
        for part, wanted in ((output.heatmaps, reference.heatmaps), (output.tags, reference.tags)):
            assert (part is None) == (wanted is None)
            if wanted is not None:
                torch.testing.assert_close(
                    part, wanted, rtol=0, atol=tolerance * float(wanted.abs().max())
                )


def in_float(outputs: list[StageOutput]) -> list[StageOutput]:
    return [
        StageOutput(*(None if part is None else part.float() for part in output))
        for output in outputs
    ]


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_same_outputs(variant: str) -> None:
    model = network(variant)
    copies = (
        optimize_for_inference(model),
        optimize_for_inference(model, channels_last=False),
        fold_batch_norms(model),
    )
    for faster in copies:
        for batch in (images(2, 64, 32), images(1, 32, 64).to(memory_format=torch.channels_last)):
            assert_same(faster(batch), model(batch))


def test_nothing_is_left_to_fold_and_the_original_is_untouched() -> None:
    model = network().train()
    batch = images()
    state = copy.deepcopy(published_state(model))
    before = batch.clone()
    faster = optimize_for_inference(model)
    with torch.no_grad():
        faster(batch)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in faster.modules())
    assert not faster.training and model.training
    assert not any(parameter.requires_grad for parameter in faster.parameters())
    assert torch.equal(batch, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in published_state(model).items())


@torch.no_grad()
def test_repeated_calls_agree() -> None:
    """Sums overwrite their inputs, so a second look at the same image tells whether one too many is
    overwritten.
    """
    faster = optimize_for_inference(network())
    batch = images()
    first = faster(batch)
    second = faster(batch)
    assert all(torch.equal(one.heatmaps, other.heatmaps) for one, other in zip(first, second))


@torch.no_grad()
def test_other_precisions() -> None:
    model = network()
    batch = images()
    faster = optimize_for_inference(model)
    expected = model(images())
    with torch.autocast("cpu", torch.bfloat16):
        outputs = faster(batch)
    assert outputs[0].heatmaps.dtype == torch.bfloat16
    assert_same(in_float(outputs), expected, 0.05)
    for dtype, tolerance in (
        (torch.float64, 1e-4),
        (torch.bfloat16, 0.05),
    ):  # after it has been used in another one
        assert_same(in_float(faster.to(dtype)(batch.to(dtype))), expected, tolerance)
    lower = optimize_for_inference(model, dtype=torch.bfloat16)
    assert all(parameter.dtype == torch.bfloat16 for parameter in lower.parameters())
    assert_same(in_float(lower(batch.bfloat16())), expected, 0.05)


def test_which_types_weights_can_have() -> None:
    assert supports_dtype(torch.float32, CPU) and supports_dtype(
        torch.float16, torch.device("cuda")
    )
    assert not supports_dtype(torch.float16, CPU)


def test_synchronised_batch_norms_fold_too() -> None:
    model = network()
    with torch.no_grad():
        expected = model(images())
        assert_same(
            fold_batch_norms(nn.SyncBatchNorm.convert_sync_batchnorm(model))(images()), expected
        )  # type: ignore


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_recorded_networks_give_the_same() -> None:
    """For several sizes, in turn; what was given before is not overwritten."""
    model = optimize_for_inference(network().cuda())
    recorded = CudaGraphs(model)
    batches = [images(*size).cuda() for size in ((2, 64, 32), (1, 32, 64), (2, 64, 32))]
    outputs = [recorded(batch + number) for number, batch in enumerate(batches)]
    for number, batch in enumerate(batches):
        assert_same(outputs[number], model(batch + number))
    assert len(recorded.recorded) == 2
