"""The loss that keeps the scale maps near 0, so that they cannot adapt the target to any prediction
(Luo et al., CVPR 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor

from swahr.losses.heatmap import at_least_float32


def scale_loss(scales: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of a^2 M over an image's maps, a being the scale where the target is > 0, else 0 -> (B,)
    in float32.

    scales, target: (B, K, h, w) scale maps and target heatmaps.
    mask: (B, h, w), the weight M of each pixel.
    """
    pixel_weight = torch.where(target > 0, at_least_float32(mask)[:, None], 0)
    return at_least_float32(scales).square().mul(pixel_weight).mean((1, 2, 3))
