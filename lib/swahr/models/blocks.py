"""Residual blocks and small groups of convolutions, of which HRNet is made.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, in the arrangement of HRNet
(Sun et al., CVPR 2019). The attribute names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def init_normal(module: nn.Module, std: float = 0.001) -> None:
    """Initialise in-place as HigherHRNet does: convolutions N(0, std^2), biases 0, norms 1 and 0.

    Convolutions are drawn in the order in which they are registered.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def conv_bn(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm, and a ReLU if asked for.

    (B, in_channels, h, w) -> (B, out_channels, h / stride, w / stride).
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    layers = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    return layers.append(nn.ReLU(inplace=True)) if relu else layers


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, in_channels, h, w) -> (B, channels, h, w)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out.add_(x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut.

    (B, in_channels, h, w) -> (B, 4 * channels, h, w).
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out.add_(x if self.downsample is None else self.downsample(x)))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {
    "BASIC": BasicBlock,
    "BOTTLENECK": Bottleneck,
}


def _shortcut(in_channels: int, out_channels: int) -> nn.Sequential | None:
    """None for the identity, which has no name in checkpoints; otherwise a 1x1 projection."""
    if in_channels == out_channels:
        return None
    return conv_bn(in_channels, out_channels, kernel=1, relu=False)


def residual_blocks(block: str, in_channels: int, channels: int, count: int) -> nn.Sequential:
    """`count` blocks of one kind, a name in BLOCKS.

    (B, in_channels, h, w) -> (B, channels * expansion, h, w).
    """
    kind = BLOCKS[block]
    widths = [in_channels] + [channels * kind.expansion] * (count - 1)
    return nn.Sequential(*(kind(width, channels) for width in widths[:count]))
