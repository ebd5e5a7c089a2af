"""Less jitter in the joints of people who are followed through a video."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]

FORGET_SECONDS = 1.0  # a joint that was gone for longer begins anew


class OneEuroFilter:
    """The one-euro filter, for all joints of all people at once.

    G. Casiez, N. Roussel, D. Vogel, 1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy
    Input in Interactive Systems, CHI 2012. A low-pass filter whose cutoff rises with the speed:
    little jitter at rest, little lag in motion.

    min_cutoff: Hz, of joints at rest; lower is smoother. beta: by how many Hz the cutoff rises for
    a speed of one body size a second; higher lags less. derivative_cutoff: Hz, of the speed. The
    body size is the square root of the area of the box around a person's joints, so that the same
    numbers serve all resolutions.
    """

    def __init__(
        self, *, min_cutoff: float = 1.0, beta: float = 3.0, derivative_cutoff: float = 1.0
    ) -> None:
        self.min_cutoff = min_cutoff
        self.beta = beta
        self.derivative_cutoff = derivative_cutoff
        self._ids = np.zeros(0, np.int64)  # rising; the rows of the arrays below
        self._points = np.zeros((0, 0, 2))
        self._speeds = np.zeros((0, 0, 2))
        self._times = np.zeros((0, 0))  # when each joint was last seen, -inf for never

    def __call__(
        self, ids: ArrayLike, keypoints: NDArray[np.floating], time: float
    ) -> NDArray[np.floating]:
        """The keypoints (P, K, 3), x, y and score, with smoothed x and y.

        ids: (P,), all different; -1 is nobody's id, and its keypoints stay. time: seconds, later
        than at the call before. Joints with a score of 0 were not found and stay as they are.
        """
        people = np.asarray(ids, np.int64)
        result = keypoints.copy()
        rows = np.flatnonzero(people >= 0)
        if not len(rows):
            return result
        points = keypoints[rows, :, :2].astype(np.float64)
        found = keypoints[rows, :, 2] > 0
        slots = self._slots(people[rows], points.shape[1], time)
        elapsed = time - self._times[slots]
        known = found & (elapsed > 0) & (elapsed <= FORGET_SECONDS)
        seconds = np.where(known, elapsed, 1.0)[..., None]
        before = self._points[slots]
        speeds = np.where(known[..., None], (points - before) / seconds, 0)
        share = _share(self.derivative_cutoff, seconds)
        speeds = np.where(known[..., None], _mix(self._speeds[slots], speeds, share), 0)
        pace = np.linalg.norm(speeds, axis=2, keepdims=True) / _sizes(points, found)
        share = _share(self.min_cutoff + self.beta * pace, seconds)
        smooth = np.where(known[..., None], _mix(before, points, share), points)
        self._points[slots] = np.where(found[..., None], smooth, before)
        self._speeds[slots] = np.where(found[..., None], speeds, self._speeds[slots])
        self._times[slots] = np.where(found, time, self._times[slots])
        result[rows, :, :2] = np.where(found[..., None], smooth, keypoints[rows, :, :2])
        return result

    def _slots(self, ids: NDArray[np.int64], joints: int, time: float) -> NDArray[np.int64]:
        """The rows of these people; new ones are added, those who are gone are removed."""
        recent = self._times.max(axis=1, initial=-np.inf) >= time - FORGET_SECONDS
        kept = np.flatnonzero(recent | np.isin(self._ids, ids))
        new = np.setdiff1d(ids, self._ids)
        all_ids = np.concatenate([self._ids[kept], new])
        order = np.argsort(all_ids)
        shape = (len(new), joints, 2)
        self._ids = all_ids[order]
        self._points = _extended(self._points, kept, np.zeros(shape))[order]
        self._speeds = _extended(self._speeds, kept, np.zeros(shape))[order]
        self._times = _extended(self._times, kept, np.full(shape[:2], -np.inf))[order]
        return np.searchsorted(self._ids, ids)


def _extended(values: Doubles, kept: NDArray[np.int64], new: Doubles) -> Doubles:
    return np.concatenate([values[kept].reshape(-1, *new.shape[1:]), new])


def _share(cutoff: ArrayLike, seconds: Doubles) -> Doubles:
    """The weight of the new value in a low-pass filter: 1 / (1 + tau / dt), tau = 1 / (2 pi f)."""
    return 1 / (1 + 1 / (2 * np.pi * np.asarray(cutoff) * seconds))


def _mix(before: Doubles, new: Doubles, share: Doubles) -> Doubles:
    return before + share * (new - before)


def _sizes(points: Doubles, found: NDArray[np.bool_]) -> Doubles:
    """(P, 1, 1): the square root of the area of the box around the found joints, at least 1 px."""
    low = np.where(found[..., None], points, np.inf).min(axis=1)
    high = np.where(found[..., None], points, -np.inf).max(axis=1)
    sides = np.maximum(high - low, 1)
    sizes = np.sqrt(np.where(found.any(axis=1), sides.prod(axis=1), 1))
    return sizes[:, None, None]
