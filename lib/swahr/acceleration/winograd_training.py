"""3x3 convolutions that train in float32 on a CPU with a quarter of the multiplications.

The output and the gradient of the input are those of winograd.py. So is the gradient of the
weights: each of the 36 products of a tile has a factor that is linear in the filter, so the
gradients of all tiles are summed in the transformed filters and transformed back once.
"""

from __future__ import annotations

import logging
from functools import cache
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swahr.acceleration.vector_code import LANES
from swahr.acceleration.winograd import (
    TOLERANCE,
    can_convolve,
    convolve,
    filter_matrix,
    is_available,
    run_threads,
    scratch_memory,
    transform_filters,
)
from swahr.acceleration.winograd_gradient_kernels import (
    ARGUMENTS,
    scratch_layout,
    thread_function,
)
from swahr.acceleration.winograd_kernels import POINTS, count_tiles

logger = logging.getLogger("swahr")

CACHE = 16_384  # bytes of transformed tiles of both maps, at one point, that a thread makes at once


def train_with_winograd(model: nn.Module) -> None:
    """Let the 3x3 convolutions of a network compute with Winograd's algorithm where that is faster.

    Only maps in float32 with channels last whose gradient is wanted change, by rounding. Modules
    keep their types and their weights; copies of the network compute as it does.
    """
    for layer in model.modules():
        if type(layer) is nn.Conv2d and layer.kernel_size == (3, 3):
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if (
        torch.is_grad_enabled()
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled(x.device.type)
        and conv.out_channels % LANES == 0
        and can_convolve(conv, x)
        and are_gradients_right()
    ):
        output: Tensor = _Convolution.apply(x, conv.weight, conv.bias)
        return output
    return nn.Conv2d.forward(conv, x)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolve(x, transform_filters(weight, torch.float32), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (
            gradient_of_input(gradient, weight) if needs_input else None,
            gradient_of_weight(x, gradient) if needs_weight else None,
            gradient.sum((0, 2, 3)) if needs_bias else None,
        )


def gradient_of_input(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient (B, C, h, w) of the input of F.conv2d(x, weight, padding=1), up to rounding.

    gradient: of the output, (B, C', h, w), float32 and channels_last, as the result is. weight:
    (C', C, 3, 3).
    """
    return convolve(gradient, transform_filters(weight.flip(2, 3).transpose(0, 1), torch.float32))


def gradient_of_weight(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (C', C, 3, 3) of the weight of F.conv2d(x, weight, padding=1), up to rounding.

    x: (B, C, h, w). gradient: of the output, (B, C', h, w). Both are float32 and channels_last, and
    C and C' are multiples of LANES. The result is the same to the bit at every call with as many
    threads.
    """
    batch, channels, height, width = x.shape
    out_channels = gradient.shape[1]
    tiles = batch * count_tiles(height) * count_tiles(width)
    parts = min(torch.get_num_threads(), tiles)
    most = -(-tiles // parts)
    tile_block = min(max(CACHE // (4 * (channels + out_channels)), 4), most)
    _, _, size = scratch_layout(tile_block, channels, out_channels)
    sums = x.new_empty(parts, POINTS, channels * out_channels)
    arguments = {
        "counters": 0,
        "input": x.data_ptr(),
        "gradient": gradient.data_ptr(),
        "sums": sums.data_ptr(),
        "scratch": scratch_memory(size * parts).data_ptr(),
        "batch": batch,
        "height": height,
        "width": width,
        "in_channels": channels,
        "out_channels": out_channels,
        "tile_block": tile_block,
        "parts": parts,
        "vectors": 2 if out_channels % (2 * LANES) == 0 else 1,
    }
    run_threads(thread_function(), arguments, ARGUMENTS, parts)
    total = sums[0] if parts == 1 else sums.sum(0)
    rows = filter_matrix(torch.float32).T @ total
    return rows.view(3, 3, channels, out_channels).permute(3, 2, 0, 1)


@cache
def are_gradients_right() -> bool:
    """Whether gradients are those of PyTorch, which is tried once per process on small maps."""
    if not is_available(torch.float32):
        return False
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
        return values.contiguous(memory_format=torch.channels_last)

    for out_channels in (LANES, 2 * LANES):
        x = random(2, 2 * LANES, 9, 14)
        weight = random(out_channels, 2 * LANES, 3, 3)
        factor = random(2, out_channels, 9, 14)
        plain_x, plain_weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.enable_grad():
            F.conv2d(plain_x, plain_weight, padding=1).backward(factor)
        for name, gradient, expected in (
            ("input", gradient_of_input(factor, weight), plain_x.grad),
            ("weight", gradient_of_weight(x, factor), plain_weight.grad),
        ):
            assert expected is not None
            error = float((gradient - expected).abs().max())
            if not error <= TOLERANCE[torch.float32] * float(expected.abs().max()):
                logger.warning(
                    "TRAIN.CPU_KERNELS are not used: the gradient of the %s differs from "
                    "PyTorch's by up to %.2g",
                    name,
                    error,
                )
                return False
    return True
