"""Decoding that reads tags only where joints are: TEST.FAST_DECODE.

The rules are those of AssociativeDecoder, and so are the people, up to rounding: joints lie in the
same places unless two values differ by less than that. The order of equal peaks is the device's,
and of equal neighbours only the first is a peak, except in maps whose borders were repeated; there
rounding can decide whether a peak at the right or lower border counts once or twice. One small
table of peaks goes to the host, and one of the joints that grouping left missing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from swahr.codec.copies import HostCopy
from swahr.codec.decode import AssociativeDecoder, People
from swahr.codec.maps import on_device
from swahr.codec.peaks import peaks_of
from swahr.codec.peaks_batch import quarter_offsets, suppressed
from swahr.codec.refine import Indices
from swahr.codec.refine_batch import TileStack, search_tiles
from swahr.codec.sampled import SampledMaps, TagMaps, growth, sample, tile_weights
from swahr.codec.tile_bounds import NOT_FINITE, TILE, Floats, NonFiniteError

FIRST_TILES = 16  # of each missing joint: they are dearer than with whole maps of tags


class FastDecoder:
    """The people of SampledMaps, on any device. rules: those of the exact decoder."""

    def __init__(self, rules: AssociativeDecoder) -> None:
        self.rules = rules

    @torch.no_grad()
    def begin(self, maps: SampledMaps) -> SampledMaps:
        """The same maps with their tags scaled, and with their peaks on the way to the host, for
        which nobody waits here.
        """
        settings = self.rules.peak_settings
        maps.tags = [part._replace(maps=self.rules.scaled(part.maps)) for part in maps.tags]
        table = _peak_table(maps, settings["limit"], settings["radius"])
        maps.peaks = HostCopy(torch.where(maps.finite, table, torch.nan))
        return maps

    @torch.no_grad()
    def __call__(self, maps: SampledMaps) -> list[People]:
        """The people of each image. Raises NonFiniteError where a value is not finite."""
        if not len(maps.heatmaps):
            return []
        peaks = maps.peaks or self.begin(maps).peaks
        assert peaks is not None, "begin gives them"
        table = np.asarray(peaks.numpy(), np.float64)
        if np.isnan(table).any():
            raise NonFiniteError(NOT_FINITE)

        def search(images: Indices, joints: Indices, means: Floats) -> Floats:
            tiles = SampledTiles(maps.heatmaps, maps.tags)
            rows = images * maps.heatmaps.shape[1] + joints
            return search_tiles(tiles, rows, means, FIRST_TILES)

        found = peaks_of(table, self.rules.peak_settings["threshold"])
        return self.rules.finish(
            self.rules.group_batch(found, maps.heatmaps.shape[-1], search), maps.heatmaps
        )


def _peak_table(maps: SampledMaps, limit: int, radius: int) -> torch.Tensor:
    """The table (B, K, M, 4 + T) of peaks.Peaks, float64: pixel, score, offsets, tags.

    Two peaks lie more than the radius apart, unless they are equal. So the best of each square of
    radius + 1 pixels are all there are, and the search for the M best ones reads a fraction of the
    maps. Repeated borders have equal peaks, and every pixel of these maps is read.
    """
    heatmaps = maps.heatmaps
    batch, joints, _, width = heatmaps.shape
    peaks = suppressed(heatmaps, radius)
    if maps.repeats_borders:
        scores, pixels = _top(peaks.flatten(2), limit)
    else:
        best, indices = F.max_pool2d(peaks, radius + 1, ceil_mode=True, return_indices=True)
        scores, order = _top(best.flatten(2), limit)
        pixels = indices.flatten(2).gather(2, order)
    rows = torch.arange(batch * joints, device=heatmaps.device).view(batch, joints, 1)
    y = pixels // width
    x = pixels % width
    tags = [sample(part, _tag_rows(part, rows, joints), y, x) for part in maps.tags]
    offsets = quarter_offsets(heatmaps.flatten(0, 1), rows, pixels)
    # Float64, as the pixels of large maps are more than float32 can tell apart.
    return torch.cat([pixels[..., None].double(), scores[..., None], offsets, *tags], 3)


def _top(candidates: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best M of candidates (B, K, n), at most all: scores and indices, (B, K, M) each."""
    scores, order = candidates.topk(min(limit, candidates.shape[2]), dim=2)
    return scores, order


def _tag_rows(part: TagMaps, rows: torch.Tensor, joints: int) -> torch.Tensor:
    """The rows of tag maps (B K or B) that belong to rows of heatmaps (B K)."""
    return rows if part.maps.shape[1] == joints else rows // joints


class SampledTiles(TileStack):
    """The tiles of sampled maps: their tags are made from the small maps, for chosen tiles only."""

    def __init__(self, heatmaps: torch.Tensor, tags: list[TagMaps]) -> None:
        super().__init__(heatmaps)
        self.joints = heatmaps.shape[1]
        self.tags = [_growing(part, self.joints) for part in tags]
        # The pixels that a tile is made of hold its values, so their range holds its range.
        self.tag_min = [-_pool_tiles(-part.maps, part.step) for part in self.tags]
        self.tag_max = [_pool_tiles(part.maps, part.step) for part in self.tags]

    def tag_bounds(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own = [self._own(part, rows) for part in self.tags]
        least = torch.cat([bound[rows] for bound, rows in zip(self.tag_min, own)], -1)
        return least, torch.cat([bound[rows] for bound, rows in zip(self.tag_max, own)], -1)

    def tile_tags(
        self, rows: torch.Tensor, chosen: torch.Tensor, pixels: torch.Tensor
    ) -> torch.Tensor:
        parts = [_resized_tiles(part, self._own(part, rows), chosen) for part in self.tags]
        return torch.cat(parts, -1)

    def _own(self, part: GrowingTags, rows: torch.Tensor) -> torch.Tensor:
        return rows // self.joints if part.shared else rows


class GrowingTags(NamedTuple):
    """Tag maps whose tiles are made of whole pixels.

    maps: (B K or B, T, h, w). ratios: see sampled.growth. step: pixels along a side of a tile.
    columns: tiles in a row. shared: whether the joints of an image share them.
    """

    maps: torch.Tensor
    ratios: tuple[int, ...]
    step: int
    columns: int
    shared: bool


def _growing(part: TagMaps, joints: int) -> GrowingTags:
    """The same tags; resized as a whole where tiles would not be made of whole pixels."""
    shared = part.maps.shape[1] != joints
    maps = part.maps.flatten(0, 1)
    ratios = growth(part.sizes)
    if ratios is None:
        ratios = ()
        for size in part.sizes[1:]:
            maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    columns = -(-part.sizes[-1][1] // TILE)
    step = TILE // math.prod(ratios)
    return GrowingTags(maps, ratios, step, columns, shared)


def _pool_tiles(maps: torch.Tensor, step: int) -> torch.Tensor:
    """(R, tiles, T): the largest of the pixels that a tile's tags are made of."""
    pooled = F.max_pool2d(maps, step + 2, step, padding=1, ceil_mode=True)
    return pooled.flatten(2).transpose(1, 2)


def _resized_tiles(part: GrowingTags, rows: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The tags (n, most, 256, T) of chosen tiles (n, most) of maps[rows]."""
    height, width = part.maps.shape[2:]
    offsets = on_device(tuple(range(-1, part.step + 1)), rows.device)
    y = (chosen[..., None] // part.columns * part.step + offsets).clamp(0, height - 1)
    x = (chosen[..., None] % part.columns * part.step + offsets).clamp(0, width - 1)
    near = part.maps[rows[:, None, None, None], :, y[..., :, None], x[..., None, :]]
    weights = tile_weights(part.ratios, rows.device)
    tiles = weights @ near.movedim(-1, 2) @ weights.T  # (n, most, T, 16, 16)
    return tiles.flatten(3).transpose(2, 3)
