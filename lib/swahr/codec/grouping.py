"""Peaks to people: joints that carry the same tag belong together.

A. Newell et al., Associative Embedding, 2017, with the matching of the published HigherHRNet and
SWAHR code. One joint type after another, peaks are assigned to the people found so far at the least
sum of round(tag distance) x 100 - score; one that is too far from the person it gets founds a new
one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swahr.codec.assignment import solve
from swahr.codec.peaks import Peaks
from swahr.codec.tile_bounds import Floats
from swahr.jit import kernel

NOBODY = 1e10  # the cost of leaving a peak to nobody, where there are more peaks than people
SCORE_DIGITS = 100  # a step of 1 in rounded tag distance outweighs every score

Members = NDArray[np.int64]


def group(
    peaks: Peaks,
    order: NDArray[np.int64],
    *,
    max_people: int,
    tag_threshold: float,
    use_detection_val: bool,
    ignore_too_much: bool,
) -> Members:
    """People (N, K), in the order in which they were founded: the number of the peak that is each
    of their joints, -1 where none.

    order (K,): the joints in the order in which they are grouped. max_people: only so many of the
    people founded can be joined; with ignore_too_much no more are founded once there are that many.
    tag_threshold: peaks at this tag distance or farther are not the same person. use_detection_val:
    costs are rounded and weighted with the score, else the plain distance.
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


def mean_tags(peaks: Peaks, members: Members) -> Floats:
    """The mean tag (N, T) of the joints each of the people (N, K) has."""
    return _mean_tags(peaks.tags, members)


@kernel
def _group(
    tags, scores, counts, order, max_people, tag_threshold, use_detection_val, ignore_too_much
):  # type: ignore[no-untyped-def]
    joints = tags.shape[0]
    values = tags.shape[2]
    most = counts.sum()
    members = np.full((most, joints), -1)
    history = np.empty(
        (most, joints, values), np.float32
    )  # the tags each person was given, in order
    lengths = np.zeros(most, np.int64)
    keys = np.empty(most, np.float32)
    people = 0
    for k in order:
        count = counts[k]
        known = min(people, max_people)
        if count == 0 or (known > 0 and ignore_too_much and known == max_people):
            continue
        if known == 0:
            for n in range(count):
                people = _found(k, n, tags[k, n], members, history, lengths, keys, people)
            continue
        distances = _distances(tags[k, :count], history, lengths, known)
        columns = solve(_costs(distances, scores[k], use_detection_val))
        for n in range(count):
            person = columns[n]
            if person < known and distances[n, person] < tag_threshold:
                members[person, k] = n
                history[person, lengths[person]] = tags[k, n]
                lengths[person] += 1
            else:
                people = _found(k, n, tags[k, n], members, history, lengths, keys, people)
    return members[:people]


@kernel
def _found(k, n, tag, members, history, lengths, keys, people) -> int:  # type: ignore[no-untyped-def]
    """Peak n of joint k founds a person, or takes over the one founded with the same first tag; the
    people then.
    """
    person = 0
    while person < people and keys[person] != tag[0]:
        person += 1
    keys[person] = tag[0]
    members[person, k] = n
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
    """Square costs: people beyond the known cost NOBODY; peaks beyond the given cost nothing."""
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
        costs[n, known:] = NOBODY
    return costs


@kernel
def _mean(tags, count, mean) -> None:  # type: ignore[no-untyped-def]
    """The float32 mean of the first `count` of tags (n, T), added up in the order in which NumPy's
    mean over axis 0 does it.

    Distances are rounded to whole numbers, so the last bit can matter: rows are added one by one,
    but a single column (T = 1) of eight or more in eight strands.
    """
    values = tags.shape[1]
    start = 0
    if values == 1 and count >= 8:
        strands = tags[:8, 0].copy()
        start = count - count % 8
        for i in range(8, start):
            strands[i % 8] += tags[i, 0]
        mean[0] = ((strands[0] + strands[1]) + (strands[2] + strands[3])) + (
            (strands[4] + strands[5]) + (strands[6] + strands[7])
        )
    else:
        mean[:] = 0
    for i in range(start, count):
        for t in range(values):
            mean[t] += tags[i, t]
    for t in range(values):
        mean[t] /= np.float32(count)


@kernel
def _mean_tags(tags, members):  # type: ignore[no-untyped-def]
    joints = tags.shape[0]
    values = tags.shape[2]
    means = np.empty((members.shape[0], values), np.float32)
    own = np.empty((joints, values), np.float32)
    for person in range(members.shape[0]):
        count = 0
        for k in range(joints):
            if members[person, k] >= 0:
                own[count] = tags[k, members[person, k]]
                count += 1
        _mean(own, count, means[person])
    return means
