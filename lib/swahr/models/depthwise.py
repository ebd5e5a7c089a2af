"""A convolution with one filter per channel that trains fast on a CPU.

The gradient of such a filter is a sum of products over all pixels for each of its taps. oneDNN
takes much longer for it than for the gradient of the input; docs/benchmarks.md has figures.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


class DepthwiseConv2d(nn.Conv2d):
    """(B, C, H, W) -> (B, C, H, W), with the parameters of nn.Conv2d(C, C, kernel_size, groups=C).

    kernel_size: px, odd. compiled_sum: on a CPU a compiled loop sums the gradient of the weight, in
    float32 at least whatever the type of the maps; that gradient has none of its own. Where it is
    False, on other devices, and in code that PyTorch compiles, the gradient is PyTorch's.
    """

    compiled_sum = True

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, input: Tensor) -> Tensor:
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        on_cpu = input.device.type == "cpu" and not torch.compiler.is_compiling()
        if learns and on_cpu and self.compiled_sum:
            return _DepthwiseConvolution.apply(input, self.weight, self.bias)
        return super().forward(input)


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = conv2d_input(
                x.shape,
                weight.to(gradient.dtype),
                gradient,
                padding=weight.shape[-1] // 2,
                groups=len(weight),
            )
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        gradient = gradient.to(dtype, memory_format=torch.contiguous_format)
        return of_input, weight_gradient(x, gradient, weight.shape[-1]), gradient.sum((0, 2, 3))


def weight_gradient(x: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    """The gradient (C, 1, k, k) of the filters from the input and the output's gradient.

    Both are (B, C, H, W); gradient is contiguous, and the result has its type.
    """
    from swahr.models.depthwise_kernels import sum_products  # it imports Numba

    channels = gradient.shape[1]
    x = x.to(gradient.dtype, memory_format=torch.contiguous_format)
    padded = F.pad(x, (kernel_size // 2,) * 4)
    total = gradient.new_empty(channels, kernel_size, kernel_size)
    sum_products(padded.numpy(), gradient.numpy(), total.numpy())
    return total[:, None]
