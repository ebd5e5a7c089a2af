"""Joints between the pixels of a heatmap: the vertex of a parabola through its logarithm.

Heatmaps are trained to be Gaussians, whose logarithm is a parabola. Three values of one give its
centre (F. Zhang et al., Distribution-Aware Coordinate Representation, CVPR 2020, for each axis by
itself and without its smoothing; J. Huang et al., The Devil Is in the Details, CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def place_between_pixels(
    heatmaps: Any, keypoints: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """The keypoints (N, K, 3) of each image with x and y of the joints that have a score moved to
    the vertex.

    heatmaps: (B, K, H, W), an array or a tensor on any device, of which there is one copy to the
    host. A joint stays in its pixel.
    """
    found = [np.nonzero(points[..., 2] > 0) for points in keypoints]
    images = np.repeat(np.arange(len(found)), [len(persons) for persons, _ in found])
    if not len(images):
        return list(keypoints)
    joints = np.concatenate([joints for _, joints in found])
    corners = np.concatenate(
        [points[index][:, :2] for points, index in zip(keypoints, found)]
    ).astype(np.int64)
    offsets = _offsets(heatmaps, images, joints, corners)
    placed = []
    for image, (points, (persons, of_persons)) in enumerate(zip(keypoints, found)):
        own = images == image
        points = points.copy()
        points[persons, of_persons, :2] = corners[own] + 0.5 + offsets[own]
        placed.append(points)
    return placed


def vertex(before: Doubles, at: Doubles, after: Doubles) -> Doubles:
    """Where the parabola through the logarithms of values at -1, 0 and 1 has its vertex, -0.5 to
    0.5.

    It is a quarter towards the higher neighbour where there is no such vertex: if a value is not
    positive, or the middle one is not the highest. A value outside the map is NaN; for the quarter
    it is the middle one, as in peaks.quarter_offset.
    """
    with np.errstate(invalid="ignore"):
        has_vertex = (np.minimum(before, after) > 0) & (at >= np.maximum(before, after))
        has_vertex &= at > np.minimum(before, after)
    before, after = (np.where(np.isnan(value), at, value) for value in (before, after))
    quarter = np.where(after > before, 0.25, -0.25)
    low, middle, high = (np.log(np.where(has_vertex, value, 1)) for value in (before, at, after))
    curvature = np.where(has_vertex, 2 * middle - low - high, 1)
    offset = np.clip((high - low) / (2 * curvature), -0.5, 0.5)  # of roundings
    return np.where(has_vertex, offset, quarter)


def _offsets(
    heatmaps: Any,
    images: NDArray[np.int64],
    joints: NDArray[np.int64],
    corners: NDArray[np.int64],
) -> Doubles:
    """(n, 2) `vertex` in x and y at pixels (n, 2)."""
    height, width = heatmaps.shape[2:]
    offsets = np.array([(-1, 0), (0, 0), (1, 0), (0, -1), (0, 1)])
    u, v = np.moveaxis(corners[:, None] + offsets, 2, 0)  # (n, 5) each
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    rows = images[:, None]
    channels = joints[:, None]
    values = heatmaps[rows, channels, v.clip(0, height - 1), u.clip(0, width - 1)]
    if not isinstance(values, np.ndarray):
        values = values.cpu().numpy()
    left, at, right, above, below = np.where(inside, values.astype(np.float64), np.nan).T
    return np.stack([vertex(left, at, right), vertex(above, at, below)], 1)
