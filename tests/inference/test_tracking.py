"""Ids through a video: on synthetic walks with noise and gaps, and case by case."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from swahr.inference.tracking import Tracker
from swahr.skeleton import COCO
from swahr.synthetic.video import FPS, render_walk

NOISE = 0.015  # standard deviation of a joint, as a fraction of the person's height
FOUND = 0.85  # share of the visible joints that are found
GUESSED = 0.3  # share of the hidden ones
SEEN = 0.95  # share of the people with at least three visible joints who are found


def detections(
    walk: list[list[dict]], rng: np.random.Generator
) -> Iterator[tuple[list[int], np.ndarray]]:
    """For each frame the ids of the people with three visible joints or more, and for each of them
    keypoints with noise and gaps (P, K, 3), all 0 for a person who is not found.
    """
    for people in walk:
        ids = []
        found = []
        for person in people:
            keypoints = np.reshape(person["keypoints"], (-1, 3)).astype(float)
            visible = keypoints[:, 2] == 2
            if visible.sum() < 3:
                continue
            chance = np.where(visible, FOUND, GUESSED * (keypoints[:, 2] == 1))
            chance *= rng.random() < SEEN
            keypoints[:, :2] += rng.normal(0, NOISE * person["height"], (len(keypoints), 2))
            keypoints[:, 2] = rng.random(len(keypoints)) < chance
            ids.append(person["id"])
            found.append(keypoints * keypoints[:, 2:])
        yield ids, np.reshape(found, (-1, COCO.num_keypoints, 3))


@pytest.fixture(scope="module")
def walk() -> list[list[dict]]:
    return [people for _, people in render_walk(0, num_frames=60, num_people=5, size=(320, 240))]


def test_people_who_cross_and_hide_each_other_keep_their_ids(walk: list[list[dict]]) -> None:
    pytest.importorskip("scipy", reason="the measure assigns tracks with scipy")
    from tests.oracles.tracking import idf1

    rng = np.random.default_rng(0)
    tracker = Tracker(COCO.sigmas)
    truth: list[list[int]] = []
    predicted: list[list[int | None]] = []
    for frame, (ids, people) in enumerate(detections(walk, rng)):
        shown = rng.permutation(np.flatnonzero(people[..., 2].any(1)))
        given: dict[int, int] = dict(
            zip(shown.tolist(), tracker(people[shown], np.ones(len(shown)), frame / FPS).tolist())
        )
        truth.append(ids)
        predicted.append([given.get(index) for index in range(len(ids))])
    crossings = sum(person["visible"] < 0.5 for people in walk for person in people)
    assert crossings > 20 and any(None in ids for ids in predicted)
    assert idf1(truth, predicted) >= 0.9


def test_the_measure_counts_what_its_definition_says() -> None:
    pytest.importorskip("scipy", reason="the measure assigns tracks with scipy")
    from tests.oracles.tracking import idf1

    assert idf1([[0, 1], [0, 1]], [[5, 6], [5, 6]]) == 1
    assert idf1([[0, 1], [0, 1]], [[5, 6], [6, 5]]) == 0.5
    assert idf1([[0, 1], [0, 1]], [[5, None], [5, None]]) == 2 * 2 / (4 + 2)
    assert idf1([[0, -1]], [[5, 6]]) == 2 / 3


def person(x: float, y: float = 100.0) -> np.ndarray:
    """Keypoints (K, 3) of a person of 50 x 100 px whose left top corner is there."""
    rng = np.random.default_rng(1)
    points = rng.random((COCO.num_keypoints, 2)) * (50, 100) + (x, y)
    return np.column_stack([points, np.ones(len(points))])


def track(tracker: Tracker, time: float, *people: np.ndarray) -> list[int]:
    keypoints = np.reshape(people, (-1, COCO.num_keypoints, 3))
    return tracker(keypoints, np.ones(len(keypoints)), time).tolist()


def test_ids_are_given_in_order_and_kept_in_any_order() -> None:
    tracker = Tracker(COCO.sigmas)
    assert track(tracker, 0.0, person(0), person(200)) == [1, 2]
    assert track(tracker, 0.1, person(200), person(2), person(400)) == [2, 1, 3]
    assert track(tracker, 0.2) == []


def test_a_hidden_person_is_expected_where_its_motion_leads() -> None:
    tracker = Tracker(COCO.sigmas)
    for step in range(6):
        assert track(tracker, step / 10, person(10.0 * step)) == [1]
    assert track(tracker, 1.1, person(110)) == [1]
    still = Tracker(COCO.sigmas)
    track(still, 0.5, person(50))
    assert track(still, 1.1, person(110)) == [2]


def test_a_person_who_was_hidden_for_long_gets_the_speed_of_the_way_since() -> None:
    """Away for 1.4 s, 60 px farther: 0.4 of the new speed and 0.6 of the one before."""
    tracker = Tracker(COCO.sigmas)
    for step in range(11):
        track(tracker, step / 10, person(5.0 * step))
    before = tracker._velocities[0, 0]
    assert track(tracker, 2.4, person(110)) == [1]
    assert tracker._velocities[0, 0] == pytest.approx(0.6 * before + 0.4 * 60 / 1.4)


def test_whoever_is_gone_too_long_is_somebody_new() -> None:
    for seconds, wanted in ((2.0, 1), (2.1, 2)):
        tracker = Tracker(COCO.sigmas, max_hidden=2.0)
        track(tracker, 0.0, person(0))
        assert track(tracker, seconds, person(0)) == [wanted]


def test_whoever_was_seen_a_moment_ago_goes_first() -> None:
    tracker = Tracker(COCO.sigmas)
    assert track(tracker, 0.0, person(0), person(6)) == [1, 2]
    assert track(tracker, 0.9, person(6)) == [2]
    assert track(tracker, 1.0, person(3)) == [2]


def test_joints_that_were_not_found_move_with_the_person() -> None:
    tracker = Tracker(COCO.sigmas)
    track(tracker, 0.0, person(0))
    legs = person(40)
    legs[:11] = 0
    for step, part in enumerate([person(20), legs, person(60)], start=1):
        assert track(tracker, step / 10, part) == [1]


@pytest.mark.parametrize("joints", [[(0, 0)], [(0, 0), (40, 0)]])
def test_one_joint_and_joints_in_a_line_are_followed(joints: list[tuple[int, int]]) -> None:
    tracker = Tracker((0.08,) * len(joints))
    people = np.array([[(x, y, 1) for x, y in joints]], np.float64)
    for frame in range(4):
        ids = tracker(people + [2 * frame, 50, 0], np.ones(1), 0.1 * frame)
        assert ids.tolist() == [1]


def test_people_of_low_score_keep_an_id_but_get_no_new_one() -> None:
    tracker = Tracker(COCO.sigmas, min_score=0.5)
    low = np.array([0.4])
    assert tracker(person(0)[None], low, 0.0).tolist() == [-1]
    assert tracker(person(0)[None], low + 0.1, 0.1).tolist() == [1]
    assert tracker(person(0)[None], low, 0.2).tolist() == [1]
    nobody = np.zeros((1, COCO.num_keypoints, 3))
    assert tracker(nobody, low + 1, 0.3).tolist() == [-1]


def test_joints_that_were_not_found_have_no_part_in_the_speed() -> None:
    """Ten joints are never found; the hidden person is expected where the others lead."""
    tracker = Tracker(COCO.sigmas)
    for step in range(6):
        seen = person(10.0 * step)
        seen[:10] = 0
        assert track(tracker, step / 10, seen) == [1]
    [velocity] = tracker._velocities
    assert 80 < velocity[0] <= 100 and velocity[1] == 0
