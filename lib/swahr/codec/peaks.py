"""Peaks of heatmaps: non-maximum suppression by max-pooling, and the best M of each joint.

A. Newell et al., Associative Embedding, 2017; max-pooling as in B. Cheng et al., HigherHRNet, 2020.
A pixel is a peak where it equals the largest value of the window around it and exceeds the
detection threshold. Which of equal scores comes first matters to the grouping; it is the one that
torch.topk takes on the CPU, as in the published code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from swahr.codec.tile_bounds import NOT_FINITE, TILE, Floats, TileBounds, tile_bounds
from swahr.jit import kernel

# What is known of a peak, in the last dimension of one float64 array, which holds pixels and
# float32 values exactly:
PIXEL = 0
SCORE = 1
OFFSET = slice(2, 4)
TAGS = slice(4, None)

PARTIAL_SORT = (
    64  # torch.topk keeps the best M in a heap where there are at least so many times M values
)


class Peaks(NamedTuple):
    """At most M peaks of each of K joints in one image, the highest first."""

    pixels: NDArray[np.int64]  # (K, M) y * W + x
    scores: Floats  # (K, M)
    offsets: Floats  # (K, M, 2) +-0.25 px in x and y, towards the higher neighbour
    tags: Floats  # (K, M, T)
    counts: NDArray[np.int64]  # (K,) how many of the M there are; what is behind them means nothing


def find_peaks(
    heatmaps: Floats, tags: Floats, tiles: TileBounds, *, limit: int, threshold: float, reach: int
) -> Peaks:
    """The peaks of heatmaps (K, H, W), with the values there of tags (K or 1, H, W, T); contiguous
    arrays.

    tiles: the range of heatmaps; limit: M; threshold: a peak's score exceeds it, >= 0; reach: half
    the window, px.
    """
    joints, height, width = heatmaps.shape
    if height * width < PARTIAL_SORT * limit:
        pooled = _pool(torch.from_numpy(heatmaps)[None], torch.from_numpy(tags)[None], limit, reach)
        return _peaks(pooled.numpy(), threshold)[0]
    table = np.zeros((joints, limit, 4 + tags.shape[-1]))
    _find_peaks(heatmaps, tiles.max, reach, table)
    channels = np.arange(joints)[:, None] if len(tags) == joints else 0
    table[..., TAGS] = tags.reshape(len(tags), height * width, -1)[
        channels, table[..., PIXEL].astype(np.int64)
    ]
    return _peaks(table[None], threshold)[0]


def find_peaks_batch(
    heatmaps: torch.Tensor, tags: torch.Tensor, *, limit: int, threshold: float, reach: int
) -> list[Peaks]:
    """The same for a batch (B, K, H, W) and (B, K or 1, H, W, T) on any device, in tensor
    operations.

    Raises ValueError where a map is not finite. There is one copy to the host.
    """
    finite = heatmaps.isfinite().all() & tags.isfinite().all()
    # One number that is not finite spoils the whole table, and no second copy is needed to see it.
    table = torch.where(finite, _pool(heatmaps, tags, limit + 1, reach), torch.nan).cpu().numpy()
    if np.isnan(table).any():
        raise ValueError(NOT_FINITE)
    scores = table[..., SCORE]
    images, joints = np.nonzero(
        ((scores[..., :-1] == scores[..., 1:]) & (scores[..., :-1] > threshold)).any(2)
    )
    peaks = _peaks(table[:, :, :limit], threshold)
    if len(images):
        _settle_ties(
            peaks, heatmaps, tags, images, joints, limit=limit, threshold=threshold, reach=reach
        )
    return peaks


def _settle_ties(
    peaks: list[Peaks],
    heatmaps: torch.Tensor,
    tags: torch.Tensor,
    images: NDArray[np.int64],
    joints: NDArray[np.int64],
    **settings: Any,
) -> None:
    """Replace the peaks of some images' joints by those that are found on the CPU, whose order
    among equals counts.
    """
    rows = (
        torch.from_numpy(images).to(heatmaps.device),
        torch.from_numpy(joints).to(heatmaps.device),
    )
    maps = heatmaps[rows].cpu().numpy()
    tag_maps = tags.expand(-1, heatmaps.shape[1], -1, -1, -1)[rows].cpu().numpy()
    settled = find_peaks(maps, tag_maps, tile_bounds(maps[..., None]), **settings)
    for row, (image, joint) in enumerate(zip(images, joints, strict=True)):
        for field in range(len(settled)):
            peaks[image][field][joint] = settled[field][row]


def _peaks(table: NDArray[np.float64], threshold: float) -> list[Peaks]:
    """The table (B, K, M, 4 + T) as the peaks of each image."""

    def floats(part: NDArray[np.float64]) -> Floats:
        return part.astype(
            np.float32, order="C"
        )  # contiguous: other strides would be compiled for again

    return [
        Peaks(
            image[..., PIXEL].astype(np.int64, order="C"),
            floats(image[..., SCORE]),
            floats(image[..., OFFSET]),
            floats(image[..., TAGS]),
            (image[..., SCORE] > threshold).sum(1),
        )
        for image in table
    ]


def _pool(heatmaps: torch.Tensor, tags: torch.Tensor, limit: int, reach: int) -> torch.Tensor:
    """The rule as written: the table (B, K, M, 4 + T) of the best pixels that equal their window's
    maximum.
    """
    height, width = heatmaps.shape[2:]
    pooled = F.max_pool2d(heatmaps, 2 * reach + 1, 1, reach)
    scores, pixels = (
        torch.where(heatmaps == pooled, heatmaps, 0)
        .flatten(2)
        .topk(min(limit, height * width), dim=2)
    )
    rows = torch.arange(heatmaps[..., 0, 0].numel(), device=heatmaps.device).view(
        *heatmaps.shape[:2], 1
    )
    offsets = quarter_offsets(heatmaps.flatten(0, 1), rows, pixels)
    channels = tags.flatten(2, 3).expand(-1, heatmaps.shape[1], -1, -1)
    tags_there = channels.gather(2, pixels[..., None].expand(-1, -1, -1, tags.shape[-1]))
    return torch.cat(
        [part.double() for part in (pixels[..., None], scores[..., None], offsets, tags_there)], 3
    )


@kernel
def _find_peaks(heatmaps, high, reach, table):  # type: ignore[no-untyped-def]
    """Fill in pixels, scores and offsets of the table (K, M, 4 + T), all pixels that are not peaks
    counting as 0.

    The best M are kept as a heap, the least on top, as std::partial_sort keeps them: the order of
    equals is the heap's.
    """
    joints, height, width = heatmaps.shape
    size = table.shape[1]
    heap = np.empty(size, np.float32)
    pixels = np.empty(size, np.int64)
    for k in range(joints):
        for i in range(size):
            pixels[i], heap[i] = i, _suppressed(heatmaps[k], i // width, i % width, reach)
        for i in range((size - 2) // 2, -1, -1):
            _sift(heap, pixels, i, size, heap[i], pixels[i])
        for y in range(height):
            for tx in range(high.shape[2]):
                if heap[0] >= 0 and high[k, y // TILE, tx, 0] <= heap[0]:
                    continue
                for x in range(tx * TILE, min(tx * TILE + TILE, width)):
                    if y * width + x < size or (heap[0] >= 0 and heatmaps[k, y, x] <= heap[0]):
                        continue
                    value = _suppressed(heatmaps[k], y, x, reach)
                    if value > heap[0]:
                        _sift(heap, pixels, 0, size, value, y * width + x)
        for last in range(size - 1, 0, -1):
            value = heap[last]
            pixel = pixels[last]
            heap[last], pixels[last] = heap[0], pixels[0]
            _sift(heap, pixels, 0, last, value, pixel)
        for n in range(size):
            table[k, n, 0], table[k, n, 1] = pixels[n], heap[n]
            table[k, n, 2], table[k, n, 3] = quarter_offset(
                heatmaps[k], pixels[n] // width, pixels[n] % width
            )


@kernel
def _suppressed(heatmap, y, x, reach):  # type: ignore[no-untyped-def]
    """The heatmap at a pixel, 0 where the window around it holds a larger value."""
    value = heatmap[y, x]
    for v in range(max(y - reach, 0), min(y + reach + 1, heatmap.shape[0])):
        for u in range(max(x - reach, 0), min(x + reach + 1, heatmap.shape[1])):
            if heatmap[v, u] > value:
                return np.float32(0)
    return value


@kernel
def _sift(heap, pixels, hole, size, value, pixel) -> None:  # type: ignore[no-untyped-def]
    """Put a value in place of heap[hole]: the hole sinks to a leaf past the smaller children, then
    the value rises.
    """
    top = hole
    while 2 * hole + 1 < size:
        child = 2 * hole + 2
        if child == size or heap[child] > heap[child - 1]:
            child -= 1
        heap[hole], pixels[hole] = heap[child], pixels[child]
        hole = child
    while hole > top and heap[(hole - 1) // 2] > value:
        parent = (hole - 1) // 2
        heap[hole], pixels[hole] = heap[parent], pixels[parent]
        hole = parent
    heap[hole], pixels[hole] = value, pixel


@kernel
def quarter_offset(heatmap, y, x):  # type: ignore[no-untyped-def]
    """A quarter of a pixel in x and y to the higher neighbour, back where they are equal; beyond
    the edge: itself.
    """
    right = heatmap[y, min(x + 1, heatmap.shape[1] - 1)]
    left = heatmap[y, max(x - 1, 0)]
    below = heatmap[min(y + 1, heatmap.shape[0] - 1), x]
    above = heatmap[max(y - 1, 0), x]
    return 0.25 if right > left else -0.25, 0.25 if below > above else -0.25


def quarter_offsets(maps: torch.Tensor, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """`quarter_offset` in some rows (...) of maps (R, H, W) at pixels (...), y * W + x -> (...,
    2).
    """
    height, width = maps.shape[1:]
    y = pixels // width
    x = pixels % width
    right, left = (maps[rows, y, (x + step).clamp(0, width - 1)] for step in (1, -1))
    below, above = (maps[rows, (y + step).clamp(0, height - 1), x] for step in (1, -1))
    return torch.stack([right > left, below > above], -1) * 0.5 - 0.25
