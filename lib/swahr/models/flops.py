"""The size of a network, and its multiply-accumulates (MACs) for an image."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def count_parameters(model: nn.Module) -> int:
    """Number of learnt values; the running statistics of batch norms are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size: int | tuple[int, int]) -> tuple[int, int]:
    """MACs of the convolutions for one image: (by the published rule, exactly).

    size: side or (height, width) of the image, px. The published rule is weight elements times
    output pixels for every convolution. It is exact except for transposed ones, whose weights meet
    every input pixel once, and there are fewer of those. Only shapes run through the network.
    """
    height, width = (size, size) if isinstance(size, int) else size
    shapes_only = copy.deepcopy(model).to("meta").eval()
    published: list[int] = []
    exact: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights = layer.get_parameter("weight").numel()
        published.append(weights * output[0, 0].numel())
        exact.append(
            weights * inputs[0][0, 0].numel()
            if isinstance(layer, nn.ConvTranspose2d)
            else published[-1]
        )

    for layer in shapes_only.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        shapes_only(torch.empty(1, 3, height, width, device="meta"))
    return sum(published), sum(exact)
