"""The search for missing joints in a batch of maps on any device, with tensor operations; see
`refine`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from swahr.codec.copies import to_device
from swahr.codec.peaks_batch import quarter_offsets
from swahr.codec.refine import Indices
from swahr.codec.tile_bounds import TILE, Floats

PIXELS_AT_ONCE = 1 << 25  # of all joints together, in the batched search
FIRST_TILES = 64  # of each joint, in the batched search's first pass

Doubles = NDArray[np.float64]


def find_missing_batch(
    heatmaps: torch.Tensor, tags: torch.Tensor, images: Indices, joints: Indices, means: Floats
) -> Floats:
    """Like find_missing for joints (n,) in images (n,) of a batch (B, K, H, W) and (B, K or 1, H,
    W, T) on any device.

    means: (n, T), the mean tags of the joints' people. Returns (n, 3): x, y and the heatmap's
    value. Each joint is searched in the tiles with the highest bounds, and in all tiles if another
    tile could have a higher value.
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
