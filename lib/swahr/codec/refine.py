"""The search for a person's missing joints: where the heatmap is high and the tag is near the
person's.

B. Cheng et al., HigherHRNet, 2020 (code): each missing joint takes the pixel that maximises heatmap
- round(distance of its tag to the person's mean tag). The published code builds that map for every
joint of every person. Here only missing joints are searched. The value cannot exceed the tile's
largest heatmap value less the smallest distance of its tags, so that only a few tiles are read. The
pixel found is the same, rounding included.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from swahr.codec.copies import to_device
from swahr.codec.peaks import quarter_offset, quarter_offsets
from swahr.codec.tile_bounds import TILE, Floats, TileBounds
from swahr.jit import kernel

HALF = np.float32(0.5)
PIXELS_AT_ONCE = 1 << 25  # of all joints together, in the batched search
FIRST_TILES = 64  # of each joint, in the batched search's first pass

Indices = NDArray[np.int64]
Doubles = NDArray[np.float64]


def find_missing(
    heatmaps: Floats,
    tags: Floats,
    heatmap_bounds: TileBounds,
    tag_bounds: TileBounds,
    joints: Indices,
    means: Floats,
) -> Floats:
    """The positions of the missing joints (n,) of people with mean tags (n, T) -> (n, 3), x and y
    in map pixels and the heatmap's value. If the value is not positive, the joint is not found.

    heatmaps: (K, H, W) and tags: (K or 1, H, W, T), contiguous, with the bounds of their tiles.
    """
    found = np.empty((len(joints), 3), np.float32)
    joints = np.ascontiguousarray(joints)  # the kernel would be compiled again for other strides
    _find_missing(
        heatmaps, tags, heatmap_bounds.max, tag_bounds.min, tag_bounds.max, joints, means, found
    )
    return found


@kernel
def _find_missing(heatmaps, tags, heatmap_max, tag_min, tag_max, joints, means, found):  # type: ignore[no-untyped-def]
    width = heatmaps.shape[2]
    bounds = np.empty(heatmap_max.shape[1:3], np.float32)
    for n in range(joints.shape[0]):
        k = joints[n]
        channel = k if tags.shape[0] > 1 else 0
        heatmap = heatmaps[k]
        tag_map = tags[channel]
        mean = means[n]
        first = _bound_tiles(heatmap_max[k], tag_min[channel], tag_max[channel], mean, bounds)
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
        found[n, 0] = x + HALF + right
        found[n, 1] = y + HALF + below
        found[n, 2] = heatmap[y, x]


@kernel
def _bound_tiles(heatmap_max, tag_min, tag_max, mean, bounds) -> int:  # type: ignore[no-untyped-def]
    """Write an upper bound of each tile's values to bounds; the index of the highest one.

    The nearest possible tag of a tile goes through the same float32 operations as a pixel's tag,
    and each of them is monotonic, so that the bound holds with rounding too.
    """
    rows, columns = bounds.shape
    first = 0
    for ty in range(rows):
        for tx in range(columns):
            total = np.float32(0)
            for t in range(mean.shape[0]):
                nearest = min(max(mean[t], tag_min[ty, tx, t]), tag_max[ty, tx, t])
                total += (nearest - mean[t]) * (nearest - mean[t])
            bounds[ty, tx] = heatmap_max[ty, tx, 0] - np.rint(np.sqrt(total))
            if bounds[ty, tx] > bounds[first // columns, first % columns]:
                first = ty * columns + tx
    return first


@kernel
def _search_tile(heatmap, tags, mean, tile, columns, best, pixel):  # type: ignore[no-untyped-def]
    """The best value and its pixel after one more tile; of equal values, the first pixel in
    row-major order.
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
    """Like find_missing for joints (n,) in images (n,) of a batch (B, K, H, W) and (B, K or 1, H,
    W, T) on any device.

    Each joint is searched in the tiles with the highest bounds, and in all tiles if another tile
    could have a higher value.
    """
    rows = images * heatmaps.shape[1] + joints
    return search_tiles(WholeTiles(heatmaps, tags), rows, means, FIRST_TILES)


def search_tiles(tiles: TileStack, rows: Indices, means: Floats, most: int) -> Floats:
    """The positions (n, 3) of missing joints: x, y and the heatmap's value.

    rows: (n,), indices of the heatmaps. means: (n, T). most: tiles in which a joint is searched
    first; more are read only for joints that may be better in another tile.
    """
    searched = np.column_stack([rows, means])
    found = tiles.search(searched, most)
    unsure = np.flatnonzero(found[:, 3] == 0)
    while len(unsure) and most < tiles.count:
        most = 8 * most if most < FIRST_TILES else tiles.count
        found[unsure] = tiles.search(searched[unsure], most)
        unsure = unsure[found[unsure, 3] == 0]
    return found[:, :3]


class TileStack:
    """The maps of a batch, with the bounds of their tiles of 256 pixels."""

    def __init__(self, heatmaps: torch.Tensor) -> None:
        self.maps = heatmaps.flatten(0, 1)
        self.heat_max = tile_max(self.maps[:, None])[..., 0]
        self.count = self.heat_max.shape[1]

    def tag_bounds(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The least and the largest tags (n, tiles, T) in the tiles of joints (n,)."""
        raise NotImplementedError

    def tile_tags(
        self, rows: torch.Tensor, chosen: torch.Tensor, pixels: torch.Tensor
    ) -> torch.Tensor:
        """The tags (n, most, 256, T) in chosen tiles (n, most) of joints (n,), whose pixels of the
        map are (n, most, 256).
        """
        raise NotImplementedError

    def search(self, searched: Doubles, most: int) -> Floats:
        """The best pixels for n joints in the `most` tiles whose bounds are highest.

        searched: (n, 1 + T), the index of a joint's map and the mean tags of its person. On the
        host, (n, 4): x, y, the heatmap's value, and 0 where another tile's bound is not below the
        value found.
        """
        most = min(most, self.count)
        step = max(1, PIXELS_AT_ONCE // (most * TILE * TILE))
        chunks = to_device(searched, self.maps.device).split(step)
        found = [self._search(chunk[:, 0].long(), chunk[:, 1:].float(), most) for chunk in chunks]
        return torch.cat(found).cpu().numpy()

    def _search(self, rows: torch.Tensor, mean_tags: torch.Tensor, most: int) -> torch.Tensor:
        height, width = self.maps.shape[1:]
        mean_tags = mean_tags[:, None]
        least, largest = self.tag_bounds(rows)
        nearest = mean_tags.maximum(least).minimum(largest)
        all_bounds = _value(self.heat_max[rows], nearest, mean_tags)
        bounds, order = all_bounds.topk(min(most + 1, self.count), 1)
        chosen = order[:, :most]  # (n, most)
        # Pixels of a tile that are outside the map have no value that could be the best.
        outside = height * width
        pixels = tile_pixels(height, width, rows.device)[chosen]  # (n, most, 256)
        in_map = pixels < outside
        places = pixels.clamp(max=outside - 1)
        heat = self.maps.flatten(1)[rows[:, None, None], places]
        tags = self.tile_tags(rows, chosen, places)
        values = _value(heat, tags, mean_tags[:, None]).where(in_map, -torch.inf)
        best = values.amax((1, 2))
        # Of equal values, the first pixel in row-major order counts.
        pixels = torch.where(values == best[:, None, None], pixels, outside).amin((1, 2))
        pixels = pixels.where(pixels < outside, 0)
        is_best = bounds[:, most] < best if most < self.count else torch.ones_like(best)
        centers = torch.stack([pixels % width, pixels // width], 1) + 0.5
        points = centers + quarter_offsets(self.maps, rows, pixels)
        heat_at_pixels = self.maps.flatten(1)[rows, pixels, None]
        return torch.cat([points, heat_at_pixels, is_best[:, None]], 1)


class WholeTiles(TileStack):
    """The tiles of whole maps (B, K, H, W) and (B, K or 1, H, W, T)."""

    def __init__(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> None:
        super().__init__(heatmaps)
        self.tags = tags.flatten(0, 1)
        self.joints_per_tag_map = heatmaps.shape[1] // tags.shape[1]
        planes = self.tags.permute(0, 3, 1, 2)  # in the channels_last layout, so without a copy
        self.tag_min = -tile_max(-planes)
        self.tag_max = tile_max(planes)

    def tag_bounds(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own = rows // self.joints_per_tag_map
        return self.tag_min[own], self.tag_max[own]

    def tile_tags(
        self, rows: torch.Tensor, chosen: torch.Tensor, pixels: torch.Tensor
    ) -> torch.Tensor:
        own = rows // self.joints_per_tag_map
        return self.tags.flatten(1, 2)[own[:, None, None], pixels]


@lru_cache(maxsize=32)
def tile_pixels(height: int, width: int, device: torch.device) -> torch.Tensor:
    """(tiles, 256): the pixels of each tile, y * width + x; height * width for those outside."""
    rows = -(-height // TILE)
    columns = -(-width // TILE)
    pixels = np.full((rows * TILE, columns * TILE), height * width)
    pixels[:height, :width] = np.arange(height * width).reshape(height, width)
    tiles = pixels.reshape(rows, TILE, columns, TILE).swapaxes(1, 2)
    with torch.inference_mode(False):
        return torch.from_numpy(tiles.reshape(rows * columns, TILE * TILE)).to(device)


def _value(heat: torch.Tensor, tags: torch.Tensor, mean_tags: torch.Tensor) -> torch.Tensor:
    """heat (...) - round(|tags - mean_tags|) for tags (..., T), with squares added one after
    another, so that roundings are those of NumPy.
    """
    total = torch.zeros_like(heat)
    for t in range(tags.shape[-1]):
        difference = tags[..., t] - mean_tags[..., t]
        total = total + difference * difference
    return heat - total.sqrt().round()


def tile_max(planes: torch.Tensor) -> torch.Tensor:
    """Maps (R, T, H, W) -> (R, tiles, T), the largest value of each tile, in one pass."""
    pooled = F.max_pool2d(planes, TILE, TILE, ceil_mode=True)
    return pooled.flatten(2).transpose(1, 2)
