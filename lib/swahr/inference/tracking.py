"""Ids of people through a video: who of this frame is who of the frames before.

People of two frames are compared by object keypoint similarity (OKS), as in B. Xiao, H. Wu, Y. Wei,
Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018, and assigned to each other with
the greatest total similarity. Each person is expected where its motion leads it (constant
velocity), also while somebody else hides it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swahr.codec.assignment import solve
from swahr.codec.doubles import similarities

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

VELOCITY_SHARE = 0.4  # of the newest step in the velocity of a person
# Factors of the joints' sigmas; the similarities are averaged. The wide one finds people after a
# leap, the narrow one tells those apart who are close to each other.
SPREADS = (1.5, 0.5)
# Of its similarity, what a person keeps for each second in which it was not found: somebody who was
# seen a moment ago goes first.
HIDDEN_SHARE = 0.8
MEMORY_SECONDS = 1.0  # a joint that was not found for longer is forgotten


class Tracker:
    """Gives the people of each frame their ids, whole numbers from 1 on.

    sigmas: of the K joints, see Skeleton. min_oks: people of two frames who are less alike are
    different people. max_hidden: seconds after which a person who is not found is forgotten; a
    later one gets a new id. min_score: people with a lower score keep the id of somebody known, but
    get no new one.
    """

    def __init__(
        self,
        sigmas: Sequence[float],
        *,
        min_oks: float = 0.05,
        max_hidden: float = 2.0,
        min_score: float = 0.0,
    ) -> None:
        self._sigmas = [[spread * sigma for sigma in sigmas] for spread in SPREADS]
        self.min_oks = min_oks
        self.max_hidden = max_hidden
        self.min_score = min_score
        self._count = 0  # ids given so far
        self._ids = np.zeros(0, np.int64)
        self._points = np.zeros((0, len(sigmas), 2))
        self._found_at = np.zeros((0, len(sigmas)))  # seconds, of each joint
        self._velocities = np.zeros((0, 2))  # px a second
        self._seen_at = np.zeros(0)  # seconds, of each person

    def __call__(
        self, keypoints: NDArray[np.floating], scores: NDArray[np.floating], time: float
    ) -> Ids:
        """The ids (P,) of the people of the next frame; -1 for those who get none.

        keypoints: (P, K, 3), x, y and score; 0 = not found. scores: (P,). time: seconds, not
        earlier than at the call before.
        """
        self._forget(time)
        rows = self._match(keypoints, time)
        ids = np.full(len(rows), -1)
        ids[rows >= 0] = self._ids[rows[rows >= 0]]
        self._update(rows, keypoints, time)
        new = np.flatnonzero((rows < 0) & (scores >= self.min_score) & _any_joint(keypoints))
        ids[new] = self._count + 1 + np.arange(len(new))
        self._add(ids[new], keypoints[new], time)
        return ids

    def _forget(self, time: float) -> None:
        kept = time - self._seen_at <= self.max_hidden
        self._ids = self._ids[kept]
        self._points = self._points[kept]
        self._found_at = self._found_at[kept]
        self._velocities = self._velocities[kept]
        self._seen_at = self._seen_at[kept]

    def _expected(self, time: float) -> Doubles:
        """Keypoints (N, K, 3) of the known people at this time."""
        hidden = time - self._seen_at
        points = self._points + (self._velocities * hidden[:, None])[:, None]
        recent = time - self._found_at <= MEMORY_SECONDS + hidden[:, None]
        return np.concatenate([points, recent[..., None]], axis=2)

    def _match(self, keypoints: NDArray[np.floating], time: float) -> Ids:
        """The row of each of P people among the N known ones, -1 for none."""
        count = len(keypoints)
        known = len(self._ids)
        rows = np.full(count, -1)
        if not count or not known:
            return rows
        expected = self._expected(time)
        alike = np.mean([similarities(keypoints, each, expected) for each in self._sigmas], axis=0)
        alike *= HIDDEN_SHARE ** (time - self._seen_at)
        costs = np.ones((max(count, known),) * 2)
        costs[:count, :known] = np.where(alike >= self.min_oks, 1 - alike, 1)
        columns = solve(costs)[:count]
        inside = np.flatnonzero(columns < known)
        good = inside[alike[inside, columns[inside]] >= self.min_oks]
        rows[good] = columns[good]
        return rows

    def _update(self, rows: Ids, keypoints: NDArray[np.floating], time: float) -> None:
        """Move the known people of these rows to their new places."""
        people = np.flatnonzero(rows >= 0)
        slots = rows[people]
        points = keypoints[people, :, :2].astype(np.float64)
        found = keypoints[people, :, 2] > 0
        elapsed = (time - self._seen_at[slots])[:, None]
        moves = points - self._points[slots]
        recent = found & (time - self._found_at[slots] <= MEMORY_SECONDS + elapsed)
        step = _mean(moves, recent)
        measured = step / np.maximum(elapsed, 1e-6)
        before = self._velocities[slots]
        usable = (recent.sum(axis=1) > 0)[:, None] & (elapsed > 0)
        velocity = np.where(usable, before + VELOCITY_SHARE * (measured - before), before)
        self._velocities[slots] = velocity
        carried = self._points[slots] + step[:, None]
        self._points[slots] = np.where(found[..., None], points, carried)
        self._found_at[slots] = np.where(found, time, self._found_at[slots])
        self._seen_at[slots] = time

    def _add(self, ids: Ids, keypoints: NDArray[np.floating], time: float) -> None:
        count = len(ids)
        found = keypoints[..., 2] > 0
        self._count += count
        self._ids = np.concatenate([self._ids, ids])
        self._points = np.concatenate([self._points, keypoints[..., :2]])
        self._found_at = np.concatenate([self._found_at, np.where(found, time, -np.inf)])
        self._velocities = np.concatenate([self._velocities, np.zeros((count, 2))])
        self._seen_at = np.concatenate([self._seen_at, np.full(count, time)])


def _any_joint(keypoints: NDArray[np.floating]) -> NDArray[np.bool_]:
    return (keypoints[..., 2] > 0).sum(axis=1) > 0


def _mean(moves: Doubles, used: NDArray[np.bool_]) -> Doubles:
    """The mean (P, 2) of the moves (P, K, 2) that are used (P, K); 0 where none is."""
    total = np.where(used[..., None], moves, 0).sum(axis=1)
    return total / np.maximum(used.sum(axis=1), 1)[:, None]
