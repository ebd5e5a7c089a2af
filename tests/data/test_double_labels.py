"""Sigmas from images that two people have labelled."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from swahr.data.double_labels import ENOUGH, label_spread, suggest_sigmas, usual_sigma
from swahr.skeleton import Skeleton

HAND = Skeleton("hand", ("wrist", "left_eye"), (), (0.1, 0.1))
AREA = 2500.0  # a size of 50 px


def labels(images: int, *people: list[list[float]]) -> dict[str, Any]:
    """The same people, two joints each, in every image."""
    annotations = [
        {"image_id": image, "keypoints": sum(person, []), "bbox": [0, 0, 9, 9], "area": AREA}
        for image in range(images)
        for person in people
    ]
    names = [{"id": image, "file_name": f"{image}.png"} for image in range(images)]
    return {"images": names, "annotations": annotations}


NEAR = [[100.0, 100.0, 2], [120.0, 100.0, 2]]
FAR = [[500.0, 100.0, 2], [520.0, 100.0, 2]]


def moved(person: list[list[float]], *steps: tuple[float, float]) -> list[list[float]]:
    return [[x + dx, y + dy, v] for (x, y, v), (dx, dy) in zip(person, steps, strict=True)]


def test_sigma_is_the_root_mean_square_distance_over_the_size() -> None:
    """The first joint is 3 px off in one person and 4 px in the other, of 50 px."""
    first = labels(ENOUGH, NEAR, FAR)
    second = labels(ENOUGH, moved(FAR, (0, 4), (0, 0)), moved(NEAR, (3, 0), (0, 0)))
    spread = label_spread(first, second, HAND)
    assert spread.sigmas == pytest.approx([np.sqrt((9 + 16) / 2) / 50, 0])
    assert spread.labels.tolist() == [2 * ENOUGH] * 2
    assert (spread.people, spread.alone) == (2 * ENOUGH, 0)


def test_the_mean_of_both_areas_counts() -> None:
    first = labels(1, NEAR)
    second = labels(1, moved(NEAR, (6, 0), (6, 0)))
    second["annotations"][0]["area"] = 3 * AREA
    assert label_spread(first, second, HAND).sigmas == pytest.approx([6 / np.sqrt(2 * AREA)] * 2)
    for content in (first, second):
        del content["annotations"][0]["area"]  # 0.53 of the box, which is smaller than 1 px here
        content["annotations"][0]["bbox"] = [0, 0, 100, 200]
    sigma = 6 / np.sqrt(0.53 * 100 * 200)
    assert label_spread(first, second, HAND).sigmas == pytest.approx([sigma] * 2)


def test_people_in_one_file_only_do_not_count() -> None:
    """Nor do other people of the image, other images, crowds, and keypoints without a label."""
    first = labels(2, NEAR, FAR)
    second = labels(1, moved(NEAR, (3, 0), (5, 0)))
    second["annotations"][0]["keypoints"][5] = 0
    spread = label_spread(first, second, HAND)
    assert (spread.people, spread.alone) == (1, 3)
    assert spread.labels.tolist() == [1, 0]
    assert spread.sigmas[0] == pytest.approx(3 / 50) and np.isnan(spread.sigmas[1])
    crowd = copy.deepcopy(second)
    crowd["annotations"][0]["iscrowd"] = 1
    assert label_spread(first, crowd, HAND).people == 0


def test_few_or_equal_labels_give_the_rule_of_thumb() -> None:
    first = labels(ENOUGH, NEAR)
    second = labels(ENOUGH, moved(NEAR, (3, 0), (0, 0)))
    assert suggest_sigmas(HAND, label_spread(first, second, HAND)) == [0.06, 0.025]
    few = label_spread(labels(ENOUGH - 1, NEAR), second, HAND)
    assert suggest_sigmas(HAND, few) == suggest_sigmas(HAND, None) == [0.05, 0.025]


@pytest.mark.parametrize(("name", "sigma"), [("left_hip", 0.107), ("neck", 0.079), ("tip", 0.05)])
def test_the_rule_of_thumb(name: str, sigma: float) -> None:
    assert usual_sigma(name) == sigma
