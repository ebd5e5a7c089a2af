from __future__ import annotations

import numpy as np
import pytest
import torch

from swahr.codec.maps import MapRule
from swahr.inference.tta import (
    PassMaps,
    average_flips,
    average_scales,
    average_stages,
    drop_last_joint,
    mirror_back,
    resize,
)
from swahr.models.network import StageOutput
from tests.oracles import tta as oracle

FLIP = [0, 2, 1]  # three joints, the last two left and right


def stages(seed: int, batch: int = 2, tag_channels: int = 3) -> list[StageOutput]:
    """Outputs of a network of two resolutions, 4 x 6 and 8 x 12, the first with tags."""
    random = torch.Generator().manual_seed(seed)
    return [
        StageOutput(
            None,
            torch.rand(batch, 3, 4, 6, generator=random),
            torch.randn(batch, tag_channels, 4, 6, generator=random),
        ),
        StageOutput(None, torch.rand(batch, 3, 8, 12, generator=random), None),
    ]


def plain(outputs: list[StageOutput], image: int) -> list[tuple[np.ndarray, np.ndarray | None]]:
    return [
        (s.heatmaps[image].numpy(), None if s.tags is None else s.tags[image].numpy())
        for s in outputs
    ]


def both(
    outputs: list[StageOutput], mirrored: list[StageOutput], size: tuple[int, int] | None = None
) -> PassMaps:
    use = {"use_heatmaps": [True, True], "use_tags": [True, False]}
    passes = [average_stages(outputs, **use), mirror_back(average_stages(mirrored, **use), FLIP)]
    return average_flips(passes, size=size)


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (4, 6), (1, 1)])
def test_resize_is_bilinear_between_pixel_centres(size: tuple[int, int]) -> None:
    maps = torch.rand(2, 3, 4, 6)
    for got, one in zip(resize(maps, size), maps):
        np.testing.assert_allclose(got, oracle.resize(one.numpy(), *size), atol=1e-6)


def test_resize_to_the_same_size_changes_nothing() -> None:
    maps = torch.rand(1, 2, 4, 6)
    assert resize(maps, (4, 6)) is maps


@pytest.mark.parametrize("tag_channels", [3, 1])
def test_stages_and_flips_equal_the_loops(tag_channels: int) -> None:
    outputs = stages(1, tag_channels=tag_channels)
    mirrored = stages(2, tag_channels=tag_channels)
    maps = both(outputs, mirrored, size=(16, 24))
    for image in range(2):
        heatmaps, tags = oracle.one_scale(
            plain(outputs, image), plain(mirrored, image), FLIP, (16, 24)
        )
        np.testing.assert_allclose(maps.heatmaps[image], heatmaps, atol=1e-6)
        assert len(maps.tags) == len(tags) == 2
        for got, want in zip(maps.tags, tags):
            np.testing.assert_allclose(got[image], want, atol=1e-5)


def test_only_resolutions_in_use_count() -> None:
    outputs = stages(3)
    maps = average_stages(outputs, use_heatmaps=[False, True], use_tags=[False, False])
    assert torch.equal(maps.heatmaps, outputs[1].heatmaps) and maps.tags == []


def test_one_resolution_without_flip_is_not_changed() -> None:
    [first, _] = stages(4)
    maps = average_flips([average_stages([first], use_heatmaps=[True], use_tags=[True])])
    assert torch.equal(maps.heatmaps, first.heatmaps) and torch.equal(maps.tags[0], first.tags)


def test_a_symmetric_network_gives_the_same_for_the_mirrored_image() -> None:
    outputs = stages(5)
    mirrored = [
        StageOutput(
            None, s.heatmaps.flip(3)[:, FLIP], None if s.tags is None else s.tags.flip(3)[:, FLIP]
        )
        for s in outputs
    ]
    maps = both(outputs, mirrored)
    alone = average_stages(outputs, use_heatmaps=[True, True], use_tags=[True, False])
    torch.testing.assert_close(maps.heatmaps, alone.heatmaps)
    torch.testing.assert_close(maps.tags[1], alone.tags[0])


@pytest.mark.parametrize("tag_channels", [3, 1])
def test_the_centre_is_dropped_from_heatmaps_and_tags_of_joints(tag_channels: int) -> None:
    outputs = stages(6, tag_channels=tag_channels)
    whole = average_stages(outputs, use_heatmaps=[True, True], use_tags=[True, False])
    maps = drop_last_joint(whole)
    assert torch.equal(maps.heatmaps, whole.heatmaps[:, :2])
    assert torch.equal(maps.tags[0], whole.tags[0][:, :2])
    assert maps.tags[0].shape[1] == (2 if tag_channels == 3 else 1)


def test_scales_are_averaged_at_the_size_of_the_first() -> None:
    large = torch.rand(1, 3, 8, 12)
    small = torch.rand(1, 3, 4, 6)
    tags = [torch.rand(1, 3, 4, 6), torch.rand(1, 3, 4, 6)]
    maps = average_scales([PassMaps(large, [], {}), PassMaps(small, tags, {})])
    want = (large[0].numpy() + oracle.resize(small[0].numpy(), 8, 12)) / 2
    np.testing.assert_allclose(maps.heatmaps[0], want, atol=1e-6)
    assert maps.tags is not None and maps.tags.shape == (1, 3, 8, 12, 2)
    np.testing.assert_allclose(
        maps.tags[0, ..., 1], oracle.resize(tags[1][0].numpy(), 8, 12), atol=1e-6
    )


def test_maps_without_tags_have_none() -> None:
    assert average_scales([PassMaps(torch.rand(1, 3, 4, 6), [], {})]).tags is None


def test_no_scales() -> None:
    with pytest.raises(ValueError, match="^there are no maps to average$"):
        average_scales([])


def test_further_maps_come_from_the_highest_resolution_at_the_size_of_the_heatmaps() -> None:
    outputs = stages(10)
    low, high = torch.rand(2, 2, 1, 4, 6)
    outputs[0] = outputs[0]._replace(extra={"masks": low, "widths": low})
    outputs[1] = outputs[1]._replace(extra={"masks": high, "unused": high})
    rules = {"masks": MapRule(), "widths": MapRule(), "absent": MapRule()}
    maps = average_stages(outputs, use_heatmaps=[True, True], map_rules=rules)
    assert set(maps.extra) == {"masks", "widths"}
    assert torch.equal(maps.extra["masks"], resize(high, (8, 12)))
    assert torch.equal(maps.extra["widths"], resize(low, (8, 12)))


def test_further_maps_are_mirrored_dropped_and_averaged_by_their_rules() -> None:
    rules = {"offsets": MapRule(signs=(-1, 1), swap_joints=True)}
    heatmaps = torch.zeros(1, 3, 4, 6)
    offsets = torch.rand(1, 6, 4, 6)
    first = PassMaps(heatmaps, [], {"offsets": offsets})
    second = mirror_back(first, FLIP, rules)
    assert torch.equal(second.extra["offsets"], rules["offsets"].mirror(offsets, FLIP))
    dropped = [drop_last_joint(maps, rules) for maps in (first, second)]
    assert dropped[0].extra["offsets"].shape[1] == 4
    mean = average_flips(dropped)
    want = (offsets + second.extra["offsets"])[:, :4] / 2
    torch.testing.assert_close(mean.extra["offsets"], want)
    without = PassMaps(torch.zeros(1, 2, 8, 12), [], {})
    maps = average_scales([without, mean, mean])
    torch.testing.assert_close(maps.extra["offsets"], resize(want, (8, 12)))


def test_images_of_a_batch_are_independent() -> None:
    def cut(outputs: list[StageOutput], image: int) -> list[StageOutput]:
        return [
            StageOutput(
                None,
                s.heatmaps[image : image + 1],
                None if s.tags is None else s.tags[image : image + 1],
            )
            for s in outputs
        ]

    outputs = stages(8, batch=3)
    mirrored = stages(9, batch=3)
    together = average_scales([both(outputs, mirrored, size=(16, 24))])
    for image in range(3):
        alone = average_scales([both(cut(outputs, image), cut(mirrored, image), size=(16, 24))])
        assert torch.equal(alone.heatmaps[0], together.heatmaps[image])
        assert torch.equal(alone.tags[0], together.tags[image])
