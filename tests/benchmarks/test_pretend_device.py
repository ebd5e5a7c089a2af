"""Operations, copies and waits are counted on a pretended device, whose values are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.pretend_device import DEVICE, Counts, pretended
from swahr.acceleration.fuse import can_fuse_by_cudnn, supports_dtype
from swahr.codec.maps import on_device
from swahr.codec.refine_batch import tile_pixels
from swahr.codec.sampled import axis_taps, tile_weights
from swahr.data.images import statistics


def counts(function: Callable[[Tensor], object]) -> Counts:
    """Of a function of a tensor (2, 3) on the device."""
    with torch.inference_mode(), pretended() as device:
        values = torch.arange(6.0).view(2, 3).to(DEVICE)
        device.counts = Counts()
        function(values)
        return device.counts


def test_values_are_those_of_the_host() -> None:
    with torch.no_grad(), pretended():
        values = torch.arange(6.0).view(2, 3).to(DEVICE)
        layer = torch.nn.Linear(3, 3).to(DEVICE)
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.ones_(layer.bias)
        got = layer(values).flip(1)[:, torch.tensor([0, 2], device=DEVICE)].mul_(2)
        assert got.is_cuda and got.device == DEVICE
        assert got.cpu().tolist() == [[6, 2], [12, 8]]


@pytest.mark.parametrize(
    ("function", "operations"),
    [
        (lambda x: x.view(3, 2).t()[0], 0),
        (lambda x: x.new_empty(2), 0),
        (lambda x: x + 1, 1),
        (lambda x: x.add_(1), 1),
        (lambda x: torch.zeros(3, device=DEVICE), 1),
        (lambda x: x.t().contiguous(), 1),
    ],
)
def test_what_computes_or_copies_on_the_device_is_an_operation(
    function: Callable[[Tensor], object], operations: int
) -> None:
    got = counts(function)
    assert got.operations == operations
    assert (got.uploads, got.downloads, got.waits) == ([], [], 0)


def test_moved_bytes_are_those_read_and_written() -> None:
    assert counts(lambda x: x + 1).moved == 2 * 24


@pytest.mark.parametrize(
    ("function", "uploads", "downloads", "waits"),
    [
        (lambda x: x.cpu(), [], [24], 1),
        (lambda x: x.to("cpu", non_blocking=True), [], [24], 0),
        (lambda x: torch.empty(2, 3).copy_(x, non_blocking=True), [], [24], 0),
        (lambda x: torch.zeros(4).to(DEVICE), [16], [], 1),
        (lambda x: torch.zeros(4).to(DEVICE, non_blocking=True), [16], [], 0),
        (lambda x: x[:, [0, 1]], [16], [], 1),
        (lambda x: x.sum().item(), [], [4], 1),
        (lambda x: bool(x.any()), [], [1], 1),
        (lambda x: x[x > 1], [], [], 1),
        (lambda x: x + torch.tensor(1.0), [], [], 0),
    ],
)
def test_copies_and_waits(
    function: Callable[[Tensor], object], uploads: list[int], downloads: list[int], waits: int
) -> None:
    got = counts(function)
    assert (got.uploads, got.downloads, got.waits) == (uploads, downloads, waits)
    assert f"{len(uploads)} copies to the device" in str(got)


def test_the_device_is_gone_afterwards() -> None:
    with pretended():
        values = torch.zeros(2).to(DEVICE)
    with pytest.raises(RuntimeError, match="outside PretendDevice"):
        values + 1


@pytest.mark.parametrize(
    ("cached", "arguments"),
    [
        (statistics, [DEVICE]),
        (on_device, [(1, 2), DEVICE]),
        (axis_taps, [(4, 8), DEVICE]),
        (tile_weights, [(4,), DEVICE]),
        (tile_pixels, [16, 16, DEVICE]),
        (can_fuse_by_cudnn, [DEVICE, torch.float32]),
        (supports_dtype, [torch.float32, DEVICE]),
    ],
)
def test_nothing_of_a_real_device_comes_in_or_of_the_pretended_one_stays(
    cached: Any, arguments: list[Any]
) -> None:
    """They have the same name, so what is cached of one would be taken for the other's."""
    cached(*[torch.device("cpu") if value == DEVICE else value for value in arguments])
    with torch.no_grad(), pretended():
        assert cached.cache_info().currsize == 0
        cached(*arguments)
        assert cached.cache_info().currsize == 1
    assert cached.cache_info().currsize == 0
