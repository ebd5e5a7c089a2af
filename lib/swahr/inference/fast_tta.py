"""Test-time augmentation for TEST.FAST_DECODE: the averages of `tta` with less memory traffic.

Mirroring and averaging are done at the network's own resolutions, and heatmaps are resized once.
Tags stay at their resolution. Averages and resizing are linear, so results differ from those of
`tta` by rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swahr.codec.maps import on_device
from swahr.codec.sampled import SampledMaps, Size, TagMaps, repeats_borders
from swahr.inference.tta import resize
from swahr.models.network import StageOutput


class Passes(NamedTuple):
    """What is done with the network's outputs.

    use_heatmaps, use_tags: for each resolution, low to high, whether its maps are used. flip_index:
    indices of the mirrored joints, if the second half of the batch is the mirrored images; else
    None. joints: of the result; a centre after them is dropped.
    """

    use_heatmaps: Sequence[bool]
    use_tags: Sequence[bool]
    flip_index: Sequence[int] | None
    joints: int


class ScaleHeatmaps(NamedTuple):
    """The heatmaps of one test scale.

    maps: (B, K, h, w) float32. repeats_borders: whether resizing made them so that all outer pixels
    have their neighbours' values, see sampled.repeats_borders.
    """

    maps: Tensor
    repeats_borders: bool


def heatmaps_of_scale(outputs: Sequence[StageOutput], passes: Passes) -> ScaleHeatmaps:
    """The mean heatmaps of all resolutions in use and both passes, at the size of the last
    resolution.
    """
    size = outputs[-1].heatmaps.shape[2:]
    used = [stage.heatmaps for stage, use in zip(outputs, passes.use_heatmaps) if use]
    total: Tensor | None = None
    for maps in used:
        for part in _both(maps, passes):
            part = resize(part, size)
            total = part if total is None else total + part
    assert total is not None, "the predictor sees to it that some heatmaps are used"
    count = len(used) * (1 if passes.flip_index is None else 2)
    repeated = all(repeats_borders(_size(maps), _size(total)) for maps in used)
    return ScaleHeatmaps(total / count if count > 1 else total, repeated)


def tags_of_scale(
    outputs: Sequence[StageOutput], passes: Passes, sizes: Sequence[Size]
) -> list[TagMaps]:
    """The tags of all resolutions in use of the image, and then those of the mirrored one.

    sizes: through which maps of the last resolution are resized, if they are.
    """
    last = _size(outputs[-1].heatmaps)
    used = [
        _both(stage.tags, passes)
        for stage, use in zip(outputs, passes.use_tags)
        if use and stage.tags is not None
    ]
    if len(used) == 1:  # both passes side by side, so that they are read at once
        parts = [torch.stack(used[0], 2)]
    else:
        parts = [maps[:, :, None] for one_pass in zip(*used) for maps in one_pass]
    return [TagMaps(maps, _without_repeats([_size(maps), last, *sizes])) for maps in parts]


def sampled_maps(scales: Sequence[ScaleHeatmaps], tags: list[TagMaps], size: Size) -> SampledMaps:
    """The mean of the heatmaps of all scales at one size, with the tags of one scale."""
    heatmaps = [scale.maps for scale in scales]
    small = [*heatmaps, *(part.maps for part in tags)]
    extremes = [value for maps in small if maps.numel() for value in maps.aminmax()]
    finite = torch.stack(extremes).isfinite().all() if extremes else torch.tensor(True)
    total = resize(heatmaps[0], size)
    for maps in heatmaps[1:]:
        total = total + resize(maps, size)
    mean = total / len(scales) if len(scales) > 1 else total
    repeated = all(
        scale.repeats_borders or repeats_borders(_size(scale.maps), size) for scale in scales
    )
    return SampledMaps(mean, tags, finite, repeated)


def _both(maps: Tensor, passes: Passes) -> list[Tensor]:
    """Maps of the image, and those of the mirrored image mirrored back, in contiguous float32."""
    if passes.flip_index is None:
        return [_plain(maps[:, : passes.joints])]
    image, mirrored = maps.chunk(2)
    if maps.shape[1] == len(passes.flip_index):
        mirrored = mirrored[:, on_device(tuple(passes.flip_index[: passes.joints]), maps.device)]
    return [_plain(image[:, : passes.joints]), _plain(mirrored.flip(3))]


def _plain(maps: Tensor) -> Tensor:
    return maps.to(torch.float32, memory_format=torch.contiguous_format)


def _size(maps: Tensor) -> Size:
    return (int(maps.shape[-2]), int(maps.shape[-1]))


def _without_repeats(sizes: Sequence[Size]) -> tuple[Size, ...]:
    return tuple(size for index, size in enumerate(sizes) if not index or size != sizes[index - 1])
