"""Targets joint by joint in NumPy, as the published generators make them."""

from __future__ import annotations

import numpy as np


def gaussian_patch(sigma: float) -> np.ndarray:
    """A square of ceil(6 sigma + 3) samples a side whose peak is at 3 sigma + 1, on a sample or
    between two.
    """
    offsets = np.arange(0, 6 * sigma + 3, 1, float)
    squares = (offsets - (3 * sigma + 1)) ** 2
    return np.exp(-(squares[None] + squares[:, None]) / (2 * sigma**2))


def render(joints: np.ndarray, size: int, sigma: float | None) -> np.ndarray:
    """joints (N, K, >=3) -> (K, size, size) float32; sigma None takes each person's from the fourth
    column.
    """
    heatmaps = np.zeros((joints.shape[1], size, size), np.float32)
    for person in joints:
        width = person[0, 3] if sigma is None else sigma
        patch = gaussian_patch(width) if width > 0 else None
        for heatmap, joint in zip(heatmaps, person):
            x = int(joint[0])
            y = int(joint[1])
            if patch is not None and joint[2] > 0 and 0 <= x < size and 0 <= y < size:
                _draw(heatmap, patch, x, y, width)
    return heatmaps


def _draw(heatmap: np.ndarray, patch: np.ndarray, x: int, y: int, sigma: float) -> None:
    """Merge a patch into a map by maximum, from round(x - 3 sigma - 1) up to, not including,
    round(x + 3 sigma + 2).
    """
    size = len(heatmap)
    left, top = (int(np.round(v - 3 * sigma - 1)) for v in (x, y))
    right, bottom = (int(np.round(v + 3 * sigma + 2)) for v in (x, y))
    rows = slice(max(0, top), min(bottom, size))
    columns = slice(max(0, left), min(right, size))
    cut = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    heatmap[rows, columns] = np.maximum(heatmap[rows, columns], cut)


def tag_index(joints: np.ndarray, size: int, tag_per_joint: bool) -> list[dict[int, int]]:
    """joints (N, K, >=3) -> for each person, the joints that count and their indices into the flat
    tag maps.
    """
    people = []
    for person in joints:
        index = {}
        for k, joint in enumerate(person):
            x = int(joint[0])
            y = int(joint[1])
            if joint[2] > 0 and 0 <= x < size and 0 <= y < size:
                index[k] = (k * size * size if tag_per_joint else 0) + y * size + x
        people.append(index)
    return people
