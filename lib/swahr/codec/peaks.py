"""Peaks of heatmaps: non-maximum suppression by max-pooling, and the best M of each joint.

A. Newell et al., Associative Embedding, 2017; max-pooling as in B. Cheng et al., HigherHRNet, 2020. A pixel is a peak where it
equals the largest value of the window around it and exceeds the detection threshold. Equal scores come in the order in which
torch.topk gives them on the CPU, as in the published code: joints with ties, which are few, are done again by that function.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .jit import kernel
from .tiles import TILE, Floats, TileRange

# What is known of a peak, in the last dimension of one float64 array, which holds pixel numbers and float32 values exactly:
PIXEL, SCORE, OFFSET, TAGS = 0, 1, slice(2, 4), slice(4, None)


class Peaks(NamedTuple):
    """At most M peaks of each of K joints in one image, the highest first."""

    pixels: NDArray[np.int64]  # (K, M) y * W + x
    scores: Floats             # (K, M)
    offsets: Floats            # (K, M, 2) +-0.25 px in x and y, towards the higher neighbour
    tags: Floats               # (K, M, T)
    counts: NDArray[np.int64]  # (K,) how many of the M there are; what is behind them means nothing


def find_peaks(heatmaps: Floats, tags: Floats, tiles: TileRange, *, limit: int, threshold: float, reach: int) -> Peaks:
    """The peaks of heatmaps (K, H, W), with the values there of tags (K or 1, H, W, T); contiguous arrays.

    tiles: the range of heatmaps; limit: M; threshold: a peak's score exceeds it, >= 0; reach: half the window, in pixels.
    """
    joints, height, width = heatmaps.shape
    # One more than the limit shows whether the last place is tied.
    table = np.zeros((1, joints, min(limit + 1, height * width), 4 + tags.shape[-1]))
    _find_peaks(heatmaps, tiles.high, float(threshold), reach, table[0])
    channels = np.arange(joints)[:, None] if len(tags) == joints else 0
    table[0, ..., TAGS] = tags.reshape(len(tags), height * width, -1)[channels, table[0, ..., PIXEL].astype(np.int64)]
    maps = torch.from_numpy(heatmaps)[None], torch.from_numpy(tags)[None]
    return _settle_ties(table, *maps, limit, threshold, reach)[0]


def find_peaks_batch(heatmaps: torch.Tensor, tags: torch.Tensor, *, limit: int, threshold: float, reach: int) -> list[Peaks]:
    """The same for a batch (B, K, H, W) and (B, K or 1, H, W, T) on any device, in tensor operations and one copy to the host.

    Raises ValueError where a map is not finite; the check rides in the same copy.
    """
    finite = heatmaps.isfinite().all() & tags.isfinite().all()
    table = _pool(heatmaps, tags, limit + 1, reach)
    # One number that is not finite spoils the whole table, and no second copy is needed to see it.
    table = torch.where(finite, table, torch.nan).cpu().numpy()
    if np.isnan(table).any():
        raise ValueError("heatmaps or tags hold values that are not finite; the network's output must be numbers")
    return _settle_ties(table, heatmaps, tags, limit, threshold, reach)


def _pool(heatmaps: torch.Tensor, tags: torch.Tensor, limit: int, reach: int) -> torch.Tensor:
    """The rule as written: the table (B, K, M, 4 + T) of the best pixels that equal their window's maximum."""
    height, width = heatmaps.shape[2:]
    pooled = F.max_pool2d(heatmaps, 2 * reach + 1, 1, reach)
    scores, pixels = torch.where(heatmaps == pooled, heatmaps, 0).flatten(2).topk(min(limit, height * width), dim=2)
    offsets = quarter_offsets(heatmaps.flatten(2), pixels, width)
    channels = tags.flatten(2, 3).expand(-1, heatmaps.shape[1], -1, -1)
    tags_there = channels.gather(2, pixels[..., None].expand(-1, -1, -1, tags.shape[-1]))
    return torch.cat([part.double() for part in (pixels[..., None], scores[..., None], offsets, tags_there)], 3)


def _settle_ties(table: NDArray[np.float64], heatmaps: torch.Tensor, tags: torch.Tensor, limit: int, threshold: float,
                 reach: int) -> list[Peaks]:
    """The peaks of each image from the table (B, K, M + 1, 4 + T), joints with equal scores done again on the CPU."""
    scores = table[..., SCORE]
    images, joints = np.nonzero(((scores[..., :-1] == scores[..., 1:]) & (scores[..., :-1] > threshold)).any(2))
    table = table[:, :, :limit]
    if len(images):
        rows = torch.from_numpy(images).to(heatmaps.device), torch.from_numpy(joints).to(heatmaps.device)
        tags = tags.expand(-1, heatmaps.shape[1], -1, -1, -1)
        table[images, joints] = _pool(heatmaps[rows].cpu()[None], tags[rows].cpu()[None], limit, reach)[0].numpy()
    floats = table.astype(np.float32)
    return [Peaks(image[..., PIXEL].astype(np.int64), values[..., SCORE], values[..., OFFSET], values[..., TAGS],
                  (image[..., SCORE] > threshold).sum(1)) for image, values in zip(table, floats, strict=True)]


@kernel
def _find_peaks(heatmaps, high, threshold, reach, table):  # type: ignore[no-untyped-def]
    joints, height, width = heatmaps.shape
    for k in range(joints):
        count = 0
        for ty in range(high.shape[1]):
            for tx in range(high.shape[2]):
                if not high[k, ty, tx, 0] > threshold:
                    continue
                for y in range(ty * TILE, min(ty * TILE + TILE, height)):
                    for x in range(tx * TILE, min(tx * TILE + TILE, width)):
                        if heatmaps[k, y, x] > threshold and _is_highest(heatmaps[k], y, x, reach):
                            count = _insert(table[k], count, y * width + x, heatmaps[k, y, x])
        for n in range(count):
            pixel = int(table[k, n, 0])
            table[k, n, 2], table[k, n, 3] = quarter_offset(heatmaps[k], pixel // width, pixel % width)


@kernel
def _is_highest(heatmap, y, x, reach) -> bool:  # type: ignore[no-untyped-def]
    value = heatmap[y, x]
    for v in range(max(y - reach, 0), min(y + reach + 1, heatmap.shape[0])):
        for u in range(max(x - reach, 0), min(x + reach + 1, heatmap.shape[1])):
            if heatmap[v, u] > value:
                return False
    return True


@kernel
def _insert(table, count, pixel, score) -> int:  # type: ignore[no-untyped-def]
    """Put a peak at its place in a list sorted by score, which forgets what does not fit; the new count."""
    place = count
    while place > 0 and score > table[place - 1, 1]:
        place -= 1
    if place == len(table):
        return count
    count = min(count + 1, len(table))
    for n in range(count - 1, place, -1):
        table[n, 0], table[n, 1] = table[n - 1, 0], table[n - 1, 1]
    table[place, 0], table[place, 1] = pixel, score
    return count


@kernel
def quarter_offset(heatmap, y, x):  # type: ignore[no-untyped-def]
    """A quarter of a pixel in x and in y towards the higher neighbour, back and up where they are equal (at the edge: itself)."""
    right, left = heatmap[y, min(x + 1, heatmap.shape[1] - 1)], heatmap[y, max(x - 1, 0)]
    below, above = heatmap[min(y + 1, heatmap.shape[0] - 1), x], heatmap[max(y - 1, 0), x]
    return 0.25 if right > left else -0.25, 0.25 if below > above else -0.25


def quarter_offsets(maps: torch.Tensor, pixels: torch.Tensor, width: int) -> torch.Tensor:
    """`quarter_offset` at pixels (..., n), y * W + x, of flat maps (..., H * W) -> (..., n, 2)."""
    height = maps.shape[-1] // width
    y, x = pixels // width, pixels % width
    right, left = (maps.gather(-1, y * width + (x + step).clamp(0, width - 1)) for step in (1, -1))
    below, above = (maps.gather(-1, (y + step).clamp(0, height - 1) * width + x) for step in (1, -1))
    return torch.stack([right > left, below > above], -1) * 0.5 - 0.25
