"""A person's missing joints: where the heatmap is high and the tag is the person's.

B. Cheng et al., HigherHRNet, 2020 (code): each missing joint takes the pixel that maximises heatmap
- round(distance of its tag to the person's mean tag). The published code builds that map for every
joint of every person. Here only missing joints are searched, and since the value exceeds neither
the heatmap nor, in a tile whose tags are all far away, the heatmap less that distance, few tiles
need to be read; the pixel found is the same one, rounding included.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from swahr.codec.peaks import quarter_offset, quarter_offsets
from swahr.codec.tile_bounds import TILE, Floats, TileBounds
from swahr.jit import kernel

HALF = np.float32(0.5)
PIXELS_AT_ONCE = 1 << 25  # of all joints together, in the batched search
TILES_AT_FIRST = 64

Indices = NDArray[np.int64]


def find_missing(
    heatmaps: Floats,
    tags: Floats,
    heat: TileBounds,
    tag_range: TileBounds,
    joints: Indices,
    means: Floats,
) -> Floats:
    """Where the missing joints (n,) of people with mean tags (n, T) are: (n, 3) x, y and the
    heatmap's value there.

    heatmaps (K, H, W), tags (K or 1, H, W, T), contiguous, with their tiles' ranges. x and y are
    map pixels. Where the value is not positive, the joint is not in the image.
    """
    found = np.empty((len(joints), 3), np.float32)
    joints = np.ascontiguousarray(joints)  # other strides would be compiled for again
    _find_missing(heatmaps, tags, heat.max, tag_range.min, tag_range.max, joints, means, found)
    return found


@kernel
def _find_missing(heatmaps, tags, heat_high, tag_low, tag_high, joints, means, found):  # type: ignore[no-untyped-def]
    width = heatmaps.shape[2]
    bounds = np.empty(heat_high.shape[1:3], np.float32)
    for n in range(joints.shape[0]):
        k = joints[n]
        channel = k if tags.shape[0] > 1 else 0
        heatmap = heatmaps[k]
        tag_map = tags[channel]
        mean = means[n]
        first = _bound_tiles(heat_high[k], tag_low[channel], tag_high[channel], mean, bounds)
        best, pixel = _search_tile(
            heatmap, tag_map, mean, first, bounds.shape[1], np.float32(-np.inf), 0
        )
        for tile in range(bounds.size):
            if bounds.flat[tile] >= best and tile != first:
                best, pixel = _search_tile(
                    heatmap, tag_map, mean, tile, bounds.shape[1], best, pixel
                )
        y = pixel // width
        x = pixel % width
        right, below = quarter_offset(heatmap, y, x)
        found[n, 0], found[n, 1], found[n, 2] = x + HALF + right, y + HALF + below, heatmap[y, x]


@kernel
def _bound_tiles(heat_high, tag_low, tag_high, mean, bounds) -> int:  # type: ignore[no-untyped-def]
    """Fill bounds with what no pixel of each tile can exceed; the number of the most promising
    tile.

    The nearest a tile's tags can be goes through the same float32 operations as a pixel's tag, and
    each keeps order.
    """
    rows, columns = bounds.shape
    first = 0
    for ty in range(rows):
        for tx in range(columns):
            total = np.float32(0)
            for t in range(mean.shape[0]):
                nearest = min(max(mean[t], tag_low[ty, tx, t]), tag_high[ty, tx, t])
                total += (nearest - mean[t]) * (nearest - mean[t])
            bounds[ty, tx] = heat_high[ty, tx, 0] - np.rint(np.sqrt(total))
            if bounds[ty, tx] > bounds[first // columns, first % columns]:
                first = ty * columns + tx
    return first


@kernel
def _search_tile(heatmap, tags, mean, tile, columns, best, pixel):  # type: ignore[no-untyped-def]
    """The best value so far and its pixel, among equals the first in row-major order, after one
    more tile.
    """
    height, width = heatmap.shape
    top = tile // columns * TILE
    left = tile % columns * TILE
    for y in range(top, min(top + TILE, height)):
        for x in range(left, min(left + TILE, width)):
            value = heatmap[y, x]
            if value < best:
                continue
            total = np.float32(0)
            for t in range(mean.shape[0]):
                difference = tags[y, x, t] - mean[t]
                total += difference * difference
            value -= np.rint(np.sqrt(total))
            if value > best or (value == best and y * width + x < pixel):
                best = value
                pixel = y * width + x
    return best, pixel


def find_missing_batch(
    heatmaps: torch.Tensor, tags: torch.Tensor, images: Indices, joints: Indices, means: Floats
) -> Floats:
    """The same for joints (n,) in images (n,) of a batch (B, K, H, W) and (B, K or 1, H, W, T) on
    any device.

    Each joint is looked for in its most promising tiles; those few to which another tile could be
    better get them all.
    """
    tiles = _TileStack(heatmaps, tags)
    rows = torch.from_numpy(images * heatmaps.shape[1] + joints)
    centers = torch.from_numpy(means)
    found = tiles.search(rows, centers, TILES_AT_FIRST)
    unsure = np.flatnonzero(found[:, 3] == 0)
    if len(unsure):
        found[unsure] = tiles.search(rows[unsure], centers[unsure], tiles.count)
    return found[:, :3]


class _TileStack:
    """The maps of a batch cut into tiles of 256 pixels, and what the search needs to know of each
    tile.
    """

    def __init__(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> None:
        self.maps = heatmaps.flatten(0, 1)
        self.shared = heatmaps.shape[1] // tags.shape[1]
        self.heat = _cut(self.maps[..., None], -torch.inf)[
            ..., 0
        ]  # nothing is found beyond the edge
        self.tags = _cut(tags.flatten(0, 1), 0)
        self.high = self.heat.amax(2)
        self.tag_low = self.tags.amin(2)
        self.tag_high = self.tags.amax(2)
        self.count = self.heat.shape[1]

    def search(self, rows: torch.Tensor, centers: torch.Tensor, most: int) -> Floats:
        """Where in maps (n,) the best pixels for tags (n, T) are, in the `most` tiles whose bounds
        are highest.

        On the host, (n, 4): x, y, the heatmap's value, and 0 where another tile's bound is not
        below the value found.
        """
        step = max(1, PIXELS_AT_ONCE // (min(most, self.count) * TILE * TILE))
        parts = zip(
            rows.to(self.maps.device).split(step),
            centers.to(self.maps.device).split(step),
            strict=True,
        )
        return (
            torch.cat([self._search(*part, min(most, self.count)) for part in parts]).cpu().numpy()
        )

    def _search(self, rows: torch.Tensor, centers: torch.Tensor, most: int) -> torch.Tensor:
        height, width = self.maps.shape[1:]
        tag_rows = rows // self.shared
        centers = centers[:, None]
        nearest = centers.maximum(self.tag_low[tag_rows]).minimum(self.tag_high[tag_rows])
        bounds, order = _value(self.high[rows], nearest, centers).topk(min(most + 1, self.count), 1)
        chosen = order[:, :most]  # (n, most)
        values = _value(
            self.heat[rows[:, None], chosen], self.tags[tag_rows[:, None], chosen], centers[:, None]
        )
        best = values.amax((1, 2))
        # Among equals the first pixel in row-major order.
        inside = torch.arange(TILE * TILE, device=rows.device)
        columns = -(-width // TILE)
        y = chosen[..., None] // columns * TILE + inside // TILE
        x = chosen[..., None] % columns * TILE + inside % TILE
        outside = height * width
        candidates = (values == best[:, None, None]) & (y < height) & (x < width)
        pixels = torch.where(candidates, y * width + x, outside).amin((1, 2))
        pixels = pixels.where(pixels < outside, 0)
        sure = bounds[:, most] < best if most < self.count else torch.ones_like(best)
        places = (
            torch.stack([pixels % width, pixels // width], 1)
            + 0.5
            + quarter_offsets(self.maps, rows, pixels)
        )
        return torch.cat([places, self.maps.flatten(1)[rows, pixels, None], sure[:, None]], 1)


def _value(heat: torch.Tensor, tags: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """heat (...) - round(|tags - centers|) for tags (..., T): one square added after another, as
    NumPy rounds them.
    """
    total = torch.zeros_like(heat)
    for t in range(tags.shape[-1]):
        difference = tags[..., t] - centers[..., t]
        total = total + difference * difference
    return heat - total.sqrt().round()


def _cut(maps: torch.Tensor, padding: float) -> torch.Tensor:
    """Maps (R, H, W, T) -> (R, tiles, pixels of a tile, T), padded to whole tiles."""
    rows, height, width, values = maps.shape
    maps = F.pad(maps, (0, 0, 0, -width % TILE, 0, -height % TILE), value=padding)
    cut = (
        maps.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).transpose(2, 3)
    )  # (R, rows, columns, 16, 16, T)
    return cut.reshape(rows, -1, TILE * TILE, values)
