"""A convolution with one filter per channel that trains faster on a CPU.

oneDNN sums the gradient of such filters fastest in float32, channels last: for 17 filters of 9 x 9
on 96 x 96 px about four times as fast as in bf16, and six times as fast as with channels first.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class DepthwiseConv2d(nn.Conv2d):
    """(B, C, H, W) -> (B, C, H, W), with the parameters of nn.Conv2d(C, C, kernel_size, groups=C).

    kernel_size: px, odd. sum_in_float32: on a CPU the gradients of weight and bias are summed in
    float32 at least, whatever the type of the maps, and have no gradients of their own. Where it is
    False, on other devices, and in compiled code, the gradients are PyTorch's.
    """

    sum_in_float32 = True

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, input: Tensor) -> Tensor:
        on_cpu = input.device.type == "cpu" and not torch.compiler.is_compiling()
        if on_cpu and self.sum_in_float32 and torch.is_grad_enabled():
            return _DepthwiseConvolution.apply(input, self.weight, self.bias)
        return super().forward(input)


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_input, needs_weight, _ = ctx.needs_input_grad
        of_input, _ = conv_gradients(gradient, x, weight, (needs_input, False))
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        gradient = gradient.to(dtype, memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
        _, of_weight = conv_gradients(gradient, x, weight, (False, needs_weight))
        return of_input, of_weight, gradient.sum((0, 2, 3))


def conv_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool], stride: int = 1
) -> tuple[Tensor | None, Tensor | None]:
    """Those of input and weight that are wanted, in the type of the output's gradient.

    Of a convolution that keeps the size of its maps but for the stride. torch.nn.grad has functions
    for one of them, but loses the layout of the input.
    """
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        x.to(gradient.dtype),
        weight.to(gradient.dtype),
        bias_sizes=None,
        stride=[stride] * 2,
        padding=[weight.shape[-1] // 2] * 2,
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=x.shape[1] // weight.shape[1],
        output_mask=[*wanted, False],
    )
    return of_input, of_weight
