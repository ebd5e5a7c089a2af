"""3x3 convolutions that train faster in float32 on a CPU, equal to PyTorch's up to rounding.

With a stride of 1, output and gradient of the input are those of winograd.py. So is the gradient of
the weights: each of the 36 products of a tile has a factor that is linear in the filter, so the
gradients of all tiles are summed in the transformed filters and transformed back once. With a
stride of 2, or maps too small for that, output and gradient of the input are PyTorch's, and the
gradient of the weights is summed directly, in up to half the time that oneDNN takes.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swahr.acceleration.vector_code import LANES
from swahr.acceleration.weight_gradient_kernels import (
    ARGUMENTS,
    scratch_layout,
    thread_function,
)
from swahr.acceleration.winograd import (
    can_convolve,
    convolve,
    difference,
    filter_matrix,
    is_available,
    is_plain_3x3,
    is_readable,
    passes,
    run_threads,
    scratch_memory,
    transform_filters,
)
from swahr.acceleration.winograd_kernels import POINTS, count_tiles
from swahr.models.depthwise import conv_gradients

CACHE = 16_384  # bytes of transformed tiles of both maps, at one point, that a thread makes at once
MAX_SUMS = 1 << 29  # bytes of the sums of all parts of a gradient of weights


def use_own_convolutions(model: nn.Module) -> None:
    """Let the 3x3 convolutions of a network train with the kernels of this project.

    Only maps in float32 with channels last change, by rounding, while gradients are on. Modules
    keep their types and their weights; copies and pickles of the network compute as it does. Layers
    with a `forward` of their own keep it.
    """
    for layer in model.modules():
        if type(layer) is nn.Conv2d and is_plain_3x3(layer) and "forward" not in vars(layer):
            # Unlike a method of another class, this can be pickled.
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if _has_gradient(conv, x):
        output: Tensor = _Convolution.apply(
            x, conv.weight, conv.bias, conv.stride[0], can_convolve(conv, x)
        )
        return output
    return nn.Conv2d.forward(conv, x)


def _has_gradient(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether `gradient_of_weight` can compute the layer's gradient for x."""
    return (
        torch.is_grad_enabled()
        and is_readable(x, torch.float32)
        and len(x) > 0
        and conv.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and is_plain_3x3(conv)  # the layer may have been changed since
        and conv.stride in ((1, 1), (2, 2))
        and conv.in_channels % LANES == 0
        and conv.out_channels % LANES == 0
        and are_gradients_right()
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, winograd: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        ctx.winograd = winograd
        if winograd:
            return convolve(x, transform_filters(weight, torch.float32), bias)
        return F.conv2d(x, weight, bias, stride, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_input: Tensor | None = None
        if needs_input and ctx.winograd:
            of_input = gradient_of_input(gradient, weight)
        elif needs_input:
            of_input, _ = conv_gradients(
                gradient, x, weight, (True, False), [ctx.stride] * 2, (1, 1)
            )
        return (
            of_input,
            gradient_of_weight(x, gradient, ctx.stride, ctx.winograd) if needs_weight else None,
            gradient.sum((0, 2, 3)) if needs_bias else None,
            None,
            None,
        )


def gradient_of_input(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient (B, C, h, w) of the input of F.conv2d(x, weight, padding=1), up to rounding.

    gradient: of the output, (B, C', h, w), float32 and channels_last, as the result is. weight:
    (C', C, 3, 3).
    """
    return convolve(gradient, transform_filters(weight.flip(2, 3).transpose(0, 1), torch.float32))


def gradient_of_weight(
    x: Tensor, gradient: Tensor, stride: int = 1, winograd: bool = True
) -> Tensor:
    """The gradient (C', C, 3, 3) of the weight of F.conv2d(x, weight, None, stride, padding=1), up
    to rounding.

    x: (B, C, h, w). gradient: of the output, (B, C', h / stride, w / stride) rounded up. Both are
    float32 and channels_last, and C and C' are multiples of LANES. winograd: with its algorithm,
    which takes a stride of 1. The result is the same to the bit at every call with as many threads.
    """
    batch, channels, height, width = x.shape
    out_channels = gradient.shape[1]
    tiles = batch * count_tiles(height) * count_tiles(width)
    planes = POINTS if winograd else 9
    parts = min(
        torch.get_num_threads(),
        tiles if winograd else batch * gradient.shape[2],
        max(MAX_SUMS // (4 * planes * channels * out_channels), 1),
    )
    most = -(-tiles // parts)
    tile_block = min(max(CACHE // (4 * (channels + out_channels)), 4), most)
    _, _, size = scratch_layout(tile_block, channels, out_channels)
    sums = x.new_empty(parts, planes, channels * out_channels)
    arguments = {
        "counters": 0,
        "input": x.data_ptr(),
        "gradient": gradient.data_ptr(),
        "sums": sums.data_ptr(),
        "scratch": scratch_memory(size * parts).data_ptr() if winograd else 0,
        "batch": batch,
        "height": height,
        "width": width,
        "stride": stride,
        "in_channels": channels,
        "out_channels": out_channels,
        "tile_block": tile_block,
        "winograd": winograd,
        "parts": parts,
        "vectors": 2 if out_channels % (2 * LANES) == 0 else 1,
    }
    run_threads(thread_function(), arguments, ARGUMENTS, parts)
    total = sums[0] if parts == 1 else sums.sum(0)
    weights = filter_matrix(torch.float32).T @ total if winograd else total
    return weights.view(3, 3, channels, out_channels).permute(3, 2, 0, 1)


@cache
def are_gradients_right() -> bool:
    """Whether gradients are those of PyTorch, which is tried once per process on small maps."""
    return is_available(torch.float32) and passes(_self_test, "TRAIN.CPU_KERNELS")


def _self_test() -> str:
    """What differs in gradients of each kind; empty if nothing does."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
        return values.contiguous(memory_format=torch.channels_last)

    for out_channels, stride in ((LANES, 1), (2 * LANES, 1), (LANES, 2), (2 * LANES, 2)):
        x = random(2, 2 * LANES, 9, 14)
        weight = random(out_channels, 2 * LANES, 3, 3)
        gradient = random(*F.conv2d(x, weight, stride=stride, padding=1).shape)
        of_x, of_weight = conv_gradients(gradient, x, weight, (True, True), [stride] * 2, (1, 1))
        assert of_x is not None and of_weight is not None
        found = {"weight": (gradient_of_weight(x, gradient, stride, False), of_weight)}
        if stride == 1:
            found["weight by Winograd"] = (gradient_of_weight(x, gradient), of_weight)
            found["input"] = (gradient_of_input(gradient, weight), of_x)
        for name, (ours, expected) in found.items():
            problem = difference(f"the gradient of the {name}", ours, expected)
            if problem:
                return problem
    return ""
