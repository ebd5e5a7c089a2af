"""Figures of a run by size of the person, crowding and keypoint; scores against OKS; intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swahr.evaluation.figures import UNDEFINED, is_defined
from swahr.evaluation.matching import (
    THRESHOLDS,
    Bools,
    Floats,
    Ints,
    Matches,
    Run,
    average_precision,
    match,
    precision_recall,
)
from swahr.evaluation.pixels import mean_and_median, pck_counts, pixel_errors
from swahr.report.errors import KEYPOINT_KINDS, Errors

OVERLAP = 0.1  # IoU of boxes from which two people overlap
CROWDING = ((0, 0, "none"), (1, 1, "1"), (2, 3, "2 to 3"), (4, None, "4 or more"))
SCORE_BINS = 10
RESAMPLES = 1000  # of the bootstrap
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Group:
    """AP of the people in one group; their number in the truth."""

    name: str
    people: int
    ap: float


@dataclass(frozen=True)
class KeypointFigures:
    """Figures of one keypoint; UNDEFINED where nothing is labelled.

    ap: see keypoint_figures. pck: share of the labelled keypoints that are right. mean, median:
    distance in pixels, over assigned people in whom the keypoint was found. kinds: number of each
    of KEYPOINT_KINDS.
    """

    name: str
    labelled: int
    ap: float
    pck: float
    mean: float
    median: float
    kinds: dict[str, int]


@dataclass(frozen=True)
class ScoreBin:
    """Detections of neighbouring scores: their number, mean score, mean OKS, share with an OKS of
    at least 0.5.
    """

    count: int
    score: float
    oks: float
    right: float


@dataclass(frozen=True)
class Interval:
    """A difference, and the interval that holds it with the probability CONFIDENCE; NaN where it is
    undefined.
    """

    difference: float
    low: float
    high: float


def by_size(run: Run) -> list[Group]:
    """AP by octaves of a person's size, the square root of its area in pixels.

    As with COCO's area ranges, people of other sizes are ignored, and so are detections that match
    nobody and whose box is of another size.
    """
    sizes = np.sqrt(np.maximum(run.truth.areas, 1e-9))
    found = np.sqrt(run.found.boxes[:, 2] * run.found.boxes[:, 3])
    return [_group(run, *each) for each in _octaves(sizes, found, ~run.truth.ignored)]


def height_octaves(run: Run) -> list[tuple[str, Bools, Bools]]:
    """Octaves of a person's height, that of the box in pixels: the name of each, the people (G,)
    and the detections (D,) in it, as `match` takes them.
    """
    heights = run.truth.boxes[:, 3]
    return _octaves(heights, run.found.boxes[:, 3], ~run.truth.ignored)


def _octaves(sizes: Floats, found: Floats, counted: Bools) -> list[tuple[str, Bools, Bools]]:
    """Octaves from the smallest to the largest size of the people who are counted (G,), with the
    people and the detections whose sizes (G,) and (D,) are in each.
    """
    if not counted.any():
        return []
    octaves = octave_of(sizes[counted])
    return [
        (octave_name(octave), octave_of(sizes) == octave, octave_of(found) == octave)
        for octave in range(octaves.min(), octaves.max() + 1)
    ]


def octave_of(sizes: Floats) -> Ints:
    """The octave of each size in pixels: the whole part of its binary logarithm, 0 for sizes below
    a pixel.
    """
    return np.floor(np.log2(np.maximum(sizes, 1))).astype(np.int64)


def octave_name(octave: int) -> str:
    """The sizes of an octave, such as "32 to 64 px"."""
    low = 2**octave if octave else 0
    return f"{low} to {2 ** (octave + 1)} px"


def by_crowding(run: Run) -> list[Group]:
    """AP by the number of other people whose box overlaps the person's (IoU of at least OVERLAP).

    A detection that matches nobody counts where it is: among people with one neighbour less than
    its box overlaps people.
    """
    truth = run.truth
    neighbours = np.zeros(len(truth.areas), int)
    around = np.zeros(len(run.found.scores), int)
    for i in range(len(truth.image_ids)):
        people = slice(truth.starts[i], truth.starts[i + 1])
        found = slice(run.found.starts[i], run.found.starts[i + 1])
        is_person = ~truth.crowd[people]
        boxes = truth.boxes[people][is_person]
        neighbours[people] = (_iou(truth.boxes[people], boxes) >= OVERLAP).sum(axis=1)
        around[found] = (_iou(run.found.boxes[found], boxes) >= OVERLAP).sum(axis=1)
    neighbours = np.maximum(neighbours - 1, 0)  # everybody overlaps themselves
    around = np.maximum(around - 1, 0)
    groups = []
    for low, high, name in CROWDING:
        top = np.inf if high is None else high
        in_group = (neighbours >= low) & (neighbours <= top)
        found_in_group = (around >= low) & (around <= top)
        groups.append(_group(run, name, in_group, found_in_group))
    return groups


def keypoint_figures(run: Run, errors: Errors) -> list[KeypointFigures]:
    """Figures of every keypoint.

    AP of a keypoint: people keep the detection that `errors` assigns them. A keypoint is right at a
    threshold of the OKS if its similarity reaches it; the keypoints of detections that mean nobody
    are wrong; those that are not labelled are ignored. The detection's score ranks them.
    PCK counts keypoints of missed people as wrong; see pck_counts.
    """
    counted = run.truth.counted_joints
    distances = pixel_errors(run, errors.person)
    right, labelled = pck_counts(run, errors.person)
    figures = []
    for k, name in enumerate(run.skeleton.keypoints):
        mean, median = mean_and_median(distances[:, k])
        figures.append(
            KeypointFigures(
                name=name,
                labelled=int(counted[:, k].sum()),
                ap=average_precision(run, _keypoint_matches(errors, counted, k)),
                pck=float(right[k] / labelled[k]) if labelled[k] else UNDEFINED,
                mean=mean,
                median=median,
                kinds={
                    kind: int((errors.kinds[:, k] == code).sum())
                    for code, kind in enumerate(KEYPOINT_KINDS)
                },
            )
        )
    return figures


def calibration(run: Run) -> list[ScoreBin]:
    """Detections in SCORE_BINS bins of equal number by rising score. The OKS is that with the
    assigned person (at OKS 0), 0 without one; detections on ignored people are left out.
    """
    matches = match(run, np.array([1e-6]))
    used = ~matches.ignored[0]
    oks = _assigned_oks(run, matches)[used]
    scores = run.found.scores[used]
    order = np.argsort(scores, kind="stable")
    return [
        ScoreBin(
            count=len(rows),
            score=float(scores[rows].mean()),
            oks=float(oks[rows].mean()),
            right=float((oks[rows] >= 0.5).mean()),
        )
        for rows in np.array_split(order, SCORE_BINS)
        if len(rows)
    ]


def calibration_error(bins: list[ScoreBin]) -> float:
    """Mean distance of score and OKS over the bins, weighted by their number (the expected
    calibration error); UNDEFINED without detections.
    """
    total = sum(each.count for each in bins)
    if not total:
        return UNDEFINED
    return sum(each.count * abs(each.score - each.oks) for each in bins) / total


def best_threshold(run: Run) -> tuple[float, float, float, float]:
    """The lowest score that detections must have for the highest F1 at OKS 0.5, that F1, and
    precision and recall there; 0 without a right detection.
    """
    matches = match(run, THRESHOLDS[:1])
    used = ~matches.ignored[0]
    scores = run.found.scores[used]
    right = (matches.person[0] >= 0)[used]
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    total = int(matches.positives.sum())
    if not len(hits) or not hits[-1]:
        return 0.0, 0.0, 0.0, 0.0
    count = np.arange(1, len(hits) + 1)
    f1 = 2 * hits / (count + total)
    last = np.append(np.diff(scores[order]) != 0, True)  # a threshold cannot part equal scores
    best = int(np.argmax(np.where(last, f1, -1)))
    return (
        float(scores[order][best]),
        float(f1[best]),
        float(hits[best] / count[best]),
        float(hits[best] / total),
    )


def compare(
    first: Run, second: Run, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """AP, AP .5, AP .75 and AR of `second` less those of `first`, with a paired bootstrap interval:
    in each of `resamples` draws both are scored on the same images, drawn with replacement.

    Both must be of the same truth; without people who count, everything is NaN.
    """
    random = np.random.default_rng(seed)
    images = len(first.truth.image_ids)
    pairs = [(run, match(run)) for run in (first, second)]
    whole = _difference(pairs, None)
    draws = np.empty((resamples, len(whole)))
    for draw in range(resamples):
        weights = np.bincount(random.integers(0, images, images), minlength=images)
        draws[draw] = _difference(pairs, weights)
    names = ("AP", "AP .5", "AP .75", "AR")
    return {
        name: Interval(float(whole[column]), *percentiles(draws[:, column]))
        for column, name in enumerate(names)
    }


def percentiles(draws: Floats) -> tuple[float, float]:
    """The ends of the interval that holds CONFIDENCE of the draws (N,) of a bootstrap. NaN draws,
    without anybody to find, are left out; NaN without others.

    Percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    """
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return np.nan, np.nan
    edges = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [edges, 1 - edges])
    return float(low), float(high)


def nan_if_undefined(figures: Sequence[float]) -> Floats:
    """Figures that can be subtracted: NaN in place of those that are UNDEFINED."""
    return np.array([figure if is_defined(figure) else np.nan for figure in figures])


def image_losses(run: Run, errors: Errors, threshold: float) -> Floats:
    """(I,) how much is wrong in each image: 1 - OKS of its people, summed (1 for a missed one),
    and the scores from `threshold` on of detections that mean nobody.
    """
    truth = run.truth
    detection, person = run.pairs
    own = person == errors.person[detection]
    oks = np.zeros(len(truth.areas))
    np.maximum.at(oks, person[own], run.oks[own])
    losses = np.zeros(len(truth.image_ids))
    counted = ~truth.ignored
    np.add.at(losses, truth.image[counted], 1 - oks[counted])
    alone = (errors.double | errors.background) & (run.found.scores >= threshold)
    np.add.at(losses, run.found.image[alone], run.found.scores[alone])
    return losses


def _group(run: Run, name: str, people: Bools, found: Bools) -> Group:
    matches = match(run, counted=people, found_counted=found)
    return Group(name, int(matches.positives.sum()), average_precision(run, matches))


def _iou(first: Floats, second: Floats) -> Floats:
    """(A, 4) and (B, 4) boxes as x, y, width, height -> (A, B) intersection over union."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    first_end = first[:, :2] + first[:, 2:]
    second_end = second[:, :2] + second[:, 2:]
    high = np.minimum(first_end[:, None], second_end[None])
    common = np.maximum(high - low, 0).prod(axis=2)
    areas = first[:, 2:].prod(axis=1)[:, None] + second[:, 2:].prod(axis=1)[None]
    return common / np.maximum(areas - common, 1e-9)


def _keypoint_matches(errors: Errors, counted: Bools, k: int) -> Matches:
    """Matches as if people were made of keypoint k alone."""
    judged = errors.kinds[:, k] >= 0
    right = judged & (errors.similarity[:, k] >= THRESHOLDS[:, None])
    person = np.where(right, errors.person, -1)
    ignored = np.broadcast_to((errors.person >= 0) & ~judged, person.shape)
    return Matches(THRESHOLDS, person, ignored, counted[:, k])


def _assigned_oks(run: Run, matches: Matches) -> Floats:
    """(D,) OKS with the person of the first threshold's match; 0 without one."""
    detection, person = run.pairs
    own = person == matches.person[0][detection]
    oks = np.zeros(len(run.found.scores))
    oks[detection[own]] = run.oks[own]
    return oks


def _difference(
    pairs: list[tuple[Run, Matches]], weights: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    first, second = (_figures(run, matches, weights) for run, matches in pairs)
    return second - first


def _figures(run: Run, matches: Matches, weights: NDArray[np.int64] | None) -> NDArray[np.float64]:
    precision, recall = precision_recall(run, matches, weights)
    return nan_if_undefined(
        [precision.mean(), precision[0].mean(), precision[5].mean(), recall.mean()]
    )
