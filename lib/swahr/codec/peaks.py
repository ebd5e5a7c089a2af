"""Peaks of heatmaps: non-maximum suppression by max-pooling, and the best M of each joint.

A. Newell et al., Associative Embedding, 2017; max-pooling as in B. Cheng et al., HigherHRNet, 2020.
A pixel is a peak if it equals the largest value of the window around it and exceeds the detection
threshold. The order of equal scores decides what grouping does; it is that of torch.topk on the
CPU, as in the published code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from swahr.codec.maps import on_device
from swahr.codec.tile_bounds import NOT_FINITE, TILE, Floats, TileBounds, tile_bounds
from swahr.jit import kernel

# A table (..., M, 4 + T) of peaks has these columns. It is float64, which holds both pixel indices
# and float32 values exactly.
PIXEL = 0
SCORE = 1
OFFSET = slice(2, 4)
TAGS = slice(4, None)

PARTIAL_SORT = 64  # torch.topk keeps the best M in a heap if there are at least 64 M values


class Peaks(NamedTuple):
    """At most M peaks of each of K joints in one image, the highest first.

    pixels: (K, M), y * W + x. scores: (K, M).
    offsets: (K, M, 2), +-0.25 px in x and y towards the higher neighbour. tags: (K, M, T).
    counts: (K,), how many of the M are peaks; the entries after them have no meaning.
    """

    pixels: NDArray[np.int64]
    scores: Floats
    offsets: Floats
    tags: Floats
    counts: NDArray[np.int64]


def find_peaks(
    heatmaps: Floats, tags: Floats, tiles: TileBounds, *, limit: int, threshold: float, radius: int
) -> Peaks:
    """The peaks of heatmaps (K, H, W), with the tags at them from tags (K or 1, H, W, T).

    Both arrays are contiguous.
    tiles: the bounds of the heatmaps. limit: M. threshold: a peak's score exceeds it; 0 or more.
    radius: of the window, px; it is 2 radius + 1 wide.
    """
    joints, height, width = heatmaps.shape
    if height * width < PARTIAL_SORT * limit:
        table_of_one = _pool(
            torch.from_numpy(heatmaps)[None], torch.from_numpy(tags)[None], limit, radius
        )
        return peaks_of_table(table_of_one.numpy(), threshold)[0]
    table = np.zeros((joints, limit, 4 + tags.shape[-1]))
    _find_peaks(heatmaps, tiles.max, radius, table)
    channels = np.arange(joints)[:, None] if len(tags) == joints else 0
    pixels = table[..., PIXEL].astype(np.int64)
    table[..., TAGS] = tags.reshape(len(tags), height * width, -1)[channels, pixels]
    return peaks_of_table(table[None], threshold)[0]


def find_peaks_batch(
    heatmaps: torch.Tensor, tags: torch.Tensor, *, limit: int, threshold: float, radius: int
) -> list[Peaks]:
    """Like find_peaks for a batch (B, K, H, W) and (B, K or 1, H, W, T) on any device, with tensor
    operations and one copy to the host.

    Raises ValueError where a map has non-finite values.
    """
    finite = heatmaps.isfinite().all() & tags.isfinite().all()
    # A non-finite value makes the whole table NaN, so that no second copy is needed to see it.
    table = torch.where(finite, _pool(heatmaps, tags, limit + 1, radius), torch.nan).cpu().numpy()
    if np.isnan(table).any():
        raise ValueError(NOT_FINITE)
    scores = table[..., SCORE]
    ties = (scores[..., :-1] == scores[..., 1:]) & (scores[..., :-1] > threshold)
    images, joints = np.nonzero(ties.any(2))
    peaks = peaks_of_table(table[:, :, :limit], threshold)
    if len(images):
        _settle_ties(
            peaks, heatmaps, tags, images, joints, limit=limit, threshold=threshold, radius=radius
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
    """Replace the peaks of joints (n,) of images (n,) by those found on the CPU, whose order of
    equal scores is the right one.
    """
    rows = tuple(torch.from_numpy(index).to(heatmaps.device) for index in (images, joints))
    maps = heatmaps[rows].cpu().numpy()
    tag_maps = tags.expand(-1, heatmaps.shape[1], -1, -1, -1)[rows].cpu().numpy()
    settled = find_peaks(maps, tag_maps, tile_bounds(maps[..., None]), **settings)
    for row, (image, joint) in enumerate(zip(images, joints, strict=True)):
        for field in range(len(settled)):
            peaks[image][field][joint] = settled[field][row]


def peaks_of_table(table: NDArray[np.float64], threshold: float) -> list[Peaks]:
    """The table (B, K, M, 4 + T) as the peaks of each image."""

    # Contiguous arrays: kernels would be compiled again for other strides.
    def floats(columns: NDArray[np.float64]) -> Floats:
        return columns.astype(np.float32, order="C")

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


def _pool(heatmaps: torch.Tensor, tags: torch.Tensor, limit: int, radius: int) -> torch.Tensor:
    """The table (B, K, M, 4 + T) of the best pixels that equal their window's maximum, computed as
    in the published code.
    """
    batch, joints, height, width = heatmaps.shape
    pooled = F.max_pool2d(heatmaps, 2 * radius + 1, 1, radius)
    suppressed = torch.where(heatmaps == pooled, heatmaps, 0)
    scores, pixels = suppressed.flatten(2).topk(min(limit, height * width), dim=2)
    rows = torch.arange(batch * joints, device=heatmaps.device).view(batch, joints, 1)
    offsets = quarter_offsets(heatmaps.flatten(0, 1), rows, pixels)
    channels = tags.flatten(2, 3).expand(-1, joints, -1, -1)
    peak_tags = channels.gather(2, pixels[..., None].expand(-1, -1, -1, tags.shape[-1]))
    columns = (pixels[..., None], scores[..., None], offsets, peak_tags)
    return torch.cat([column.double() for column in columns], 3)


@kernel
def _find_peaks(heatmaps, tile_max, radius, table):  # type: ignore[no-untyped-def]
    """Write pixels, scores and offsets of the table (K, M, 4 + T); pixels that are not peaks count
    as 0.

    The best M are kept in a heap with the smallest on top, as in std::partial_sort, so that equal
    scores come in the same order.
    """
    joints, height, width = heatmaps.shape
    size = table.shape[1]
    heap = np.empty(size, np.float32)
    pixels = np.empty(size, np.int64)
    for k in range(joints):
        for i in range(size):
            pixels[i] = i
            heap[i] = _suppressed(heatmaps[k], i // width, i % width, radius)
        for i in range((size - 2) // 2, -1, -1):
            _sift(heap, pixels, i, size, heap[i], pixels[i])
        for y in range(height):
            for tx in range(tile_max.shape[2]):
                if heap[0] >= 0 and tile_max[k, y // TILE, tx, 0] <= heap[0]:
                    continue
                for x in range(tx * TILE, min(tx * TILE + TILE, width)):
                    if y * width + x < size or (heap[0] >= 0 and heatmaps[k, y, x] <= heap[0]):
                        continue
                    value = _suppressed(heatmaps[k], y, x, radius)
                    if value > heap[0]:
                        _sift(heap, pixels, 0, size, value, y * width + x)
        for last in range(size - 1, 0, -1):
            value = heap[last]
            pixel = pixels[last]
            heap[last] = heap[0]
            pixels[last] = pixels[0]
            _sift(heap, pixels, 0, last, value, pixel)
        for n in range(size):
            table[k, n, 0] = pixels[n]
            table[k, n, 1] = heap[n]
            table[k, n, 2], table[k, n, 3] = quarter_offset(
                heatmaps[k], pixels[n] // width, pixels[n] % width
            )


@kernel
def _suppressed(heatmap, y, x, radius):  # type: ignore[no-untyped-def]
    """The heatmap at a pixel, 0 where the window around it holds a larger value."""
    value = heatmap[y, x]
    for v in range(max(y - radius, 0), min(y + radius + 1, heatmap.shape[0])):
        for u in range(max(x - radius, 0), min(x + radius + 1, heatmap.shape[1])):
            if heatmap[v, u] > value:
                return np.float32(0)
    return value


@kernel
def _sift(heap, pixels, hole, size, value, pixel) -> None:  # type: ignore[no-untyped-def]
    """Replace heap[hole] by a value: the hole sinks to a leaf past the smaller children, then the
    value rises.
    """
    top = hole
    while 2 * hole + 1 < size:
        child = 2 * hole + 2
        if child == size or heap[child] > heap[child - 1]:
            child -= 1
        heap[hole] = heap[child]
        pixels[hole] = pixels[child]
        hole = child
    while hole > top and heap[(hole - 1) // 2] > value:
        parent = (hole - 1) // 2
        heap[hole] = heap[parent]
        pixels[hole] = pixels[parent]
        hole = parent
    heap[hole] = value
    pixels[hole] = pixel


@kernel
def quarter_offset(heatmap, y, x):  # type: ignore[no-untyped-def]
    """A quarter of a pixel in x and y towards the higher neighbour, negative if they are equal; a
    neighbour outside the map is the pixel itself.
    """
    right = heatmap[y, min(x + 1, heatmap.shape[1] - 1)]
    left = heatmap[y, max(x - 1, 0)]
    below = heatmap[min(y + 1, heatmap.shape[0] - 1), x]
    above = heatmap[max(y - 1, 0), x]
    return 0.25 if right > left else -0.25, 0.25 if below > above else -0.25


def quarter_offsets(maps: torch.Tensor, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """`quarter_offset` in maps[rows] at pixels -> (..., 2).

    maps: (R, H, W). rows: (...), indices of maps. pixels: (...), y * W + x.
    """
    height, width = maps.shape[1:]
    # Of the neighbours right, below, left and above.
    y = (pixels // width)[..., None] + on_device((0, 1, 0, -1), maps.device)
    x = (pixels % width)[..., None] + on_device((1, 0, -1, 0), maps.device)
    values = maps[rows[..., None], y.clamp(0, height - 1), x.clamp(0, width - 1)]
    after, before = values.chunk(2, -1)
    return (after > before) * 0.5 - 0.25
