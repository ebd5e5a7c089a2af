"""What a decoder gets, and how testing treats maps that only some heads have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def on_device(
    values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.int64
) -> Tensor:
    """Numbers as a tensor on a device, made once, since a copy to a GPU waits for it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


@dataclass
class Maps:
    """The maps of B images, aggregated over stages, flips and scales; K joints.

    heatmaps: (B, K, h, w).
    tags: (B, K, h, w, T), or (B, 1, h, w, T) where the joints share them; None without tags.
    extra: further maps (B, C, h, w) by name, of a head that gives more.
    ready: on a GPU, the event after which their values are there for other streams.
    """

    heatmaps: Tensor
    tags: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    ready: torch.cuda.Event | None = None


class MapRule(NamedTuple):
    """How testing treats the maps of one name in StageOutput.extra.

    The maps come from the highest resolution that gives them, and are resized to the size of the
    heatmaps. Their values are not scaled with the size, so lengths must be given in a unit that
    does not depend on it, or taken from one scale only (average False).

    signs: factors by which the channels of a mirrored image's maps are multiplied, repeated over
    all channels: (-1, 1) for vectors whose x and y are channels that follow each other.
    swap_joints: each joint has len(signs) channels, one joint after another; after mirroring, those
    of left and right joints change places.
    average: take the mean over flips and scales; else the maps of the image as it is at scale 1.
    """

    signs: tuple[int, ...] = (1,)
    swap_joints: bool = False
    average: bool = True

    def mirror(self, maps: Tensor, flip_index: Sequence[int]) -> Tensor:
        """Maps (B, C, h, w) of the mirrored image -> of the image.

        flip_index: K indices of the mirrored joints. Raises ValueError where C does not fit.
        """
        parts = len(self.signs)
        channels = maps.shape[1]
        if self.swap_joints and channels != len(flip_index) * parts:
            raise ValueError(
                f"maps have {channels} channels; with swap_joints they need "
                f"{parts} for each of {len(flip_index)} joints"
            )
        if channels % parts:
            raise ValueError(f"maps have {channels} channels, which {parts} signs do not divide")
        groups = maps.flip(3).unflatten(1, (-1, parts))
        if self.swap_joints:
            groups = groups[:, on_device(tuple(flip_index), maps.device)]
        signs = on_device(self.signs, maps.device, maps.dtype)
        return (groups * signs[:, None, None]).flatten(1, 2)

    def drop_last_joint(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) without the channels of the last joint, if joints have channels."""
        return maps[:, : -len(self.signs)] if self.swap_joints else maps
