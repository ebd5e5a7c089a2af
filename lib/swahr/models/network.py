"""A pose network: a backbone that computes features and a head that turns them into maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class ModelError(ValueError):
    """Settings that make no network, or images that do not fit it; the message is one line."""


class StageOutput(NamedTuple):
    """The maps of one resolution; K keypoints.

    scales: (B, K, h, w), or None without scale heads. heatmaps: (B, K, h, w).
    tags: (B, K, h, w), (B, 1, h, w) where the joints share one tag map, or None without tags.
    extra: further maps by name, each (B, C, h, w), of a head that gives more; None without any.
    """

    scales: Tensor | None
    heatmaps: Tensor
    tags: Tensor | None
    extra: dict[str, Tensor] | None = None

    def named(self, name: str) -> Tensor | None:
        """The maps of a name: scales, heatmaps, tags, or one in extra; None if there are none."""
        if name in ("scales", "heatmaps", "tags"):
            maps: Tensor | None = getattr(self, name)
            return maps
        return (self.extra or {}).get(name)

    def map(self, function: Callable[[Tensor], Tensor]) -> StageOutput:
        """The same with `function` applied to every tensor."""
        return StageOutput(
            None if self.scales is None else function(self.scales),
            function(self.heatmaps),
            None if self.tags is None else function(self.tags),
            None if self.extra is None else {name: function(m) for name, m in self.extra.items()},
        )


class Backbone(nn.Module):
    """Base class of backbones: images (B, 3, H, W) -> features (B, channels, H/stride, W/stride).

    H and W are multiples of size_divisor, which PoseNetwork checks.
    """

    channels: int
    stride: int
    size_divisor: int

    def name_of_pretrained(self, name: str) -> str:
        """The backbone's own name of a tensor that a file of pretrained weights calls `name`."""
        return name

    def init_weights(self) -> None:
        """Draw fresh weights in-place; by default those of the constructor are kept."""


class Head(nn.Module):
    """Base class of heads: features (B, C, h, w) -> one StageOutput per resolution, low to high.

    upsampling: size of the maps of each resolution in units of the features' size, such as (1, 2).
    map_rules: how testing treats maps of StageOutput.extra, by name.
    """

    upsampling: tuple[int, ...]
    map_rules: dict[str, Any] = {}

    def init_weights(self) -> None:
        """Draw fresh weights in-place; by default those of the constructor are kept."""

    def for_testing(self) -> None:
        """Drop, in-place, what testing does not need; nothing by default."""


class PoseNetwork(nn.Module):
    """images (B, 3, H, W) -> one StageOutput per resolution, low to high.

    always_eval: modules that stay in evaluation mode in training, see `freeze`. Raises ModelError
    for a head whose maps are finer than the images.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.always_eval: list[nn.Module] = []
        for factor in head.upsampling:
            if backbone.stride % factor:
                raise ModelError(
                    f"features of stride {backbone.stride} cannot be upsampled by {factor}"
                )
        self.backbone = backbone
        self.head = head

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels to a pixel of each resolution's maps, low resolution to high."""
        return tuple(self.backbone.stride // factor for factor in self.head.upsampling)

    @property
    def size_divisor(self) -> int:
        """Height and width of images must be multiples of this."""
        return self.backbone.size_divisor

    def init_weights(self) -> None:
        """Draw fresh weights in-place, the backbone's first."""
        self.backbone.init_weights()
        self.head.init_weights()

    def train(self, mode: bool = True) -> PoseNetwork:
        """Set the mode of all modules but those of always_eval."""
        super().train(mode)
        for module in self.always_eval:
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[StageOutput]:
        """Normalised images; raises ModelError for sizes that are no multiples of size_divisor."""
        height, width = images.shape[-2:]
        if height % self.size_divisor or width % self.size_divisor:
            raise ModelError(
                f"images are {width} x {height} px; "
                f"width and height must be multiples of {self.size_divisor}"
            )
        return self.head(self.backbone(images))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model's mode is restored at the end; within, it is that of evaluation."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def use_channels_last(model: nn.Module) -> None:
    """Lay out the weights of convolutions with channels last, in-place.

    nn.Module.to would refuse networks that have tensors of five dimensions.
    """

    def laid_out(tensor: Tensor) -> Tensor:
        return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    model._apply(laid_out)
