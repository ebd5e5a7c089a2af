"""Test-time averaging in plain loops, one pixel at a time, in float64."""

from __future__ import annotations

import numpy as np


def resize(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, h, w) -> (C, height, width): pixel centres are at n + 0.5, and edge pixels are repeated
    outside the map.
    """
    channels, rows, columns = maps.shape
    out = np.zeros((channels, height, width))
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * rows / height - 0.5, 0)
            u = max((x + 0.5) * columns / width - 0.5, 0)
            top = int(v)
            left = int(u)
            below = min(top + 1, rows - 1)
            right = min(left + 1, columns - 1)
            for c in range(channels):
                upper = maps[c, top, left] * (1 - (u - left)) + maps[c, top, right] * (u - left)
                lower = maps[c, below, left] * (1 - (u - left)) + maps[c, below, right] * (u - left)
                out[c, y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return out


def mirror_back(maps: np.ndarray, flip_index: list[int]) -> np.ndarray:
    """(C, h, w) of the mirrored image -> of the image; if each joint has a map, left and right
    joints change places.
    """
    out = np.zeros_like(maps)
    channels, rows, columns = maps.shape
    for c in range(channels):
        source = flip_index[c] if channels == len(flip_index) else c
        for y in range(rows):
            for x in range(columns):
                out[c, y, x] = maps[source, y, columns - 1 - x]
    return out


def one_scale(
    stages: list[tuple[np.ndarray, np.ndarray | None]],
    mirrored: list[tuple[np.ndarray, np.ndarray | None]],
    flip_index: list[int],
    size: tuple[int, int],
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Heatmaps (K, h, w) and tags of each stage, as the network gives them -> mean heatmaps and
    tags of the size (h, w).
    """
    heatmaps = []
    tags = []
    for passes, back in ((stages, False), (mirrored, True)):
        full = passes[-1][0].shape[1:]
        mean = np.zeros(passes[-1][0].shape)
        for heat, tag in passes:
            mean += resize(heat, *full) / len(passes)
            if tag is not None:
                tags.append(resize(tag, *full))
                if back:
                    tags[-1] = mirror_back(tags[-1], flip_index)
        heatmaps.append(mirror_back(mean, flip_index) if back else mean)
    return (resize(heatmaps[0], *size) + resize(heatmaps[1], *size)) / 2, [
        resize(tag, *size) for tag in tags
    ]
