"""Tags where they are needed, instead of whole maps of tags at the size of the heatmaps.

Resizing is linear, so a value of a resized map is a weighted sum of a few pixels of the small map.
The weights are those of bilinear resizing with the outer edges in place (align_corners False).
Results differ by rounding from those of whole maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from swahr.codec.copies import HostCopy
from swahr.codec.tile_bounds import TILE

Size = tuple[int, int]  # height, width


class TagMaps(NamedTuple):
    """The tags of one resolution, of all passes.

    maps: (B, K, T, h, w), or (B, 1, T, h, w) where the joints share them. sizes: from (h, w) on,
    the sizes through which they would be resized; the last is that of the heatmaps.
    """

    maps: torch.Tensor
    sizes: tuple[Size, ...]


@dataclass
class SampledMaps:
    """What FastDecoder reads: the maps of B images, with tags that are sampled.

    heatmaps: (B, K, H, W) float32. tags: of each resolution in use. finite: whether the network's
    maps are, a tensor of one value. repeats_borders: whether the outer pixels of all heatmaps were
    repeated when they were resized. peaks: their table on its way to the host, once FastDecoder has
    begun. ready: on a GPU, the event after which all of them are there for other streams.
    """

    heatmaps: torch.Tensor
    tags: list[TagMaps]
    finite: torch.Tensor
    repeats_borders: bool = False
    peaks: HostCopy | None = None
    ready: torch.cuda.Event | None = None


def repeats_borders(before: Size, after: Size) -> bool:
    """Whether resizing gives an outer pixel and its neighbour the same value: both lie outside the
    centres of the small map's outer pixels if that grows three times or more.
    """
    return any(large >= 3 * small for small, large in zip(before, after))


class Taps(NamedTuple):
    """For each of L pixels along one axis of a resized map, the n pixels that it is made of.

    indices: (L, n) int64. weights: (L, n) float32, whose sum is 1.
    """

    indices: torch.Tensor
    weights: torch.Tensor


@lru_cache(maxsize=256)
def axis_taps(lengths: tuple[int, ...], device: torch.device) -> Taps:
    """The taps of a map that is resized from the first length to the next, and so on. They stay on
    the device, because a copy in every batch would wait for it.
    """
    indices, weights = _host_taps(lengths)
    with torch.inference_mode(False):
        return Taps(
            torch.from_numpy(indices).to(device),
            torch.from_numpy(weights.astype(np.float32)).to(device),
        )


def _host_taps(lengths: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    indices = np.arange(lengths[0])[:, None]
    weights = np.ones((lengths[0], 1))
    for before, after in zip(lengths, lengths[1:]):
        place = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
        low = place.astype(np.int64)
        both = np.stack([low, np.minimum(low + 1, before - 1)], 1)
        share = np.stack([1 - (place - low), place - low], 1)
        indices = indices[both].reshape(after, -1)
        weights = (share[:, :, None] * weights[both]).reshape(after, -1)
    return indices, weights


def sample(tags: TagMaps, rows: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Tags (..., T) at pixels (y, x) (...) of the heatmaps, from maps[rows] of the (B K or B)."""
    device = tags.maps.device
    down = axis_taps(tuple(height for height, _ in tags.sizes), device)
    right = axis_taps(tuple(width for _, width in tags.sizes), device)
    values = tags.maps.flatten(0, 1)[
        rows[..., None, None], :, down.indices[y][..., :, None], right.indices[x][..., None, :]
    ]
    weights = down.weights[y][..., :, None] * right.weights[x][..., None, :]
    return (values * weights[..., None]).sum((-3, -2))


def growth(sizes: tuple[Size, ...]) -> tuple[int, ...] | None:
    """By which whole numbers maps grow, one resize after another, if a tile of the last size is
    then made of whole pixels of the first; else None.
    """
    ratios = []
    for before, after in zip(sizes, sizes[1:]):
        down, right = (large // small for small, large in zip(before, after))
        if down != right or (before[0] * down, before[1] * down) != after:
            return None
        ratios.append(down)
    return None if TILE % math.prod(ratios) else tuple(ratios)


@lru_cache(maxsize=64)
def tile_weights(ratios: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(16, step + 2): the pixels of a tile along one axis as sums of the small map's pixels, from
    the one before the tile to the one after it.

    ratios: of `growth`. step: 16 divided by all of them. At an edge, the outer pixel repeated gives
    what resizing gives.
    """
    step = TILE // math.prod(ratios)
    lengths = tuple(3 * step * math.prod(ratios[:count]) for count in range(len(ratios) + 1))
    indices, weights = _host_taps(lengths)
    table = np.zeros((TILE, step + 2), np.float32)
    middle = slice(TILE, 2 * TILE)
    for taps, values in zip(indices[middle].T, weights[middle].T):
        np.add.at(table, (np.arange(TILE), taps - step + 1), values)
    with torch.inference_mode(False):
        return torch.from_numpy(table).to(device)
