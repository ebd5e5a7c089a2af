"""What training adds to the labelled joints of people: a sigma by size, and the centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScaleSigma:
    """The sigma of a person's target Gaussians, in map pixels: longer side of the box / base_size x
    base_sigma. whole: round(sigma + 0.5), as in the published code, which rounds up; a whole number
    stays if it is even, and else becomes the next one.
    """

    base_size: float = 256.0
    base_sigma: float = 2.0
    whole: bool = False

    def __call__(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) as x, y, width, height -> (N,)."""
        sigma = boxes[:, 2:].max(1) / self.base_size * self.base_sigma
        return (np.round(sigma + 0.5) if self.whole else sigma).astype(np.float32)


def joint_centers(joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, K, 3) -> (N, 1, 3): the mean of each person's labelled joints, labelled if there are
    any.
    """
    labelled = joints[..., 2:] > 0
    count = labelled.sum(1, keepdims=True)
    mean = (joints[..., :2] * labelled).sum(1, keepdims=True) / np.maximum(count, 1)
    return np.concatenate([mean, count > 0], 2, dtype=np.float32)
