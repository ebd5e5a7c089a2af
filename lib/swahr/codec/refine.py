"""A person's missing joints: where the heatmap is high and the tag is the person's.

B. Cheng et al., HigherHRNet, 2020 (code): each missing joint takes the pixel that maximises heatmap - round(distance of its tag
to the person's mean tag). The published code builds that map for every joint of every person. Here only missing joints are
searched, and since the value exceeds neither the heatmap nor, in a tile whose tags are all far away, the heatmap less that
distance, few tiles need to be read; the pixel found is the same one, rounding included.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .jit import kernel
from .peaks import quarter_offset, quarter_offsets
from .tiles import TILE, Floats, TileRange

HALF = np.float32(0.5)
PIXELS_AT_ONCE = 1 << 25  # the batched search's limit on person-joint pairs x pixels in memory

Indices = NDArray[np.int64]


def find_missing(heatmaps: Floats, tags: Floats, heat: TileRange, tag_range: TileRange, joints: Indices, means: Floats) -> Floats:
    """Where n missing joints (n,) of people with mean tags (n, T) are: (n, 3) x, y in map pixels and the heatmap's value there.

    heatmaps (K, H, W), tags (K or 1, H, W, T), contiguous, with their tiles' ranges. Where the value is not positive, the joint
    is not in the picture.
    """
    found = np.empty((len(joints), 3), np.float32)
    _find_missing(heatmaps, tags, heat.high, tag_range.low, tag_range.high, joints, means, found)
    return found


@kernel
def _find_missing(heatmaps, tags, heat_high, tag_low, tag_high, joints, means, found):  # type: ignore[no-untyped-def]
    width = heatmaps.shape[2]
    bounds = np.empty(heat_high.shape[1:3], np.float32)
    for n in range(joints.shape[0]):
        k = joints[n]
        channel = k if tags.shape[0] > 1 else 0
        first = _bound_tiles(heat_high[k], tag_low[channel], tag_high[channel], means[n], bounds)
        best, pixel = _search_tile(heatmaps[k], tags[channel], means[n], first, bounds.shape[1], np.float32(-np.inf), 0)
        for tile in range(bounds.size):
            if bounds.flat[tile] >= best and tile != first:
                best, pixel = _search_tile(heatmaps[k], tags[channel], means[n], tile, bounds.shape[1], best, pixel)
        y, x = pixel // width, pixel % width
        right, below = quarter_offset(heatmaps[k], y, x)
        found[n, 0], found[n, 1], found[n, 2] = x + HALF + right, y + HALF + below, heatmaps[k, y, x]


@kernel
def _bound_tiles(heat_high, tag_low, tag_high, mean, bounds) -> int:  # type: ignore[no-untyped-def]
    """Fill bounds with what no pixel of each tile can exceed; the number of the most promising tile.

    The nearest value a tile's tags can have goes through the same float32 operations as a pixel's, each of which keeps order.
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
    """The best value so far and its pixel, the first in row-major order among equals, after looking through one more tile."""
    height, width = heatmap.shape
    top, left = tile // columns * TILE, tile % columns * TILE
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
                best, pixel = value, y * width + x
    return best, pixel


def find_missing_batch(heatmaps: torch.Tensor, tags: torch.Tensor, images: Indices, joints: Indices, means: Floats) -> Floats:
    """The same for joints (n,) in images (n,) of a batch (B, K, H, W) and (B, K or 1, H, W, T), in tensor operations, on any device.

    Every pixel is looked at, for as many joints at once as memory allows; one copy to the host.
    """
    batch, count, _, width = heatmaps.shape
    flat, flat_tags = heatmaps.reshape(batch * count, -1), tags.reshape(-1, heatmaps[0, 0].numel(), tags.shape[-1])
    rows = torch.from_numpy(images * count + joints).to(heatmaps.device)
    tag_rows = rows if tags.shape[1] == count else rows // count
    centers = torch.from_numpy(means).to(heatmaps.device)
    step = max(1, PIXELS_AT_ONCE // flat.shape[1])
    found = []
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        maps = flat[rows[part]]
        # One difference, square and sum after another, as NumPy rounds them.
        squares = sum(((flat_tags[..., t][tag_rows[part]] - centers[part, t, None]) ** 2 for t in range(tags.shape[-1])),
                      torch.zeros_like(maps))
        pixels = (maps - squares.sqrt_().round_()).argmax(1, keepdim=True)
        places = torch.cat([pixels % width, pixels // width], 1) + 0.5 + quarter_offsets(maps, pixels, width)[:, 0]
        found.append(torch.cat([places, maps.gather(1, pixels)], 1))
    return torch.cat(found).cpu().numpy()
