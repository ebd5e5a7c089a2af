"""Peaks of a batch of maps on any device, with tensor operations; see `peaks`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from swahr.codec.copies import to_device
from swahr.codec.maps import on_device
from swahr.codec.peaks import SCORE, Peaks, find_peaks, peaks_of
from swahr.codec.tile_bounds import NOT_FINITE, Floats, TileBounds

PARTIAL_SORT = 64  # torch.topk keeps the best M in a heap if there are at least 64 M values


def find_peaks_as_topk(
    heatmaps: Floats, tags: Floats, tiles: TileBounds, *, limit: int, threshold: float, radius: int
) -> Peaks:
    """`find_peaks`, with equal scores in the order of torch.topk in maps of every size: in maps of
    less than 64 M pixels that is not the order of a heap.
    """
    height, width = heatmaps.shape[1:]
    if height * width >= PARTIAL_SORT * limit:
        return find_peaks(heatmaps, tags, tiles, limit=limit, threshold=threshold, radius=radius)
    table = _pool(torch.from_numpy(heatmaps)[None], torch.from_numpy(tags)[None], limit, radius)
    return peaks_of(table.numpy(), threshold)[0]


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
    peaks = peaks_of(table[:, :, :limit], threshold)
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
    *,
    limit: int,
    threshold: float,
    radius: int,
) -> None:
    """Replace the peaks of joints (n,) of images (n,) by those in the order that torch.topk has on
    the CPU. The pixels that equal their window's maximum go there, and no map does.
    """
    rows = to_device(images * heatmaps.shape[1] + joints, heatmaps.device)
    suppressed = _suppressed(heatmaps.flatten(0, 1)[rows], radius).flatten(1)
    places = suppressed.nonzero()
    values = suppressed[places[:, 0], places[:, 1]]
    found = torch.cat([places.double(), values.double()[:, None]], 1).cpu()
    on_host = torch.zeros(suppressed.shape)
    on_host[found[:, 0].long(), found[:, 1].long()] = found[:, 2].float()
    scores, pixels = on_host.topk(min(limit, on_host.shape[1]))
    device = heatmaps.device
    table = _table(heatmaps, tags, rows, scores.to(device), pixels.to(device)).cpu().numpy()
    settled = peaks_of(table[None], threshold)[0]
    for row, (image, joint) in enumerate(zip(images, joints, strict=True)):
        for field in range(len(settled)):
            peaks[image][field][joint] = settled[field][row]


def _pool(heatmaps: torch.Tensor, tags: torch.Tensor, limit: int, radius: int) -> torch.Tensor:
    """The table (B, K, M, 4 + T) of the best pixels that equal their window's maximum, computed as
    in the published code.
    """
    maps = heatmaps.flatten(0, 1)
    suppressed = _suppressed(maps, radius).flatten(1)
    scores, pixels = suppressed.topk(min(limit, suppressed.shape[1]))
    rows = torch.arange(len(maps), device=maps.device)
    return _table(heatmaps, tags, rows, scores, pixels).unflatten(0, heatmaps.shape[:2])


def _suppressed(maps: torch.Tensor, radius: int) -> torch.Tensor:
    """Maps (R, H, W), with 0 where a pixel is below its window's maximum."""
    pooled = F.max_pool2d(maps[:, None], 2 * radius + 1, 1, radius)[:, 0]
    return torch.where(maps == pooled, maps, 0)


def _table(
    heatmaps: torch.Tensor,
    tags: torch.Tensor,
    rows: torch.Tensor,
    scores: torch.Tensor,
    pixels: torch.Tensor,
) -> torch.Tensor:
    """The table (n, M, 4 + T) of pixels (n, M) with scores (n, M) in the heatmaps (n,) of all."""
    rows = rows[:, None]
    offsets = quarter_offsets(heatmaps.flatten(0, 1), rows, pixels)
    heatmaps_per_tag_map = heatmaps.shape[1] // tags.shape[1]
    peak_tags = tags.flatten(0, 1).flatten(1, 2)[rows // heatmaps_per_tag_map, pixels]
    columns = (pixels[..., None], scores[..., None], offsets, peak_tags)
    return torch.cat([column.double() for column in columns], 2)


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
