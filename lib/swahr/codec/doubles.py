"""People who were found twice: non-maximum suppression by object keypoint similarity (OKS).

G. Papandreou et al., Towards Accurate Multi-person Pose Estimation in the Wild, CVPR 2017: people
are taken by falling score, and those who are too similar to one that was taken are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swahr.geometry import keypoint_similarity

Doubles = NDArray[np.float64]
LEAST_SHARE = 0.1  # of the shorter side of a box in the longer one
POINT_AREA = 32.0**2  # square pixels


def similarities(
    keypoints: NDArray[np.floating],
    sigmas: Sequence[float],
    others: NDArray[np.floating] | None = None,
) -> Doubles:
    """(N, M) OKS of each of N people with each of M others, by default of the same people.

    keypoints: (N, K, 3): x, y, score; 0 = not found. others: (M, K, 3).

    The mean of keypoint_similarity over the joints of the one who has fewer of them; a joint that
    the other one lacks counts 0. The area is that of the box around the joints of the larger one.
    So a part of a person is like the whole person, and two halves are not alike. Joints in a line
    have a box with a side of LEAST_SHARE of the other one; two points are compared by POINT_AREA.
    """
    points, found, areas = _measure(keypoints)
    other = (points, found, areas) if others is None else _measure(others)
    other_points, other_found, other_areas = other
    larger = np.maximum(areas[:, None], other_areas)
    larger = np.where(larger > 0, larger, POINT_AREA)
    squared = ((points[:, None] - other_points) ** 2).sum(3)
    alike = keypoint_similarity(squared, larger[..., None], np.asarray(sigmas))
    in_both = found[:, None] & other_found
    fewer = np.minimum(found.sum(1)[:, None], other_found.sum(1))
    return (alike * in_both).sum(2) / np.maximum(fewer, 1)


def _measure(keypoints: NDArray[np.floating]) -> tuple[Doubles, NDArray[np.bool_], Doubles]:
    """The points (N, K, 2), which are found (N, K), and the areas of the boxes around them (N,)."""
    points = keypoints[..., :2].astype(np.float64)
    found = keypoints[..., 2] > 0
    low = np.where(found[..., None], points, np.inf).min(1)
    high = np.where(found[..., None], points, -np.inf).max(1)
    sides = np.where(found.any(1, keepdims=True), high - low, 0)
    sides = np.maximum(sides, LEAST_SHARE * sides.max(1, keepdims=True, initial=0))
    return points, found, sides.prod(1)


def without_doubles(
    keypoints: NDArray[np.floating],
    scores: NDArray[np.floating],
    sigmas: Sequence[float],
    threshold: float,
) -> NDArray[np.int64]:
    """The indices of the people who stay, rising: nobody's similarity to one who stays and has a
    higher score (the first of equal ones) is above the threshold.

    keypoints: (N, K, 3), see `similarities`. scores: (N,).
    """
    too_similar = similarities(keypoints, sigmas) > threshold
    stays = np.ones(len(scores), bool)
    order = np.argsort(-scores, kind="stable")
    for rank, person in enumerate(order):
        if stays[person]:
            later = order[rank + 1 :]
            stays[later] &= ~too_similar[person, later]
    return np.flatnonzero(stays)
