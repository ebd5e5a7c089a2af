"""Joints given to the wrong person, counted in detections in which every one is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from swahr.evaluation.matching import checked_run, load_run
from swahr.evaluation.pixels import judged_joints, meant_people
from swahr.evaluation.records import EvaluationError
from swahr.evaluation.swaps import CLOSE, Swaps, count_swaps, swapped_joints
from swahr.geometry import keypoint_similarity
from tests.report.made import OFFSET, SKELETON, found, person, random_set, truth, unlabel

HAND = 1
OTHER_HAND = 2  # 100 px right of HAND


def swaps(annotations: dict[str, Any], *records: dict[str, Any]) -> Swaps:
    return count_swaps(checked_run(annotations, records, SKELETON))


def two_people() -> dict[str, Any]:
    return truth(person(1), person(2, place=1), person(3, image=2), images=3)


def test_a_joint_on_the_same_joint_of_somebody_else_is_swapped() -> None:
    counted = swaps(two_people(), found(move={HAND: (OFFSET, 3)}), found(image=2))
    assert counted == Swaps(joints=1, judged=10, images=1, all_images=3)
    assert counted.joint_share == 0.1 and counted.image_share == pytest.approx(1 / 3)
    assert str(counted) == "1 of 10 joints given to the wrong person, in 1 of 3 images"
    one = "1 of 1 joint given to the wrong person, in 1 of 1 image"
    assert str(Swaps(1, 1, 1, 1)) == one


def test_other_mistakes_are_no_swaps() -> None:
    mirrored = found(move={HAND: (OFFSET + 100, 0)})  # on the other person's other hand
    nowhere = found(move={HAND: (OFFSET / 2, 0)})
    nearly = found(move={HAND: (OFFSET + 13, 0)})  # similarity 0.43
    for record in (mirrored, nowhere, nearly):
        assert swaps(two_people(), record).joints == 0


def test_a_joint_on_both_peoples_joints_is_not_swapped() -> None:
    annotations = truth(person(1), person(2))
    assert swaps(annotations, found()) == Swaps(0, 5, 0, 1)


def test_joints_that_were_not_found_or_not_labelled_are_not_judged() -> None:
    record = found(move={HAND: (OFFSET, 0), OTHER_HAND: (OFFSET, 0)})
    record["keypoints"][3 * HAND + 2] = 0
    annotations = truth(unlabel(person(1), OTHER_HAND), person(2, place=1))
    assert swaps(annotations, record) == Swaps(0, 3, 0, 1)


def test_detections_without_any_score_of_a_keypoint_have_all_keypoints() -> None:
    record = found(move={HAND: (OFFSET, 3)})
    record["keypoints"][2::3] = [0] * 5
    assert swaps(two_people(), record) == Swaps(1, 5, 1, 3)


def test_detections_of_nobody_are_not_judged() -> None:
    alone = found(place=5)
    assert swaps(two_people(), alone) == Swaps(0, 0, 0, 3)
    assert swaps(two_people(), alone).joint_share == -1
    assert swaps(truth(images=0)).image_share == -1


def test_records_are_checked() -> None:
    with pytest.raises(EvaluationError, match="result 0 is of image 7"):
        swaps(two_people(), found(image=7))


@pytest.mark.parametrize("seed", range(3))
def test_counting_agrees_with_plain_loops(seed: int) -> None:
    annotations, records = random_set(seed)
    run = load_run(annotations, records, SKELETON)
    meant = meant_people(run)
    slow = np.zeros(run.found.keypoints.shape[:2], bool)
    people = run.truth
    for d, image in enumerate(run.found.image):
        for k, (x, y, _) in enumerate(run.found.keypoints[d]):
            near = set()
            for g in range(people.starts[image], people.starts[image + 1]):
                px, py, flag = people.keypoints[g, k]
                squared = np.array((x - px) ** 2 + (y - py) ** 2)
                similarity = keypoint_similarity(squared, people.areas[g], np.array(0.05))
                if flag > 0 and similarity >= CLOSE:
                    near.add(g)
            slow[d, k] = bool(near) and meant[d] not in near
    judged = judged_joints(run, meant)
    assert (swapped_joints(run, meant) == slow).all()
    assert slow.any()
    assert count_swaps(checked_run(annotations, records, SKELETON)).joints == (slow & judged).sum()
