"""The search for a person's missing joints: where the heatmap is high and the tag is near the
person's.

B. Cheng et al., HigherHRNet, 2020 (code): each missing joint takes the pixel that maximises heatmap
- round(distance of its tag to the person's mean tag). The published code builds that map for every
joint of every person. Here only missing joints are searched. The value cannot exceed the tile's
largest heatmap value less the smallest distance of its tags, so that only a few tiles are read. The
pixel found is the same, rounding included. `refine_batch` does it with tensor operations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swahr.codec.peaks import quarter_offset
from swahr.codec.tile_bounds import TILE, Floats, TileBounds
from swahr.jit import kernel

HALF = np.float32(0.5)

Indices = NDArray[np.int64]


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
