"""Peaks of a batch of maps on any device, with tensor operations; see `peaks`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from swahr.codec.copies import to_device
from swahr.codec.maps import on_device
from swahr.codec.peaks import SCORE, Peaks, find_peaks, peaks_of
from swahr.codec.tile_bounds import NOT_FINITE, Floats, NonFiniteError, TileBounds

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

    Raises NonFiniteError where a map has non-finite values.
    """
    finite = heatmaps.isfinite().all() & tags.isfinite().all()
    # A non-finite value makes the whole table NaN, so that no second copy is needed to see it.
    table = torch.where(finite, _pool(heatmaps, tags, limit + 1, radius), torch.nan).cpu().numpy()
    if np.isnan(table).any():
        raise NonFiniteError(NOT_FINITE)
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
    device = heatmaps.device
    rows = tuple(to_device(np.stack([images, joints]), device))
    maps = heatmaps[rows][None]  # as one image of n joints
    tag_maps = tags.expand(-1, heatmaps.shape[1], -1, -1, -1)[rows][None]
    scores = suppressed(maps, radius)[0].flatten(1)
    places = scores.nonzero()
    values = scores[places[:, 0], places[:, 1]]
    found = torch.cat([places.double(), values.double()[:, None]], 1).cpu()
    on_host = torch.zeros(scores.shape)
    on_host[found[:, 0].long(), found[:, 1].long()] = found[:, 2].float()
    pixels = to_device(on_host.topk(min(limit, on_host.shape[1])).indices.numpy(), device)
    table = _table(maps, tag_maps, scores.gather(1, pixels)[None], pixels[None]).cpu().numpy()
    settled = peaks_of(table, threshold)[0]
    for row, (image, joint) in enumerate(zip(images, joints, strict=True)):
        for field in range(len(settled)):
            peaks[image][field][joint] = settled[field][row]


def _pool(heatmaps: torch.Tensor, tags: torch.Tensor, limit: int, radius: int) -> torch.Tensor:
    """The table (B, K, M, 4 + T) of the best pixels that equal their window's maximum, computed as
    in the published code.
    """
    candidates = suppressed(heatmaps, radius).flatten(2)
    scores, pixels = candidates.topk(min(limit, candidates.shape[2]), dim=2)
    return _table(heatmaps, tags, scores, pixels)


def suppressed(heatmaps: torch.Tensor, radius: int) -> torch.Tensor:
    """Heatmaps (B, K, H, W), with 0 where a pixel is below its window's maximum."""
    pooled = F.max_pool2d(heatmaps, 2 * radius + 1, 1, radius)
    return torch.where(heatmaps == pooled, heatmaps, 0)


def _table(
    heatmaps: torch.Tensor, tags: torch.Tensor, scores: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    """The table (B, K, M, 4 + T) of pixels (B, K, M) with these scores."""
    batch, joints = heatmaps.shape[:2]
    rows = torch.arange(batch * joints, device=heatmaps.device).view(batch, joints, 1)
    offsets = quarter_offsets(heatmaps.flatten(0, 1), rows, pixels)
    channels = tags.flatten(2, 3).expand(-1, joints, -1, -1)
    peak_tags = channels.gather(2, pixels[..., None].expand(-1, -1, -1, tags.shape[-1]))
    columns = (pixels[..., None], scores[..., None], offsets, peak_tags)
    return torch.cat([column.double() for column in columns], 3)


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
