"""Sigmas of keypoints from images that two people have labelled.

COCO's keypoint evaluation defines sigma_i^2 = E[d_i^2 / s^2]: d_i is the distance between two
labels of keypoint i, and s^2 the person's area. OKS uses twice that value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swahr.codec.assignment import solve
from swahr.geometry import BOX_TO_AREA
from swahr.skeleton import COCO, CROWD_POSE, TYPICAL_SIGMA, Skeleton

# Mean distance of two people's joints over the root of their area from which they are two people.
SAME_PERSON = 0.5
ENOUGH = 20  # double labels from which a keypoint's sigma is a measurement

Floats = NDArray[np.float64]


class LabelSpread(NamedTuple):
    """How far two labels of a keypoint lie apart.

    sigmas: (K,), NaN without double labels. labels: (K,) number of double labels. people: number of
    those who were labelled twice. alone: people who were labelled in one file only.
    """

    sigmas: Floats
    labels: NDArray[np.int64]
    people: int
    alone: int


class _People(NamedTuple):
    """keypoints (N, K, 3), areas (N,)."""

    keypoints: Floats
    areas: Floats


def label_spread(
    first: Mapping[str, Any], second: Mapping[str, Any], skeleton: Skeleton
) -> LabelSpread:
    """Compare two annotation files of the same images, as load_annotations gives them.

    Images are the same if their file names are; people of an image if they are nearest to each
    other. s^2 is the mean of the two areas.
    """
    ours = _by_image(first, skeleton)
    theirs = _by_image(second, skeleton)
    count = skeleton.num_keypoints
    sums = np.zeros(count)
    labels = np.zeros(count, np.int64)
    people = 0
    total = sum(len(each.areas) for part in (ours, theirs) for each in part.values())
    for name in ours.keys() & theirs.keys():
        squared, both = _compare(ours[name], theirs[name])
        sums += np.where(both, squared, 0).sum(0)
        labels += both.sum(0)
        people += len(both)
    with np.errstate(invalid="ignore", divide="ignore"):
        sigmas = np.sqrt(sums / labels)
    return LabelSpread(sigmas, labels, people, total - 2 * people)


def usual_sigma(keypoint: str) -> float:
    """A rule of thumb: COCO's or CrowdPose's sigma of a keypoint of this name, else
    TYPICAL_SIGMA.
    """
    for skeleton in (COCO, CROWD_POSE):
        if keypoint in skeleton.keypoints:
            return skeleton.sigmas[skeleton.keypoints.index(keypoint)]
    return TYPICAL_SIGMA


def suggest_sigmas(skeleton: Skeleton, spread: LabelSpread | None) -> list[float]:
    """A sigma for each keypoint: measured where there are ENOUGH double labels that differ, else
    usual_sigma.
    """
    usual = [usual_sigma(name) for name in skeleton.keypoints]
    if spread is None:
        return usual
    return [
        round(float(sigma), 4) if count >= ENOUGH and sigma > 0 else rule
        for sigma, count, rule in zip(spread.sigmas, spread.labels, usual)
    ]


def _by_image(content: Mapping[str, Any], skeleton: Skeleton) -> dict[str, _People]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in content.get("annotations", []):
        if not annotation.get("iscrowd") and any(annotation["keypoints"][2::3]):
            rows[names[annotation["image_id"]]].append(annotation)
    return {name: _stack(people, skeleton) for name, people in rows.items()}


def _stack(people: Sequence[Mapping[str, Any]], skeleton: Skeleton) -> _People:
    keypoints = np.array([person["keypoints"] for person in people], np.float64)
    boxes = np.array([person["bbox"] for person in people], np.float64)
    areas = BOX_TO_AREA * boxes[:, 2] * boxes[:, 3]
    given = np.array([person.get("area", np.nan) for person in people], np.float64)
    return _People(
        keypoints.reshape(len(people), skeleton.num_keypoints, 3),
        np.where(given > 0, given, areas),
    )


def _compare(first: _People, second: _People) -> tuple[Floats, NDArray[np.bool_]]:
    """Squared distances over the area (P, K) of the P people that both have, and whether both have
    labelled the keypoint.
    """
    step = first.keypoints[:, None, :, :2] - second.keypoints[None, :, :, :2]
    areas = (first.areas[:, None] + second.areas[None]) / 2
    squared = (step**2).sum(-1) / areas[..., None]
    both = (first.keypoints[:, None, :, 2] > 0) & (second.keypoints[None, :, :, 2] > 0)
    counts = both.sum(-1)
    distances = np.where(both, np.sqrt(squared), 0).sum(-1) / np.maximum(counts, 1)
    distances = np.where(counts > 0, distances, np.inf)
    size = max(distances.shape)
    costs = np.full((size, size), SAME_PERSON)
    costs[: len(first.areas), : len(second.areas)] = np.minimum(distances, SAME_PERSON)
    columns = solve(costs)[: len(first.areas)]
    rows = np.flatnonzero(columns < len(second.areas))
    columns = columns[rows]
    near = distances[rows, columns] < SAME_PERSON
    return squared[rows[near], columns[near]], both[rows[near], columns[near]]
