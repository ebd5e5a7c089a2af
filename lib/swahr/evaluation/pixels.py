"""Figures that need no tolerance of a keypoint: distances in pixels, and the share of keypoints
that are near enough (PCK).

They are for sets whose sigmas are guesses, with which AP says little.
"""

from __future__ import annotations

import numpy as np

from swahr.evaluation.figures import UNDEFINED
from swahr.evaluation.matching import Bools, Floats, Ints, Run, match
from swahr.skeleton import COCO, CROWD_POSE, Skeleton

NEAR = 0.1  # OKS from which a detection is taken to mean a person
PCK_FRACTION = 0.2
PIXEL_NAMES = ("error (mean px)", "error (median px)", f"PCK {PCK_FRACTION:g}")


def needs_pixels(skeleton: Skeleton) -> bool:
    """Whether a validation gives pixel_figures: for keypoints other than COCO's and CrowdPose's."""
    return skeleton.keypoints not in (COCO.keypoints, CROWD_POSE.keypoints)


def pixel_figures(run: Run) -> dict[str, float]:
    """Mean and median distance in pixels, and PCK, by the PIXEL_NAMES.

    The distances are those of the keypoints that were found of people who were found; PCK counts
    all labelled keypoints. UNDEFINED without any.
    """
    person = meant_people(run)
    distances = mean_and_median(pixel_errors(run, person))
    return dict(zip(PIXEL_NAMES, [*distances, pck(run, person)], strict=True))


def meant_people(run: Run) -> Ints:
    """(D,) index of the person that each detection means, at an OKS of at least NEAR; or -1."""
    return match(run, np.array([NEAR])).person[0]


def labelled_joints(run: Run, person: Ints) -> Bools:
    """(D, K) whether each joint is labelled of the person (D,) that the detection means; False
    where it means nobody (-1) or somebody who is ignored.
    """
    labelled = np.zeros(run.found.keypoints.shape[:2], bool)
    meant = person >= 0
    labelled[meant] = run.truth.counted_joints[person[meant]]
    return labelled


def judged_joints(run: Run, person: Ints) -> Bools:
    """(D, K) whether each joint is one of labelled_joints and was found."""
    return labelled_joints(run, person) & run.found.has_joint


def pixel_errors(run: Run, person: Ints) -> Floats:
    """(D, K) distance in pixels to the true place of the person (D,) that the detection means; NaN
    where it means nobody who counts, or the keypoint is not labelled, or was not found.
    """
    distances = np.full(run.found.keypoints.shape[:2], np.nan)
    row, column = np.nonzero(judged_joints(run, person))
    step = run.found.keypoints[row, column] - run.truth.keypoints[person[row], column]
    distances[row, column] = np.hypot(step[:, 0], step[:, 1])
    return distances


def mean_and_median(distances: Floats) -> tuple[float, float]:
    """Of the distances that are not NaN; UNDEFINED without any."""
    measured = distances[np.isfinite(distances)]
    if not len(measured):
        return UNDEFINED, UNDEFINED
    return float(measured.mean()), float(np.median(measured))


def torso(skeleton: Skeleton) -> tuple[int, int] | None:
    """Indices of the keypoints that span the torso; None where the skeleton has no such names."""
    names = skeleton.keypoints
    wanted = ("left_shoulder", "right_hip")
    if not set(wanted) <= set(names):
        return None
    return names.index(wanted[0]), names.index(wanted[1])


def pck_lengths(run: Run) -> Floats:
    """(G,) a person's length in pixels whose PCK_FRACTION a keypoint may be off: the torso (left
    shoulder to right hip; NaN where one is not labelled), or the longer side of the box where the
    skeleton has no torso.
    """
    ends = torso(run.skeleton)
    if ends is None:
        return run.truth.boxes[:, 2:].max(axis=1, initial=0.0)
    first = run.truth.keypoints[:, ends[0]]
    second = run.truth.keypoints[:, ends[1]]
    length = np.hypot(first[:, 0] - second[:, 0], first[:, 1] - second[:, 1])
    return np.where((first[:, 2] > 0) & (second[:, 2] > 0) & (length > 0), length, np.nan)


def pck(run: Run, person: Ints) -> float:
    """PCK of all keypoints together; those of missed people are wrong. UNDEFINED where nothing
    is labelled.

    person: (D,), see meant_people.
    """
    right, labelled = pck_counts(run, person)
    return float(right.sum() / labelled.sum()) if labelled.any() else UNDEFINED


def pck_counts(run: Run, person: Ints) -> tuple[Ints, Ints]:
    """(K,) and (K,): how many of each keypoint are right, and how many are labelled, of people who
    have a length (pck_lengths).

    person: (D,), see meant_people.
    """
    lengths = pck_lengths(run)
    limit = np.full(len(person), np.nan)
    meant = person >= 0
    limit[meant] = PCK_FRACTION * lengths[person[meant]]
    right = pixel_errors(run, person) <= limit[:, None]
    return right.sum(axis=0), run.truth.counted_joints[np.isfinite(lengths)].sum(axis=0)
