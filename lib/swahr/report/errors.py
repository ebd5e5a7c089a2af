"""Kinds of errors, and the AP that each of them costs.

Taxonomy: M. R. Ronchi and P. Perona, Benchmarking and Error Diagnosis in Multi-Instance Pose
Estimation, ICCV 2017. Each detection is assigned to a person at an OKS of at least NEAR. A
keypoint of a detection is judged by its similarity ks to the labelled keypoints of the image,
where ks = exp(-d^2 / (2 a (2 sigma)^2)) for the distance d from a keypoint with the constant sigma
of a person of area a:

good        ks to its true place is at least GOOD
jitter      ks to its true place is at least CLOSE
inversion   ks to the mirrored keypoint (left for right) of the same person is at least CLOSE
swap        ks to the same or the mirrored keypoint of another person is at least CLOSE
miss        none of these

The paper leaves open what a keypoint is that is close to several places. Here it is good if it is
good for its true place; otherwise the place with the highest ks decides.

Of whole people: a score error is a person for whom the order of the scores chose a detection with
a lower OKS than another one had. A detection without a person is a double if it is NEAR someone who
has a detection already, else background (the paper does not tell them apart). A person without a
detection is missed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from swahr.evaluation.matching import (
    Bools,
    Floats,
    Ints,
    Run,
    average_precision,
    match,
    pair_similarities,
)
from swahr.evaluation.pixels import NEAR, labelled_joints, meant_people
from swahr.evaluation.swaps import CLOSE

GOOD = 0.85  # keypoint similarity, see above

NOT_JUDGED = -1  # code of a keypoint of nobody, or that is not labelled
KEYPOINT_KINDS = ("good", "jitter", "inversion", "swap", "miss")  # by their codes, from 0
KEYPOINT_ERRORS = KEYPOINT_KINDS[1:]
PERSON_ERRORS = ("score", "double", "background", "missed")
# In the order in which the cumulative column corrects them, which is the paper's.
ERRORS = ("miss", "swap", "inversion", "jitter", *PERSON_ERRORS)


@dataclass(frozen=True)
class Errors:
    """What is wrong with D detections of G people with K keypoints.

    person (D,): index of the person that a detection means, or -1; a crowd counts as a person here.
    kinds (D, K): index in KEYPOINT_KINDS or NOT_JUDGED. similarity (D, K): ks to the true place;
    0 where not judged. elsewhere (D, K): highest ks to a wrong place. score, missed (G,): people
    with this error. double, background (D,): detections with this error.
    """

    person: Ints
    kinds: Ints
    similarity: Floats
    elsewhere: Floats
    score: Bools
    missed: Bools
    double: Bools
    background: Bools

    def count(self, kind: str) -> int:
        """How many keypoints, people or detections have errors of this kind (a name in ERRORS)."""
        if kind in KEYPOINT_KINDS:
            return int((self.kinds == KEYPOINT_KINDS.index(kind)).sum())
        return int(getattr(self, kind).sum())


def find_errors(run: Run) -> Errors:
    """Judge every detection, keypoint and person of a run."""
    person = meant_people(run)
    kinds, similarity, elsewhere = _judge_keypoints(run, person)
    detection, _ = run.pairs
    near_someone = np.zeros(len(person), bool)
    near_someone[detection[run.oks >= NEAR]] = True
    alone = person < 0
    has_detection = np.zeros(len(run.truth.areas), bool)
    has_detection[person[person >= 0]] = True
    return Errors(
        person=person,
        kinds=kinds,
        similarity=similarity,
        elsewhere=elsewhere,
        score=_score_errors(run, person),
        missed=~run.truth.ignored & ~has_detection,
        double=alone & near_someone,
        background=alone & ~near_someone,
    )


def corrected_ap(run: Run, errors: Errors, kinds: Collection[str]) -> float:
    """AP after the errors of these kinds (names in ERRORS) are corrected, in the paper's way.

    A keypoint moves towards its true place: to ks GOOD after jitter, to CLOSE after a miss, to the
    ks that it had for the wrong place after an inversion or a swap. Scores become the detection's
    highest OKS, doubles and background are removed, missed people are ignored.
    """
    codes = [KEYPOINT_KINDS.index(kind) for kind in kinds if kind in KEYPOINT_ERRORS]
    wrong = np.isin(errors.kinds, codes)
    remove = np.zeros(len(errors.person), bool)
    for kind in ("double", "background"):
        if kind in kinds:
            remove |= getattr(errors, kind)
    better = run.with_keypoints(_moved(run, errors, wrong)).without(remove)
    if "score" in kinds:
        better = better.with_scores(_best_oks(better))
    counted = ~errors.missed if "missed" in kinds else None
    return average_precision(better, match(better, counted=counted))


def _judge_keypoints(run: Run, person: Ints) -> tuple[Ints, Floats, Floats]:
    """Kinds, ks to the true place and highest ks to a wrong place, each (D, K)."""
    mirror = np.asarray(run.skeleton.flip_index)
    detection, other = run.pairs
    same = pair_similarities(run, np.arange(len(mirror)))
    mirrored = pair_similarities(run, mirror)  # of a keypoint without mirror image: the same
    is_own = other == person[detection]
    shape = (len(person), len(mirror))
    own, inverted, swapped = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    own[detection[is_own]] = same[is_own]
    inverted[detection[is_own]] = mirrored[is_own]
    foreign = ~is_own
    np.maximum.at(swapped, detection[foreign], np.maximum(same, mirrored)[foreign])

    elsewhere = np.maximum(inverted, swapped)
    is_wrong = np.where(inverted >= swapped, _code("inversion"), _code("swap"))
    kinds = np.where(own >= elsewhere, _code("jitter"), is_wrong)
    kinds = np.where(np.maximum(own, elsewhere) < CLOSE, _code("miss"), kinds)
    kinds = np.where(own >= GOOD, _code("good"), kinds)
    judged = labelled_joints(run, person)
    kinds = np.where(judged, kinds, NOT_JUDGED)
    return kinds, np.where(judged, own, 0.0), np.where(judged, elsewhere, 0.0)


def _code(kind: str) -> int:
    return KEYPOINT_KINDS.index(kind)


def _moved(run: Run, errors: Errors, wrong: Bools) -> Floats:
    """Keypoints (D, K, 3) with those of `wrong` (D, K) on the line to their true place, at the
    distance that the corrected ks stands for.
    """
    row, column = np.nonzero(wrong)
    kind = errors.kinds[row, column]
    target = errors.elsewhere[row, column]
    target = np.where(kind == _code("jitter"), GOOD, target)
    target = np.where(kind == _code("miss"), CLOSE, target)
    person = errors.person[row]
    place = run.truth.keypoints[person, column, :2]
    step = run.found.keypoints[row, column, :2] - place
    sigma = np.asarray(run.skeleton.sigmas)[column]
    distance = np.sqrt(-2 * np.log(target) * run.truth.areas[person]) * 2 * sigma
    length = np.sqrt((step**2).sum(axis=1))
    keypoints = run.found.keypoints.copy()
    keypoints[row, column, :2] = place + step * (distance / length)[:, None]
    return keypoints


def _best_oks(run: Run) -> Floats:
    """(D,) highest OKS of each detection with a person who counts."""
    detection, person = run.pairs
    counted = ~run.truth.ignored[person]
    best = np.zeros(len(run.found.scores))
    np.maximum.at(best, detection[counted], run.oks[counted])
    return best


def _score_errors(run: Run, person: Ints) -> Bools:
    """(G,) people whose detection has a lower OKS than the one that OKS as scores would choose."""
    better = run.with_scores(_best_oks(run))
    chosen = _oks_of_people(run, person)
    best = _oks_of_people(better, match(better, np.array([NEAR])).person[0])
    return (best > chosen) & (chosen > 0) & ~run.truth.ignored


def _oks_of_people(run: Run, person: Ints) -> Floats:
    """(G,) OKS of each person's detection; 0 without one."""
    detection, other = run.pairs
    is_own = other == person[detection]
    values = np.zeros(len(run.truth.areas))
    np.maximum.at(values, other[is_own], run.oks[is_own])
    return values
