"""Joints that were given to the wrong person: the mistakes of grouping.

They are told apart from joints in a wrong place with the truth at hand: the joint lies on the same
joint of somebody else. The report's swaps (Ronchi and Perona, ICCV 2017) also count the other
person's mirrored joint, which is a mistake of left and right besides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swahr.evaluation.figures import UNDEFINED
from swahr.evaluation.matching import Bools, Ints, Run, pair_similarities
from swahr.evaluation.pixels import judged_joints, meant_people
from swahr.words import counted

CLOSE = 0.5  # keypoint similarity from which a joint lies on a place of the truth


class Swaps(NamedTuple):
    """How many joints were given to the wrong person.

    joints: those. judged: joints that were found of people who were found, where the person's own
    joint is labelled. images: those with at least one swapped joint. all_images: of the set.
    """

    joints: int
    judged: int
    images: int
    all_images: int

    @property
    def joint_share(self) -> float:
        """Share of the judged joints; UNDEFINED without any."""
        return self.joints / self.judged if self.judged else UNDEFINED

    @property
    def image_share(self) -> float:
        """Share of the images; UNDEFINED without any."""
        return self.images / self.all_images if self.all_images else UNDEFINED

    def __str__(self) -> str:
        return (
            f"{self.joints:,} of {counted(self.judged, 'joint')} given to the wrong person, "
            f"in {self.images:,} of {counted(self.all_images, 'image')}"
        )


def count_swaps(run: Run) -> Swaps:
    """The swaps of a run, see `matching.checked_run`."""
    person = meant_people(run)
    judged = judged_joints(run, person)
    swapped = swapped_joints(run, person) & judged
    images = np.unique(run.found.image[swapped.any(axis=1)])
    return Swaps(int(swapped.sum()), int(judged.sum()), len(images), len(run.truth.image_ids))


def swapped_joints(run: Run, person: Ints) -> Bools:
    """(D, K) joints whose similarity to the same joint of another person is at least CLOSE, and to
    that of the person (D,) that the detection means is not.
    """
    detection, other = run.pairs
    on_joint = pair_similarities(run, np.arange(run.skeleton.num_keypoints)) >= CLOSE
    is_own = (other == person[detection])[:, None]
    on_own = np.zeros(run.found.keypoints.shape[:2], bool)
    on_other = on_own.copy()
    np.logical_or.at(on_own, detection, on_joint & is_own)
    np.logical_or.at(on_other, detection, on_joint & ~is_own)
    return on_other & ~on_own
