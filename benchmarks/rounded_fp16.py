"""fp16 training on a CPU without units for fp16, for the comparison of precisions:

    python tools/run_ablation.py experiments/synthetic/stability --baseline float32 --seeds 2 \\
        --out docs/stability.md --import benchmarks.rounded_fp16

Inputs, weights, results and gradients of convolutions are rounded to fp16, and their products are
summed in float32, as the tensor cores of GPUs do. PyTorch computes fp16 convolutions on most CPUs
too, about a hundred times slower.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_conv_forward = nn.Conv2d._conv_forward
_transposed_forward = nn.ConvTranspose2d.forward


def is_fp16(x: Tensor) -> bool:
    """Whether autocast asks for fp16 on a CPU."""
    is_cast = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return is_cast and torch.get_autocast_dtype("cpu") == torch.float16


def rounded(x: Tensor) -> Tensor:
    """x in float32, rounded to fp16; gradients are rounded too."""
    return x.half().float()


def conv_forward(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In place of nn.Conv2d._conv_forward."""
    if not is_fp16(x):
        return _conv_forward(self, x, weight, bias)
    with torch.autocast("cpu", enabled=False):
        return _conv_forward(self, rounded(x), rounded(weight), bias).half()


def transposed_forward(
    self: nn.ConvTranspose2d, x: Tensor, output_size: list[int] | None = None
) -> Tensor:
    """In place of nn.ConvTranspose2d.forward, for a given output padding."""
    if not is_fp16(x) or output_size is not None:
        return _transposed_forward(self, x, output_size)
    with torch.autocast("cpu", enabled=False):
        return F.conv_transpose2d(
            rounded(x),
            rounded(self.weight),
            self.bias,
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.output_padding,  # type: ignore[arg-type]
            self.groups,
            self.dilation,  # type: ignore[arg-type]
        ).half()


nn.Conv2d._conv_forward = conv_forward  # type: ignore[method-assign]
nn.ConvTranspose2d.forward = transposed_forward  # type: ignore[assignment]
