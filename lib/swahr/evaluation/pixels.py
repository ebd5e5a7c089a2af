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


def found_joints(run: Run) -> Bools:
    """(D, K) whether a detection has the keypoint: those that were not found have the score 0. A
    detection without any score has all.
    """
    scored = run.found.keypoints[..., 2] > 0
    return scored | ~scored.any(axis=1, keepdims=True)


def pixel_errors(run: Run, person: Ints) -> Floats:
    """(D, K) distance in pixels to the true place of the person (D,) that the detection means; NaN
    where it means nobody who counts, or the keypoint is not labelled, or was not found.
    """
    distances = np.full(run.found.keypoints.shape[:2], np.nan)
    meant = np.flatnonzero(person >= 0)
    owner = person[meant]
    step = run.found.keypoints[meant] - run.truth.keypoints[owner]
    counted = run.truth.labelled[owner] & ~run.truth.ignored[owner, None] & found_joints(run)[meant]
    distances[meant] = np.where(counted, np.hypot(step[..., 0], step[..., 1]), np.nan)
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
    lengths = pck_lengths(run)
    counted = (run.truth.labelled & ~run.truth.ignored[:, None]).sum(axis=1)
    total = int(counted[np.isfinite(lengths)].sum())
    if not total:
        return UNDEFINED
    limit = np.full(len(person), np.nan)
    meant = person >= 0
    limit[meant] = PCK_FRACTION * lengths[person[meant]]
    return float((pixel_errors(run, person) <= limit[:, None]).sum() / total)
