"""Detections matched with labelled people, and precision and recall of the matches.

The object keypoint similarities (OKS) come from faster-coco-eval. Its matches cannot be read from
Python, so the greedy assignment and the precision table of the COCO keypoint evaluation are done
here, to the same figures. That allows what its scorer does not: any people ignored, images
weighted for a bootstrap, detections corrected.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from swahr.evaluation.figures import UNDEFINED
from swahr.evaluation.records import EvaluationError, checked_records, labelled_people
from swahr.geometry import BOX_TO_AREA, keypoint_similarity
from swahr.jit import kernel
from swahr.skeleton import Skeleton

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # OKS thresholds whose mean AP is "AP"
RECALLS = np.linspace(0.0, 1.0, 101)  # at which precision is read
MAX_FOUND = 20  # detections of an image that count, those with the highest scores
_EPSILON = np.spacing(1)
_CATEGORY = 1  # of everything handed to faster-coco-eval


@dataclass(frozen=True)
class Truth:
    """G labelled people in I images, sorted by image id.

    image_ids (I,), file_names I. starts (I + 1,): people of image i are starts[i] to starts[i + 1].
    keypoints (G, K, 3) x, y in pixels and visibility (> 0: labelled). boxes (G, 4) x, y, width,
    height. areas (G,) in square pixels, as the OKS uses them. crowd (G,): regions that any number
    of detections may match. ignored (G,): crowds and people without labelled keypoints, which
    count neither as found nor as missed.
    """

    image_ids: Ints
    file_names: tuple[str, ...]
    starts: Ints
    keypoints: Floats
    boxes: Floats
    areas: Floats
    crowd: Bools
    ignored: Bools

    @cached_property
    def image(self) -> Ints:
        """(G,) index of each person's image."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.starts))

    @cached_property
    def labelled(self) -> Bools:
        """(G, K) whether each keypoint is labelled."""
        return self.keypoints[..., 2] > 0

    @cached_property
    def counted_joints(self) -> Bools:
        """(G, K) the labelled keypoints of people who are not ignored."""
        return self.labelled & ~self.ignored[:, None]


@dataclass(frozen=True)
class Found:
    """D detections, sorted by image and falling score, at most MAX_FOUND an image.

    starts (I + 1,), keypoints (D, K, 3) x, y in pixels and a score, scores (D,).
    """

    starts: Ints
    keypoints: Floats
    scores: Floats

    @cached_property
    def image(self) -> Ints:
        """(D,) index of each detection's image."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def ranking(self) -> Ints:
        """(D,) indices of the detections by falling score, over all images."""
        return np.argsort(-self.scores, kind="stable")

    @cached_property
    def has_joint(self) -> Bools:
        """(D, K) whether each keypoint was found: it has the score 0 otherwise. A detection without
        any score of a keypoint has all, so that no detection has none.
        """
        scored = self.keypoints[..., 2] > 0
        return scored | ~scored.any(axis=1, keepdims=True)

    @cached_property
    def boxes(self) -> Floats:
        """(D, 4) x, y, width, height in pixels of the box around the keypoints of `has_joint`.

        Unlike the areas of AP (M) and (L), which COCO takes from all keypoints.
        """
        points = self.keypoints[..., :2]
        found = self.has_joint[..., None]
        low = np.where(found, points, np.inf).min(axis=1)
        high = np.where(found, points, -np.inf).max(axis=1)
        return np.concatenate([low, high - low], axis=1)


@dataclass(frozen=True)
class Run:
    """Truth, detections and the OKS of every pair of them in the same image.

    oks (P,): for each detection in turn, those with the people of its image.
    """

    skeleton: Skeleton
    protocol: str
    truth: Truth
    found: Found
    oks: Floats

    @cached_property
    def row_lengths(self) -> Ints:
        """(D,) number of people in each detection's image: of its entries in `oks`."""
        return np.diff(self.truth.starts)[self.found.image]

    @cached_property
    def row_starts(self) -> Ints:
        """(D,) where each detection's entries in `oks` begin."""
        return np.cumsum(self.row_lengths) - self.row_lengths

    @cached_property
    def pairs(self) -> tuple[Ints, Ints]:
        """(P,) and (P,): the detection and the person of each entry of `oks`."""
        detection = np.repeat(np.arange(len(self.row_lengths)), self.row_lengths)
        rank = np.arange(len(detection)) - self.row_starts[detection]
        return detection, rank + self.truth.starts[self.found.image][detection]

    def with_keypoints(self, keypoints: Floats) -> Run:
        """The run with other keypoints (D, K, 3). The OKS with people who are ignored stay."""
        found = Found(self.found.starts, keypoints, self.found.scores)
        changed = (keypoints != self.found.keypoints).any(axis=(1, 2))
        detection, person = self.pairs
        rows = np.flatnonzero(changed[detection] & ~self.truth.ignored[person])
        oks = self.oks.copy()
        oks[rows] = _oks(self, keypoints[detection[rows]], person[rows])
        return Run(self.skeleton, self.protocol, self.truth, found, oks)

    def with_scores(self, scores: Floats) -> Run:
        """The run with other scores (D,); detections are sorted by them."""
        return self._chosen(np.lexsort((-scores, self.found.image)), scores)

    def without(self, removed: Bools) -> Run:
        """The run without the detections of `removed` (D,)."""
        return self._chosen(np.flatnonzero(~removed), self.found.scores)

    def _chosen(self, rows: Ints, scores: Floats) -> Run:
        """The run with the detections of these rows, sorted by image, in their order."""
        found = Found(
            _starts(self.found.image[rows], len(self.truth.image_ids)),
            self.found.keypoints[rows],
            scores[rows],
        )
        lengths = self.row_lengths[rows]
        offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        oks = self.oks[np.repeat(self.row_starts[rows], lengths) + offset]
        return Run(self.skeleton, self.protocol, self.truth, found, oks)


@dataclass(frozen=True)
class Matches:
    """Which person each detection was assigned to, at T thresholds of the OKS.

    person (T, D): index of the person, or -1. ignored (T, D): detections that count neither as
    right nor as wrong. positives (G,): the people who count.
    """

    thresholds: Floats
    person: Ints
    ignored: Bools
    positives: Bools


def checked_run(
    truth: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
    protocol: str = "coco",
) -> Run:
    """`load_run` of annotations and records that are checked and completed first, as
    `metrics.evaluate` does. Raises EvaluationError for what cannot be scored.
    """
    people = labelled_people(truth, skeleton)
    found = checked_records(
        records,
        {image["id"] for image in people["images"]},
        {category["id"] for category in people["categories"]},
        3 * skeleton.num_keypoints,
    )
    return load_run(people, found, skeleton, protocol)


def load_run(
    truth: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
    protocol: str = "coco",
) -> Run:
    """Annotations in COCO's format and result records, as arrays.

    Both must be such as `swahr.evaluation.metrics.evaluate` accepts, with keypoints of one
    category. protocol "crowd_pose": a person's area is BOX_TO_AREA of the box. EvaluationError
    where the people are of several categories.
    """
    people = [person for person in truth["annotations"] if "keypoints" in person]
    categories = {person.get("category_id") for person in people}
    categories |= {record["category_id"] for record in records}
    if len(categories) > 1:
        raise EvaluationError(
            f"people of {len(categories)} categories (ids {_listed(categories)}): "
            "annotations and results must all have the same category_id"
        )
    labelled = _read_truth(truth["images"], people, skeleton.num_keypoints, protocol)
    rows = {int(image): row for row, image in enumerate(labelled.image_ids.tolist())}
    images = np.array([rows[record["image_id"]] for record in records], np.int64)
    points = [record["keypoints"] for record in records]
    keypoints = np.array(points, np.float64).reshape(-1, skeleton.num_keypoints, 3)
    scores = np.array([record["score"] for record in records], np.float64)
    found = _sorted(images, keypoints, scores, len(labelled.image_ids))
    oks = _similarities(skeleton, protocol, labelled, found)
    return Run(skeleton, protocol, labelled, found, oks)


def match(
    run: Run,
    thresholds: Floats = THRESHOLDS,
    counted: Bools | None = None,
    found_counted: Bools | None = None,
) -> Matches:
    """Assign detections to people as the COCO evaluation does: by falling score, each to the free
    person with the highest OKS of at least the threshold, to an ignored one only where there is no
    other.

    counted (G,): the people who count, the others are ignored (default: all that the truth does not
    ignore). found_counted (D,): the detections that count as wrong where they match nobody
    (default: all).
    """
    positives = ~run.truth.ignored if counted is None else counted & ~run.truth.ignored
    person = np.full((len(thresholds), len(run.found.scores)), -1, np.int64)
    _assign(
        run.oks,
        run.row_starts,
        run.found.starts,
        run.truth.starts,
        ~positives,
        run.truth.crowd,
        np.asarray(thresholds, np.float64),
        person,
    )
    matched = person >= 0
    ignored = matched.copy()
    ignored[matched] = ~positives[person[matched]]
    if found_counted is not None:
        ignored |= ~matched & ~found_counted
    return Matches(np.asarray(thresholds, np.float64), person, ignored, positives)


def precision_recall(
    run: Run, matches: Matches, weights: NDArray[np.number] | None = None
) -> tuple[Floats, Floats]:
    """Precision (T, 101) at the RECALLS and the highest recall (T,); UNDEFINED where nobody
    counts.

    weights (I,): how often each image counts (default: once), as in a bootstrap over images.
    """
    count = np.ones(len(run.truth.image_ids)) if weights is None else np.asarray(weights, float)
    total = float(count[run.truth.image[matches.positives]].sum())
    precision = np.full((len(matches.thresholds), len(RECALLS)), UNDEFINED)
    recall = np.full(len(matches.thresholds), UNDEFINED)
    if total == 0:
        return precision, recall
    order = run.found.ranking
    weight = count[run.found.image][order]
    right = (matches.person >= 0) & ~matches.ignored
    wrong = (matches.person < 0) & ~matches.ignored
    for t in range(len(matches.thresholds)):
        precision[t], recall[t] = _curve(
            np.cumsum(right[t, order] * weight), np.cumsum(wrong[t, order] * weight), total
        )
    return precision, recall


def average_precision(run: Run, matches: Matches) -> float:
    """Mean precision over thresholds and recalls; UNDEFINED where nobody counts."""
    return float(precision_recall(run, matches)[0].mean())


def _curve(right: Floats, wrong: Floats, total: float) -> tuple[Floats, float]:
    """Precision (101,) that is reached at each recall or beyond, and the highest recall."""
    values = np.zeros(len(RECALLS))
    if not len(right):
        return values, 0.0
    recall = right / total
    precision = right / (right + wrong + _EPSILON)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, RECALLS, side="left")
    reached = place < len(recall)
    values[reached] = highest[place[reached]]
    return values, float(recall[-1])


def _read_truth(
    images: Iterable[Mapping[str, Any]],
    people: Iterable[Mapping[str, Any]],
    num_keypoints: int,
    protocol: str,
) -> Truth:
    listed = sorted(images, key=lambda image: image["id"])
    ids = np.array([image["id"] for image in listed], np.int64)
    rows = {image["id"]: row for row, image in enumerate(listed)}
    ordered = sorted(people, key=lambda person: rows[person["image_id"]])
    points = [person["keypoints"] for person in ordered]
    keypoints = np.array(points, np.float64).reshape(-1, num_keypoints, 3)
    boxes = np.array([person["bbox"] for person in ordered], np.float64).reshape(-1, 4)
    areas = BOX_TO_AREA * boxes[:, 2] * boxes[:, 3]
    if protocol != "crowd_pose":
        given = [person.get("area", area) for person, area in zip(ordered, areas.tolist())]
        areas = np.array(given, np.float64)
    crowd = np.array([person.get("iscrowd", 0) for person in ordered], bool)
    labelled = (keypoints[..., 2] > 0).sum(axis=1)
    counts = [person.get("num_keypoints", n) for person, n in zip(ordered, labelled.tolist())]
    in_image = np.array([rows[person["image_id"]] for person in ordered], np.int64)
    return Truth(
        image_ids=ids,
        file_names=tuple(str(image.get("file_name", image["id"])) for image in listed),
        starts=_starts(in_image, len(ids)),
        keypoints=keypoints,
        boxes=boxes,
        areas=areas,
        crowd=crowd,
        ignored=crowd | (np.array(counts, np.int64) == 0),
    )


def pair_similarities(run: Run, keypoints: Ints) -> Floats:
    """(P, K) similarity of each keypoint of a detection to keypoint keypoints[k] of a person, for
    every pair of `Run.pairs`; 0 where that one is not labelled.

    keypoints (K,): their own indices, or those of their mirror images.
    """
    detection, person = run.pairs
    places = run.truth.keypoints[person][:, keypoints]
    points = run.found.keypoints[detection, :, :2]
    squared = ((points - places[..., :2]) ** 2).sum(axis=2)
    sigmas = np.asarray(run.skeleton.sigmas)[keypoints]
    values = keypoint_similarity(squared, run.truth.areas[person][:, None], sigmas)
    return np.where(places[..., 2] > 0, values, 0.0)


def _oks(run: Run, keypoints: Floats, person: Ints) -> Floats:
    """(N,) OKS of keypoints (N, K, 3) with the people of these indices (N,), who have labels."""
    places = run.truth.keypoints[person]
    squared = ((keypoints[..., :2] - places[..., :2]) ** 2).sum(axis=2)
    areas = run.truth.areas[person][:, None]
    similarity = keypoint_similarity(squared, areas, np.asarray(run.skeleton.sigmas))
    labelled = run.truth.labelled[person]
    return (similarity * labelled).sum(axis=1) / labelled.sum(axis=1)


def _sorted(images: Ints, keypoints: Floats, scores: Floats, num_images: int) -> Found:
    order = np.lexsort((-scores, images))  # stable: equal scores stay in their order
    starts = _starts(images[order], num_images)
    rank = np.arange(len(order)) - starts[images[order]]
    order = order[rank < MAX_FOUND]
    return Found(_starts(images[order], num_images), keypoints[order], scores[order])


def _similarities(skeleton: Skeleton, protocol: str, truth: Truth, found: Found) -> Floats:
    """(P,) OKS of every pair, by faster-coco-eval."""
    sizes = np.diff(found.starts) * np.diff(truth.starts)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    values = np.zeros(starts[-1])
    if not len(values):
        return values
    names = {"print_function": logger.debug}
    people = [
        {
            "id": number,
            "image_id": image,
            "category_id": _CATEGORY,
            "keypoints": points,
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
            "num_keypoints": int(not ignored),
        }
        for number, (image, points, box, area, crowd, ignored) in enumerate(
            zip(
                truth.image.tolist(),
                truth.keypoints.reshape(len(truth.areas), -1).tolist(),
                truth.boxes.tolist(),
                truth.areas.tolist(),
                truth.crowd.tolist(),
                truth.ignored.tolist(),
            ),
            1,
        )
    ]
    labelled = COCO(
        {
            "images": [{"id": i} for i in range(len(truth.image_ids))],
            "annotations": people,
            "categories": [{"id": _CATEGORY, "name": "person"}],
        },
        **names,
    )
    records = [
        {"image_id": image, "category_id": _CATEGORY, "keypoints": points, "score": score}
        for image, points, score in zip(
            found.image.tolist(),
            found.keypoints.reshape(len(found.scores), -1).tolist(),
            found.scores.tolist(),
        )
    ]
    crowd_pose = protocol == "crowd_pose"
    scorer = COCOeval_faster(
        labelled,
        labelled.loadRes(records),
        "keypoints_crowd" if crowd_pose else "keypoints",
        kpt_oks_sigmas=list(skeleton.sigmas),
        use_area=not crowd_pose,
        **names,
    )
    scorer.params.maxDets = [MAX_FOUND]
    scorer.evaluate()
    for (image, _), table in scorer.ious.items():
        if len(table):
            values[starts[image] : starts[image + 1]] = np.ravel(table)
    return values


@kernel
def _assign(
    oks: Floats,
    row_starts: Ints,
    found_starts: Ints,
    truth_starts: Ints,
    ignored: Bools,
    crowd: Bools,
    thresholds: Floats,
    person: Ints,
) -> None:
    """Fill person (T, D) with the index of each detection's person, or -1."""
    taken = np.zeros(len(ignored), np.bool_)
    for t in range(len(thresholds)):
        taken[:] = False
        for image in range(len(found_starts) - 1):
            first = truth_starts[image]
            people = truth_starts[image + 1] - first
            for d in range(found_starts[image], found_starts[image + 1]):
                best = -1
                reached = min(thresholds[t], 1 - 1e-10)
                for ignore in (False, True):
                    if best >= 0:
                        break
                    for column in range(people):
                        g = first + column
                        if ignored[g] != ignore or (taken[g] and not crowd[g]):
                            continue
                        value = oks[row_starts[d] + column]
                        if value >= reached:
                            reached = value
                            best = g
                if best >= 0:
                    taken[best] = True
                    person[t, d] = best


def _starts(rows: Ints, count: int) -> Ints:
    """(count + 1,) where each row number begins in sorted row numbers."""
    return np.searchsorted(rows, np.arange(count + 1)).astype(np.int64)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, values)))
