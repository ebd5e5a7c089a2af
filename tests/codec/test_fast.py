"""Decoding that samples tags finds the people of whole maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from swahr.codec import fast
from swahr.codec.decode import AssociativeDecoder, People
from swahr.codec.fast import FastDecoder, SampledTiles
from swahr.codec.maps import Maps
from swahr.codec.refine_batch import WholeTiles
from swahr.codec.sampled import SampledMaps, TagMaps, growth, repeats_borders, sample
from swahr.codec.tile_bounds import NonFiniteError
from tests.oracles.crowds import crowd

Sizes = tuple[tuple[int, int], ...]
DOUBLED: Sizes = ((48, 64), (96, 128))
TWICE: Sizes = ((24, 32), (48, 64), (96, 128))
ODD: Sizes = ((40, 52), (96, 128))
SAME: Sizes = ((96, 128),)


def small_tags(sizes: Sizes, channels: int, people: int = 5) -> list[TagMaps]:
    """Two tag maps of one resolution and one of another, of two images, whose sizes are small."""
    _, tags = crowd(people, sizes[0], channels, tag_maps=3)
    maps = torch.cat([tags, tags.flip(3)]).movedim(-1, 2)
    return [TagMaps(maps[:, :, :2], sizes), TagMaps(maps[:, :, 2:].contiguous(), sizes)]


def whole(parts: list[TagMaps]) -> torch.Tensor:
    """The same tags, resized as a whole: (B, K or 1, H, W, T)."""
    stack = []
    for part in parts:
        maps = part.maps.flatten(1, 2)
        for size in part.sizes[1:]:
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        stack.append(maps.unflatten(1, part.maps.shape[1:3]).movedim(2, -1))
    return torch.cat(stack, -1)


@pytest.mark.parametrize("sizes", [DOUBLED, TWICE, ODD, SAME])
def test_sampled_tags_are_those_of_resized_maps(sizes: Sizes) -> None:
    [part, _] = small_tags(sizes, channels=3)
    resized = whole([part]).flatten(0, 1)
    rows, y, x = torch.meshgrid(*map(torch.arange, (6, 96, 128)), indexing="ij")
    torch.testing.assert_close(sample(part, rows, y, x), resized, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [
        (DOUBLED, (2,)),
        (TWICE, (2, 2)),
        (SAME, ()),
        (ODD, None),
        (((2, 2), (64, 64)), None),
        (((4, 4), (8, 16)), None),
    ],
)
def test_how_maps_grow(sizes: Sizes, ratios: tuple[int, ...] | None) -> None:
    assert growth(sizes) == ratios


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sizes", [DOUBLED, TWICE, ODD, SAME])
def test_tiles_are_those_of_resized_maps(sizes: Sizes, shared: bool) -> None:
    heatmaps = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    parts = small_tags(sizes, channels=1 if shared else 3)
    tiles = SampledTiles(heatmaps, parts)
    expected = WholeTiles(heatmaps, whole(parts))
    rows = torch.arange(6)
    chosen = torch.arange(48).expand(6, -1)
    inside = torch.arange(256)
    y = chosen[..., None] // 8 * 16 + inside // 16
    x = chosen[..., None] % 8 * 16 + inside % 16
    pixels = y * 128 + x
    got = tiles.tile_tags(rows, chosen, pixels)
    torch.testing.assert_close(got, expected.tile_tags(rows, chosen, pixels), rtol=1e-4, atol=1e-4)
    least, largest = tiles.tag_bounds(rows)
    want = expected.tag_bounds(rows)
    assert (least <= want[0] + 1e-4).all() and (largest >= want[1] - 1e-4).all()
    assert (largest - least).mean() < 2 * (want[1] - want[0]).mean() + 0.1


def same_people(got: list[People], want: list[People]) -> None:
    for found, expected in zip(got, want, strict=True):
        assert found.keypoints.shape == expected.keypoints.shape
        np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-4)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        np.testing.assert_allclose(found.tags, expected.tags, atol=1e-4)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"refine": False},
        {"adjust": False},
        {"subpixel": True},
        {"max_people": 3},
        {"tag_scale": 0.3},
    ],
)
@pytest.mark.parametrize("people", [0, 1, 5, 20])
@pytest.mark.parametrize("sizes", [DOUBLED, TWICE])
def test_the_people_are_those_of_whole_maps(sizes: Sizes, people: int, rules: dict) -> None:
    heatmaps, _ = crowd(people, (96, 128), 6)
    heatmaps = torch.cat([heatmaps, heatmaps.flip(3)])
    parts = small_tags(sizes, 6, people)
    exact = AssociativeDecoder(grouping_order=range(6), **rules)
    want = exact(Maps(heatmaps, whole(parts)))
    got = FastDecoder(exact)(SampledMaps(heatmaps, parts, torch.tensor(True)))
    same_people(got, want)


def test_more_tiles_are_searched_where_the_first_may_miss_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heatmaps, _ = crowd(5, (96, 128), 6)
    parts = [part._replace(maps=part.maps[:1]) for part in small_tags(DOUBLED, 6)]
    exact = AssociativeDecoder(grouping_order=range(6))
    want = exact(Maps(heatmaps, whole(parts)))
    monkeypatch.setattr(fast, "FIRST_TILES", 1)
    same_people(FastDecoder(exact)(SampledMaps(heatmaps, parts, torch.tensor(True))), want)


@pytest.mark.parametrize("times", [3, 4, 8])
def test_tags_of_repeated_borders_are_equal(times: int) -> None:
    """As those of neighbouring peaks there, so that both are of one person."""
    maps = torch.rand(1, 1, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    part = TagMaps(maps, ((5, 7), (5 * times, 7 * times)))
    rows, y, x = torch.meshgrid(torch.arange(1), *map(torch.arange, part.sizes[1]), indexing="ij")
    tags = sample(part, rows, y, x)[0, ..., 0]
    for side in (tags, tags.flip(0), tags.T, tags.T.flip(0)):
        assert torch.equal(side[0], side[1])


@pytest.mark.parametrize(
    ("after", "repeats"), [((10, 14), False), ((14, 20), False), ((15, 21), True), ((20, 28), True)]
)
def test_resizing_to_three_times_the_size_repeats_borders(
    after: tuple[int, int], repeats: bool
) -> None:
    maps = torch.arange(1.0, 36).view(1, 1, 5, 7)
    grown = F.interpolate(maps, size=after, mode="bilinear", align_corners=False)[0, 0]
    assert torch.allclose(grown[0], grown[1]) == torch.allclose(grown.T[0], grown.T[1]) == repeats
    assert repeats_borders((5, 7), after) == repeats


@pytest.mark.parametrize(
    "place", [(0, 8), (15, 8), (8, 0), (8, 15), (0, 0), (15, 15)], ids=lambda place: str(place)
)
def test_people_at_repeated_borders_are_those_of_whole_maps(place: tuple[int, int]) -> None:
    """A border pixel and its neighbour are both peaks there."""
    small = torch.zeros(1, 2, 16, 16)
    small[0, :, place[0], place[1]] = torch.tensor([0.5, 0.75])
    tags = torch.tensor([1, 1.25]).view(1, 2, 1, 1, 1).expand(-1, -1, -1, 16, 16)
    heatmaps = F.interpolate(small, size=(64, 64), mode="bilinear", align_corners=False)
    part = TagMaps(tags, ((16, 16), (64, 64)))
    exact = AssociativeDecoder(grouping_order=range(2))
    want = exact(Maps(heatmaps, whole([part])))
    assert len(want[0].scores) > 1
    maps = SampledMaps(heatmaps, [part], torch.tensor(True), repeats_borders=True)
    same_people(FastDecoder(exact)(maps), want)


def test_pixels_of_large_maps_are_told_apart() -> None:
    """Float32 has no odd numbers above 2^24."""
    heatmaps = torch.zeros(1, 1, 4, (1 << 22) + 8)
    last = heatmaps.shape[2] * heatmaps.shape[3] - 1
    heatmaps.flatten()[last] = 1
    tags = TagMaps(torch.zeros(1, 1, 1, 2, 2), ((2, 2), tuple(heatmaps.shape[2:])))
    decoder = FastDecoder(AssociativeDecoder(grouping_order=range(1), adjust=False, refine=False))
    [people] = decoder(SampledMaps(heatmaps, [tags], torch.tensor(True)))
    assert people.keypoints.tolist() == [[[heatmaps.shape[3] - 1, 3, 1]]] and last % 2


def test_no_images() -> None:
    decoder = FastDecoder(AssociativeDecoder(grouping_order=range(2)))
    empty = TagMaps(torch.zeros(0, 2, 1, 8, 8), ((8, 8), (16, 16)))
    assert decoder(SampledMaps(torch.zeros(0, 2, 16, 16), [empty], torch.tensor(True))) == []


def test_maps_must_be_finite() -> None:
    decoder = FastDecoder(AssociativeDecoder(grouping_order=range(2)))
    tags = TagMaps(torch.zeros(1, 2, 1, 8, 8), ((8, 8), (16, 16)))
    with pytest.raises(
        NonFiniteError, match="^heatmaps or tags of the network have non-finite values"
    ):
        decoder(SampledMaps(torch.zeros(1, 2, 16, 16), [tags], torch.tensor(False)))
