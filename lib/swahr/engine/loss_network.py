"""Images, joints and masks to losses, as one module: what torch.compile and DDP get in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swahr.data.images import normalize, statistics
from swahr.losses.criterion import batch_means
from swahr.models.network import StageOutput

MIN_PEOPLE = 32  # joints are padded to so many people; few images of COCO have more


class LossNetwork(nn.Module):
    """Normalisation, targets, network and criterion, so that they can be compiled together.

    model: bare, on its device. encoder: joints and masks of all stages -> their targets. dtype: of
    the network's convolutions, None for float32. memory_format: of the images.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        encoder: Callable[..., Any],
        criterion: nn.Module,
        dtype: torch.dtype | None,
        memory_format: torch.memory_format,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.model = model
        self.encoder = encoder
        self.criterion = criterion
        self.dtype = dtype
        self.memory_format = memory_format
        # Kept here, since compiled code would copy them to the GPU in every step.
        mean, std = statistics(next(model.parameters()).device)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(
        self, images: Tensor, joints: Sequence[Tensor], masks: Sequence[Tensor]
    ) -> tuple[list[str], Tensor, list[StageOutput]]:
        """The parts of a Batch -> names of the losses, their means over the batch (losses,), and
        the network's outputs, detached.
        """
        targets = self.encoder(joints, masks)
        planes = normalize(images, self.memory_format, (self.mean, self.std))
        with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = self.model(planes)
        losses = self.criterion(outputs, targets)
        detached = [stage.map(torch.Tensor.detach) for stage in outputs]
        return list(losses), batch_means(losses), detached


def pad_people(joints: Tensor) -> Tensor:
    """joints (B, N, K, C) -> (B, M, K, C), M the next power of two from MIN_PEOPLE up.

    Compiled code is compiled again for every N; the added rows of zeros are no people.
    """
    people = joints.shape[1]
    padded = max(MIN_PEOPLE, 1 << (people - 1).bit_length())
    return functional.pad(joints, (0, 0, 0, 0, 0, padded - people))
