"""The search for missing joints in a batch of maps on any device, with tensor operations; see
`refine`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from swahr.codec.peaks_batch import quarter_offsets
from swahr.codec.refine import Indices
from swahr.codec.tile_bounds import TILE, Floats

PIXELS_AT_ONCE = 1 << 25  # of all joints together, in the batched search
FIRST_TILES = 64  # of each joint, in the batched search's first pass


def find_missing_batch(
    heatmaps: torch.Tensor, tags: torch.Tensor, images: Indices, joints: Indices, means: Floats
) -> Floats:
    """Like find_missing for joints (n,) in images (n,) of a batch (B, K, H, W) and (B, K or 1, H,
    W, T) on any device.

    Each joint is searched in the tiles with the highest bounds, and in all tiles if another tile
    could have a higher value.
    """
    tiles = _TileStack(heatmaps, tags)
    rows = torch.from_numpy(images * heatmaps.shape[1] + joints)
    mean_tags = torch.from_numpy(means)
    found = tiles.search(rows, mean_tags, FIRST_TILES)
    unsure = np.flatnonzero(found[:, 3] == 0)
    if len(unsure):
        found[unsure] = tiles.search(rows[unsure], mean_tags[unsure], tiles.count)
    return found[:, :3]


class _TileStack:
    """The maps of a batch, cut into tiles of 256 pixels, with the bounds of each tile."""

    def __init__(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> None:
        self.maps = heatmaps.flatten(0, 1)
        self.joints_per_tag_map = heatmaps.shape[1] // tags.shape[1]
        # Pixels outside the map have no value that could be the best.
        self.heat = _cut(self.maps[..., None], -torch.inf)[..., 0]
        self.tags = _cut(tags.flatten(0, 1), 0)
        self.heat_max = self.heat.amax(2)
        self.tag_min = self.tags.amin(2)
        self.tag_max = self.tags.amax(2)
        self.count = self.heat.shape[1]

    def search(self, rows: torch.Tensor, mean_tags: torch.Tensor, most: int) -> Floats:
        """The best pixels of maps (n,) for mean tags (n, T), in the `most` tiles whose bounds are
        highest.

        On the host, (n, 4): x, y, the heatmap's value, and 0 where another tile's bound is not
        below the value found.
        """
        most = min(most, self.count)
        step = max(1, PIXELS_AT_ONCE // (most * TILE * TILE))
        device = self.maps.device
        chunks = zip(rows.to(device).split(step), mean_tags.to(device).split(step), strict=True)
        found = torch.cat([self._search(*chunk, most) for chunk in chunks])
        return found.cpu().numpy()

    def _search(self, rows: torch.Tensor, mean_tags: torch.Tensor, most: int) -> torch.Tensor:
        height, width = self.maps.shape[1:]
        tag_rows = rows // self.joints_per_tag_map
        mean_tags = mean_tags[:, None]
        nearest = mean_tags.maximum(self.tag_min[tag_rows]).minimum(self.tag_max[tag_rows])
        all_bounds = _value(self.heat_max[rows], nearest, mean_tags)
        bounds, order = all_bounds.topk(min(most + 1, self.count), 1)
        chosen = order[:, :most]  # (n, most)
        heat = self.heat[rows[:, None], chosen]
        tags = self.tags[tag_rows[:, None], chosen]
        values = _value(heat, tags, mean_tags[:, None])
        best = values.amax((1, 2))
        # Of equal values, the first pixel in row-major order counts.
        inside = torch.arange(TILE * TILE, device=rows.device)
        columns = -(-width // TILE)
        y = chosen[..., None] // columns * TILE + inside // TILE
        x = chosen[..., None] % columns * TILE + inside % TILE
        outside = height * width
        candidates = (values == best[:, None, None]) & (y < height) & (x < width)
        pixels = torch.where(candidates, y * width + x, outside).amin((1, 2))
        pixels = pixels.where(pixels < outside, 0)
        is_best = bounds[:, most] < best if most < self.count else torch.ones_like(best)
        centers = torch.stack([pixels % width, pixels // width], 1) + 0.5
        points = centers + quarter_offsets(self.maps, rows, pixels)
        heat_at_pixels = self.maps.flatten(1)[rows, pixels, None]
        return torch.cat([points, heat_at_pixels, is_best[:, None]], 1)


def _value(heat: torch.Tensor, tags: torch.Tensor, mean_tags: torch.Tensor) -> torch.Tensor:
    """heat (...) - round(|tags - mean_tags|) for tags (..., T), with squares added one after
    another, so that roundings are those of NumPy.
    """
    total = torch.zeros_like(heat)
    for t in range(tags.shape[-1]):
        difference = tags[..., t] - mean_tags[..., t]
        total = total + difference * difference
    return heat - total.sqrt().round()


def _cut(maps: torch.Tensor, padding: float) -> torch.Tensor:
    """Maps (R, H, W, T) -> (R, tiles, pixels of a tile, T), padded to whole tiles."""
    rows, height, width, values = maps.shape
    maps = F.pad(maps, (0, 0, 0, -width % TILE, 0, -height % TILE), value=padding)
    grid = maps.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE))  # (R, rows, 16, columns, 16, T)
    return grid.transpose(2, 3).reshape(rows, -1, TILE * TILE, values)
