"""A toy network that needs no training, and images for it: people have two joints, a red spot and a
green one below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from swahr.codec.decode import AssociativeDecoder
from swahr.data.images import MEAN, STD
from swahr.inference.predictor import Predictor
from swahr.models.network import StageOutput

RED = 0
GREEN = 1


def colours(images: Tensor) -> list[StageOutput]:
    """A network that finds two joints, a red and a green spot; blue tells people apart."""
    values = (images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)).clamp(
        0, 1
    )
    outputs = []
    for stage, factor in enumerate((4, 2)):
        maps = F.avg_pool2d(values, factor)
        tags = 50 * maps[:, 2:].repeat(1, 2, 1, 1)
        outputs.append(StageOutput(None, maps[:, :2], tags if stage == 0 else None))
    return outputs


def predictor(**options: object) -> Predictor:
    settings: dict[str, object] = {
        "num_keypoints": 2,
        "input_size": 64,
        "use_heatmaps": [True, True],
        "use_tags": [True, False],
        "flip_index": (0, 1),
    }
    decoder = AssociativeDecoder(grouping_order=(0, 1), detection_threshold=0.3, max_people=40)
    return Predictor(colours, decoder, **(settings | options))  # type: ignore[arg-type]


def image(
    width: int, height: int, people: Sequence[tuple[int, int]], spread: float = 4, shade: int = 20
) -> np.ndarray:
    """Each person is a red spot at (x, y), a green one 20 px below, and a shade of blue around
    both.
    """
    image = np.zeros((height, width, 3))
    (v, u) = np.mgrid[:height, :width]
    for number, (x, y) in enumerate(people):
        image[max(y - 8, 0) : y + 28, max(x - 8, 0) : x + 9, 2] = shade * (number + 1)
        for colour, centre in ((RED, y), (GREEN, y + 20)):
            spot = 255 * np.exp(-((u - x) ** 2 + (v - centre) ** 2) / (2 * spread**2))
            image[..., colour] = np.maximum(image[..., colour], spot)
    return image.astype(np.uint8)
