"""Test-time augmentation: the network's maps averaged over its resolutions, over the mirrored image
and over scales.

The rules, and the order of the float32 operations, are those of HigherHRNet (Cheng et al., CVPR
2020), so that the same peaks result. Heatmaps are averaged over all passes. Tags of different
passes cannot be compared, so they are kept side by side. Maps of StageOutput.extra follow their
MapRule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swahr.codec.maps import MapRule, Maps, on_device
from swahr.models.network import StageOutput


class PassMaps(NamedTuple):
    """The maps of one pass over B images, or of the passes at one scale.

    heatmaps: (B, K, h, w).
    tags: T maps (B, K, h, w), or (B, 1, h, w) where the joints share them.
    extra: further maps (B, C, h, w) by name.
    """

    heatmaps: Tensor
    tags: list[Tensor]
    extra: dict[str, Tensor]

    def map(self, function: Callable[[Tensor], Tensor]) -> PassMaps:
        """The same with `function` applied to every tensor."""
        return PassMaps(
            function(self.heatmaps),
            [function(tags) for tags in self.tags],
            {name: function(maps) for name, maps in self.extra.items()},
        )


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, h, w) resized bilinearly to (height, width); the outer edges of the maps stay in
    place (align_corners False).
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def average_stages(
    outputs: Sequence[StageOutput],
    *,
    use_heatmaps: Sequence[bool],
    use_tags: Sequence[bool] = (),
    map_rules: Mapping[str, MapRule] | None = None,
) -> PassMaps:
    """The mean heatmaps of the resolutions in use and the tags of those in use, all at the size of
    the last resolution.

    use_heatmaps, use_tags: for each resolution, low to high, whether its heatmaps and its tags
    are used.
    map_rules: of the further maps that are used, each from the highest resolution that gives it.
    """
    size = outputs[-1].heatmaps.shape[2:]
    heatmaps = [resize(stage.heatmaps, size) for stage, use in zip(outputs, use_heatmaps) if use]
    tags = [
        resize(stage.tags, size)
        for stage, use in zip(outputs, use_tags)
        if use and stage.tags is not None
    ]
    given = {name: maps for stage in outputs for name, maps in (stage.extra or {}).items()}
    extra = {name: resize(given[name], size) for name in map_rules or {} if name in given}
    return PassMaps(_mean(heatmaps), tags, extra)


def mirror_back(
    maps: PassMaps, flip_index: Sequence[int], map_rules: Mapping[str, MapRule] | None = None
) -> PassMaps:
    """The maps of a mirrored image as maps of the image: left and right joints change places.

    flip_index: K indices of the mirrored joints. map_rules: of every map in maps.extra.
    """
    index = on_device(tuple(flip_index), maps.heatmaps.device)

    def mirror(joint_maps: Tensor) -> Tensor:
        mirrored = joint_maps.flip(3)
        return mirrored[:, index] if joint_maps.shape[1] == len(index) else mirrored

    rules = map_rules or {}
    extra = {name: rules[name].mirror(values, flip_index) for name, values in maps.extra.items()}
    return PassMaps(mirror(maps.heatmaps), [mirror(tags) for tags in maps.tags], extra)


def drop_last_joint(maps: PassMaps, map_rules: Mapping[str, MapRule] | None = None) -> PassMaps:
    """The maps without those of the last joint, which is the centre.

    map_rules: of every map in maps.extra.
    """
    joints = maps.heatmaps.shape[1]
    rules = map_rules or {}
    tags = [tags[:, :-1] if tags.shape[1] == joints else tags for tags in maps.tags]
    extra = {name: rules[name].drop_last_joint(values) for name, values in maps.extra.items()}
    return PassMaps(maps.heatmaps[:, :-1], tags, extra)


def average_flips(passes: Sequence[PassMaps], *, size: Sequence[int] | None = None) -> PassMaps:
    """The maps of one scale from its passes: the image and, in flip testing, the mirrored image,
    already mirrored back.

    size: (height, width) to which all maps are resized first; None keeps their size.
    """
    if size is not None:
        passes = [maps.map(lambda values: resize(values, size)) for maps in passes]
    names = passes[0].extra
    return PassMaps(
        _mean([maps.heatmaps for maps in passes]),
        [tags for maps in passes for tags in maps.tags],
        {
            name: _mean([maps.extra[name] for maps in passes if name in maps.extra])
            for name in names
        },
    )


def average_scales(scales: Iterable[PassMaps]) -> Maps:
    """The maps that are decoded: mean heatmaps of the scales, the tags of the scale that has any,
    and the mean of every other map over the scales that have it.

    Maps are resized to those of the first scale, which is the largest. The iterable is consumed
    step by step, so that only one scale at a time is in memory.
    """
    size: Sequence[int] | None = None
    heatmaps = _RunningMean()
    extra: dict[str, _RunningMean] = {}
    tags = None
    for maps in scales:
        size = size or maps.heatmaps.shape[2:]
        heatmaps.add(resize(maps.heatmaps, size))
        if maps.tags:
            tags = _stack_last([resize(values, size) for values in maps.tags])
        for name, values in maps.extra.items():
            extra.setdefault(name, _RunningMean()).add(resize(values, size))
    return Maps(heatmaps.mean(), tags, {name: sums.mean() for name, sums in extra.items()})


class _RunningMean:
    """The mean of tensors that come one after another."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, values: Tensor) -> None:
        self.total = values if self.total is None else self.total + values
        self.count += 1

    def mean(self) -> Tensor:
        """Raises ValueError where nothing was added."""
        if self.total is None:
            raise ValueError("there are no maps to average")
        return self.total / self.count if self.count > 1 else self.total


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, maps).div_(len(maps)) if len(maps) > 1 else maps[0]


def _stack_last(maps: Sequence[Tensor]) -> Tensor:
    """torch.stack(maps, dim=-1), four times as fast on a CPU."""
    stacked = maps[0].new_empty((*maps[0].shape, len(maps)))
    for index, values in enumerate(maps):
        stacked[..., index] = values
    return stacked
