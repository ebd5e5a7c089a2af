"""What keeps the scale maps near 0, so that they cannot adapt the target to anything (Luo et al.,
CVPR 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor

from swahr.losses.heatmap import at_least_float32


def scale_loss(scales: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of a^2 M over an image's maps, where a is the scale where the target is > 0, else 0 ->
    (B,) in float32.

    scales, target: (B, K, h, w) scale maps and target heatmaps; mask: (B, h, w).
    """
    counted = torch.where(target > 0, at_least_float32(mask)[:, None], 0)
    return at_least_float32(scales).square().mul(counted).mean((1, 2, 3))
