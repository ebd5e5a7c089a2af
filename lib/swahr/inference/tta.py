"""Test-time augmentation: the network's maps averaged over its resolutions, over the mirrored image
and over scales.

The rules, and the order of the float32 operations, are those of HigherHRNet (Cheng et al., CVPR
2020), so that the same peaks come out. Heatmaps are averaged over everything; tags of different
passes cannot be compared, so they are kept side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swahr.models.network import StageOutput


class Maps(NamedTuple):
    """The maps of one or more passes over B images.

    heatmaps: (B, K, h, w). tags: T of (B, K, h, w), or of (B, 1, h, w) where the joints share them.
    """

    heatmaps: Tensor
    tags: list[Tensor]

    def each(self, change: Callable[[Tensor], Tensor]) -> Maps:
        return Maps(change(self.heatmaps), [change(tags) for tags in self.tags])


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, h, w) resized bilinearly to (height, width), the maps' outer edges kept
    (align_corners False).
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def average_stages(
    outputs: Sequence[StageOutput],
    *,
    use_heatmaps: Sequence[bool],
    use_tags: Sequence[bool] = (),
    mirrored_by: Sequence[int] | None = None,
) -> Maps:
    """The mean heatmaps of the resolutions in use and the tags of those in use, all at the size of
    the last resolution.

    use_heatmaps, use_tags: for each resolution, low to high, whether its heatmaps and its tags
    count.
    mirrored_by: the skeleton's flip index where the network saw the mirrored image: its maps are
    mirrored back, and left and right joints change places.
    """
    size = outputs[-1].heatmaps.shape[2:]
    heatmaps = [resize(stage.heatmaps, size) for stage, use in zip(outputs, use_heatmaps) if use]
    tags = [
        resize(stage.tags, size)
        for stage, use in zip(outputs, use_tags)
        if use and stage.tags is not None
    ]
    maps = Maps(_mean(heatmaps), tags)
    if mirrored_by is None:
        return maps
    index = torch.as_tensor(mirrored_by, device=maps.heatmaps.device)
    return maps.each(lambda a: a.flip(3)[:, index] if a.shape[1] == len(index) else a.flip(3))


def average_flips(
    passes: Sequence[Maps], *, size: Sequence[int] | None = None, drop_center: bool = False
) -> Maps:
    """The maps of one scale from its passes: the image and, in flip testing, the mirrored one,
    already mirrored back.

    size: (height, width) to which all maps are resized first (TEST.PROJECT2IMAGE). drop_center:
    leave out the maps of the last joint.
    """
    if drop_center:
        joints = passes[0].heatmaps.shape[1]
        passes = [maps.each(lambda a: a[:, :-1] if a.shape[1] == joints else a) for maps in passes]
    if size is not None:
        passes = [maps.each(lambda a: resize(a, size)) for maps in passes]
    return Maps(
        _mean([maps.heatmaps for maps in passes]), [tags for maps in passes for tags in maps.tags]
    )


def average_scales(scales: Iterable[Maps]) -> tuple[Tensor, Tensor]:
    """Mean heatmaps (B, K, h, w) of the scales and the tags (B, K or 1, h, w, T) of the scale that
    has any.

    Maps of other sizes are resized to those of the first scale, which is the largest. The iterable
    is read as it goes, so that one scale at a time is in memory. ValueError where no scale has
    tags.
    """
    total = None
    tags = None
    count = 0
    for maps in scales:
        size = maps.heatmaps.shape[2:] if total is None else total.shape[2:]
        heatmaps = resize(maps.heatmaps, size)
        total = heatmaps if total is None else total + heatmaps
        if maps.tags:
            tags = _side_by_side([resize(a, size) for a in maps.tags])
        count += 1
    if total is None or tags is None:
        raise ValueError(
            "the maps have no tags to group joints by: TEST.SCALE_FACTOR must hold 1 (or one scale only), "
            "and a resolution must have both LOSS.WITH_AE_LOSS and TEST.WITH_AE"
        )
    return total / count if count > 1 else total, tags


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, maps).div_(len(maps)) if len(maps) > 1 else maps[0]


def _side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """torch.stack(maps, dim=-1), four times as fast on a CPU."""
    stacked = maps[0].new_empty((*maps[0].shape, len(maps)))
    for place, each in enumerate(maps):
        stacked[..., place] = each
    return stacked
