"""Peaks to people: joints that carry the same tag belong together.

A. Newell et al., Associative Embedding, 2017, with the matching of the published HigherHRNet and
SWAHR code. One joint type after another, peaks are assigned to the people created so far at the
least sum of round(tag distance) x 100 - score. A peak that is too far from its person creates a new
one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swahr.codec.assignment import solve
from swahr.codec.peaks import Peaks
from swahr.codec.tile_bounds import Floats
from swahr.jit import kernel

NO_MATCH_COST = 1e10  # of a peak without a person, where there are more peaks than people
FARTHEST = 1e100  # at most; the assignment subtracts costs, and cannot subtract infinite ones
SCORE_DIGITS = 100  # a step of 1 in rounded tag distance outweighs every score

PeakOfJoint = NDArray[np.int64]


def group(
    peaks: Peaks,
    order: NDArray[np.int64],
    *,
    max_people: int,
    tag_threshold: float,
    use_detection_val: bool,
    ignore_too_much: bool,
) -> PeakOfJoint:
    """People (N, K), in the order in which they were created: for each joint the index of its peak,
    -1 where it is missing.

    order: (K,), the joints in the order in which they are grouped.
    max_people: only the first max_people people created can be joined.
    ignore_too_much: create no more people once there are max_people.
    tag_threshold: peaks at this tag distance or farther are not the same person.
    use_detection_val: costs are rounded distances less the score, else the distances.
    """
    return _group(
        peaks.tags,
        peaks.scores,
        peaks.counts,
        order,
        max_people,
        float(tag_threshold),
        use_detection_val,
        ignore_too_much,
    )


def mean_tags(peaks: Peaks, peak_of_joint: PeakOfJoint) -> Floats:
    """The mean tag (N, T) of the joints that each of the people (N, K) has."""
    return _mean_tags(peaks.tags, peak_of_joint)


@kernel
def _group(
    tags, scores, counts, order, max_people, tag_threshold, use_detection_val, ignore_too_much
):  # type: ignore[no-untyped-def]
    joints = tags.shape[0]
    values = tags.shape[2]
    most = counts.sum()
    peak_of_joint = np.full((most, joints), -1)
    # The tags that each person was given, in order, and their number.
    history = np.empty((most, joints, values), np.float32)
    lengths = np.zeros(most, np.int64)
    first_tags = np.empty(most, np.float32)
    people = 0
    for k in order:
        count = counts[k]
        known = min(people, max_people)
        if count == 0 or (known > 0 and ignore_too_much and known == max_people):
            continue
        if known == 0:
            for n in range(count):
                people = _new_person(
                    k, n, tags[k, n], peak_of_joint, history, lengths, first_tags, people
                )
            continue
        distances = _distances(tags[k, :count], history, lengths, known)
        columns = solve(_costs(distances, scores[k], use_detection_val))
        for n in range(count):
            person = columns[n]
            if person < known and distances[n, person] < tag_threshold:
                peak_of_joint[person, k] = n
                history[person, lengths[person]] = tags[k, n]
                lengths[person] += 1
            else:
                people = _new_person(
                    k, n, tags[k, n], peak_of_joint, history, lengths, first_tags, people
                )
    return peak_of_joint[:people]


@kernel
def _new_person(k, n, tag, peak_of_joint, history, lengths, first_tags, people) -> int:  # type: ignore[no-untyped-def]
    """Create a person from peak n of joint k, or reset the one created with the same first tag; the
    number of people afterwards.
    """
    person = 0
    while person < people and first_tags[person] != tag[0]:
        person += 1
    first_tags[person] = tag[0]
    peak_of_joint[person, k] = n
    history[person, 0] = tag
    lengths[person] = 1
    return max(people, person + 1)


@kernel
def _distances(tags, history, lengths, known):  # type: ignore[no-untyped-def]
    """Euclidean distances (n, known) in float64 of tags (n, T) from the float32 mean tags of the
    known people.
    """
    count, values = tags.shape
    distances = np.empty((count, known))
    mean = np.empty(values, np.float32)
    for person in range(known):
        _mean(history[person], lengths[person], mean)
        for n in range(count):
            total = 0.0
            for t in range(values):
                difference = np.float64(tags[n, t]) - np.float64(mean[t])
                total += difference * difference
            distances[n, person] = np.sqrt(total)
    return distances


@kernel
def _costs(distances, scores, use_detection_val):  # type: ignore[no-untyped-def]
    """Costs, padded to a square: NO_MATCH_COST in columns without a person, 0 in rows without a
    peak.
    """
    count, known = distances.shape
    size = max(count, known)
    costs = np.zeros((size, size))
    for n in range(count):
        for person in range(known):
            costs[n, person] = distances[n, person]
            if use_detection_val:
                costs[n, person] = np.rint(distances[n, person]) * SCORE_DIGITS - np.float64(
                    scores[n]
                )
            costs[n, person] = min(costs[n, person], FARTHEST)
        costs[n, known:] = NO_MATCH_COST
    return costs


@kernel
def _mean(tags, count, mean) -> None:  # type: ignore[no-untyped-def]
    """The float32 mean of the first `count` of tags (n, T), written to mean (T,).

    Distances are rounded to whole numbers, so the last bit can matter. Additions are done in the
    order of NumPy's mean over axis 0: row by row, but a single column (T = 1) of eight or more rows
    in eight partial sums.
    """
    values = tags.shape[1]
    start = 0
    if values == 1 and count >= 8:
        partial = tags[:8, 0].copy()
        start = count - count % 8
        for i in range(8, start):
            partial[i % 8] += tags[i, 0]
        mean[0] = ((partial[0] + partial[1]) + (partial[2] + partial[3])) + (
            (partial[4] + partial[5]) + (partial[6] + partial[7])
        )
    else:
        mean[:] = 0
    for i in range(start, count):
        for t in range(values):
            mean[t] += tags[i, t]
    for t in range(values):
        mean[t] /= np.float32(count)


@kernel
def _mean_tags(tags, peak_of_joint):  # type: ignore[no-untyped-def]
    joints = tags.shape[0]
    values = tags.shape[2]
    means = np.empty((peak_of_joint.shape[0], values), np.float32)
    own = np.empty((joints, values), np.float32)
    for person in range(peak_of_joint.shape[0]):
        count = 0
        for k in range(joints):
            if peak_of_joint[person, k] >= 0:
                own[count] = tags[k, peak_of_joint[person, k]]
                count += 1
        _mean(own, count, means[person])
    return means
