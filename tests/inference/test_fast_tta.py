"""The averages of TEST.FAST_DECODE: which maps are kept, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from swahr.inference.fast_tta import (
    Passes,
    ScaleHeatmaps,
    heatmaps_of_scale,
    sampled_maps,
    tags_of_scale,
)
from swahr.inference.tta import average_flips, average_stages, mirror_back
from swahr.models.network import StageOutput

FLIPPED = (1, 0)
SIZE = (8, 8)


def outputs(images: int, strides: Sequence[int] = (2, 1)) -> list[StageOutput]:
    """Random maps of two joints at these strides of SIZE."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(images, 2, SIZE[0] // stride, SIZE[1] // stride) for stride in strides]
    return [
        StageOutput(
            None, torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
        )
        for shape in shapes
    ]


@pytest.mark.parametrize("use_tags", [(True, True), (True, False), (False, True)])
def test_tags_come_in_the_order_of_whole_maps(use_tags: tuple[bool, bool]) -> None:
    """All resolutions of the image, and then those of the mirrored one."""
    both = outputs(images=2)
    halves = [
        [StageOutput(None, stage.heatmaps[half], stage.tags[half]) for stage in both]
        for half in (slice(1), slice(1, None))
    ]
    plain, mirrored = (
        average_stages(half, use_heatmaps=(True, True), use_tags=use_tags) for half in halves
    )
    want = average_flips([plain, mirror_back(mirrored, FLIPPED)]).tags
    parts = tags_of_scale(both, Passes((True, True), use_tags, FLIPPED, 2), [SIZE])
    got = [
        torch.nn.functional.interpolate(maps, size=SIZE, mode="bilinear", align_corners=False)
        for part in parts
        for maps in part.maps.unbind(2)
    ]
    assert all(part.sizes[-1] == SIZE for part in parts)
    assert len(got) == len(want) == 2 * sum(use_tags)
    for own, expected in zip(got, want, strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize(
    ("sides", "repeats"), [((2,), True), ((4,), False), ((2, 1), True), ((4, 2), False)]
)
def test_borders_are_repeated_where_all_scales_grow_by_three_or_more(
    sides: tuple[int, ...], repeats: bool
) -> None:
    scales = [ScaleHeatmaps(torch.zeros(1, 2, side, side), False) for side in sides]
    assert sampled_maps(scales, [], SIZE).repeats_borders == repeats


@pytest.mark.parametrize(
    ("use_heatmaps", "repeats"),
    [((True, False), True), ((False, True), False), ((True, True), False)],
)
def test_borders_are_repeated_where_all_resolutions_grow_by_three_or_more(
    use_heatmaps: tuple[bool, bool], repeats: bool
) -> None:
    outputs = [StageOutput(None, torch.zeros(1, 2, side, side), None) for side in (2, 6)]
    heatmaps = heatmaps_of_scale(outputs, Passes(use_heatmaps, (False, False), None, 2))
    assert sampled_maps([heatmaps], [], (12, 12)).repeats_borders == repeats
