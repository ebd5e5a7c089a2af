"""Figures by size, crowding, keypoint and score on made detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from swahr.evaluation.matching import Run, load_run
from swahr.evaluation.pixels import pck, pck_lengths, pixel_errors
from swahr.report.breakdown import (
    best_threshold,
    by_crowding,
    by_size,
    calibration,
    calibration_error,
    compare,
    height_octaves,
    image_losses,
    keypoint_figures,
)
from swahr.report.errors import find_errors
from swahr.skeleton import Skeleton
from tests.report.made import SKELETON, found, person, random_set, truth, unlabel

LEFT_HAND = 1


def run_of(people: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> Run:
    images = max(annotation["image_id"] for annotation in people)
    return load_run(truth(*people, images=images), records, SKELETON)


def test_groups_by_size() -> None:
    """A missed person of 30 px, one of 100 px who is found, and a wrong detection of 20 px."""
    small = person(1, place=1, area=30 * 30)
    record = found(place=2, score=0.95)
    points = np.array(record["keypoints"]).reshape(5, 3)
    points[:, :2] = points[:, :2].mean(axis=0) + np.array([[0, 0], [20, 20]]).repeat([4, 1], 0)
    wrong = {**record, "keypoints": points.ravel().tolist()}
    groups = by_size(run_of([small, person(2)], [found(), wrong]))
    assert [(group.name, group.people) for group in groups] == [
        ("16 to 32 px", 1),
        ("32 to 64 px", 0),
        ("64 to 128 px", 1),
    ]
    assert [group.ap for group in groups] == pytest.approx([0, -1, 1])
    assert by_size(run_of([person(1, iscrowd=1)], [])) == []


def test_joints_that_were_not_found_do_not_make_a_detection_taller() -> None:
    """A wrong detection 100 px high, whose nose was not found and lies at 0, 0 in the record, is no
    mistake among people of 200 px.
    """
    wrong = found(place=2, score=0.95)
    wrong["keypoints"][:3] = [0, 0, 0]
    run = run_of([person(1)], [found(off=0), wrong])
    ((name, people, detections),) = height_octaves(run)
    assert name == "128 to 256 px" and people.tolist() == [True]
    assert detections.tolist() == [False, True]
    assert [group.ap for group in by_size(run)] == pytest.approx([0.5])


def test_groups_by_crowding() -> None:
    """Two people whose boxes overlap by a third, one of whom is missed; one alone; a wrong
    detection far from all.
    """
    beside = person(2)
    beside["keypoints"] = [
        value + 50 * (i % 3 == 0) for i, value in enumerate(person(2)["keypoints"])
    ]
    beside["bbox"] = [100, 50, 100, 200]
    records = [found(), found(place=1), found(place=1.5, score=0.95)]
    groups = {
        group.name: group
        for group in by_crowding(run_of([person(1), beside, person(3, place=1)], records))
    }
    assert groups["none"].people == 1 and groups["none"].ap == pytest.approx(0.5)
    assert groups["1"].people == 2 and groups["1"].ap == pytest.approx(51 / 101)
    assert groups["2 to 3"].people == 0 and groups["2 to 3"].ap == -1


def test_figures_of_keypoints() -> None:
    """The left hand is 30 px off in one of two people; the third person is missed."""
    people = [person(1), person(2, place=1), unlabel(person(3, place=2), 0)]
    records = [found(off=0), found(place=1, score=0.8, off=3, move={LEFT_HAND: (0, 30)})]
    run = run_of(people, records)
    errors = find_errors(run)
    nose, hand, *_ = keypoint_figures(run, errors)
    assert (nose.labelled, hand.labelled) == (2, 3)
    assert (nose.mean, nose.median) == pytest.approx((1.5, 1.5))
    assert (hand.mean, hand.median) == pytest.approx((15, 15))
    assert nose.pck == 1 and hand.pck == pytest.approx(2 / 3)  # 40 px are a fifth of the box
    assert hand.kinds == {"good": 1, "jitter": 0, "inversion": 0, "swap": 0, "miss": 1}
    assert nose.ap == pytest.approx(1)  # 3 px are ks 0.956
    assert hand.ap == pytest.approx(34 / 101)
    assert pck(run, errors.person) == pytest.approx(10 / 14)
    assert np.nanmax(pixel_errors(run, errors.person)) == 30


def test_a_keypoint_that_was_not_found_has_no_distance_and_is_wrong() -> None:
    """Its place in the record is 0, 0, where the true one is too."""
    one = person(1)
    one["keypoints"][3 * LEFT_HAND : 3 * LEFT_HAND + 2] = [0, 0]
    record = found(off=3)
    record["keypoints"][3 * LEFT_HAND : 3 * LEFT_HAND + 3] = [0, 0, 0]
    run = run_of([one], [record])
    nose, hand, *_ = keypoint_figures(run, find_errors(run))
    assert (hand.mean, hand.median, hand.pck) == (-1, -1, 0)
    assert (nose.mean, nose.median, nose.pck) == (3, 3, 1)


def test_pck_is_of_the_torso_where_there_is_one() -> None:
    names = ("head", "left_shoulder", "x", "y", "right_hip")
    human = Skeleton("human", names, (), (0.05,) * 5)
    people = [person(1), unlabel(person(2, place=1), 1)]
    run = replace(run_of(people, [found(off=0)]), skeleton=human)
    lengths = pck_lengths(run)
    assert lengths[0] == pytest.approx(np.hypot(100, 100))
    assert np.isnan(lengths[1])
    errors = find_errors(run)
    assert pck(run, errors.person) == 1  # a missed person without a length does not count
    assert [each.pck for each in keypoint_figures(run, errors)] == [1] * 5


def test_without_labels_keypoint_figures_are_undefined() -> None:
    run = run_of([unlabel(person(1), 0)], [found()])
    nose = keypoint_figures(run, find_errors(run))[0]
    assert (nose.labelled, nose.ap, nose.pck, nose.mean, nose.median) == (0, -1, -1, -1, -1)


def test_calibration() -> None:
    people = [person(number, place=number) for number in range(20)]
    records = [found(place=number, score=0.5 + number / 100, off=0) for number in range(20)]
    wrong = [found(image=2, place=number, score=0.2) for number in range(20)]
    run = load_run(truth(*people, images=2), records + wrong, SKELETON)
    bins = calibration(run)
    assert [each.count for each in bins] == [4] * 10
    assert [each.oks for each in bins] == pytest.approx([0] * 5 + [1] * 5)
    assert [each.right for each in bins] == [0] * 5 + [1] * 5
    assert bins[0].score == pytest.approx(0.2) and bins[-1].score == pytest.approx(0.675)
    assert calibration_error(bins) == pytest.approx((0.2 + 1 - 0.595) / 2)
    assert calibration_error([]) == -1


def test_the_threshold_with_the_best_f1() -> None:
    people = [person(number, place=number) for number in range(3)]
    records = [
        found(place=0, score=0.9),
        found(place=1, score=0.6),
        found(place=8, score=0.6),
        found(place=9, score=0.5),
        found(place=10, score=0.5),
    ]
    threshold, f1, precision, recall = best_threshold(run_of(people, records))
    assert threshold == 0.6
    assert (f1, precision, recall) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert best_threshold(run_of(people, records[3:])) == (0, 0, 0, 0)


def test_a_run_compared_with_itself_and_with_a_worse_one() -> None:
    annotations, records = random_set(2)
    run = load_run(annotations, records, SKELETON)
    same = compare(run, run, resamples=20)
    assert {(each.difference, each.low, each.high) for each in same.values()} == {(0, 0, 0)}
    worse = compare(run, run.with_scores(-run.found.scores), resamples=200)["AP"]
    assert worse.low < worse.difference < worse.high
    assert compare(run, run.with_scores(-run.found.scores), resamples=200)["AP"] == worse
    fewer = run.without(np.arange(len(run.found.scores)) % 2 == 1)
    ar = compare(run, fewer, resamples=200)["AR"]
    assert ar.high < 0


def test_without_people_who_count_there_is_no_difference() -> None:
    run = run_of([person(1, iscrowd=1)], [found()])
    for interval in compare(run, run, resamples=5).values():
        assert np.isnan([interval.difference, interval.low, interval.high]).all()


def test_draws_without_anybody_to_find_are_left_out() -> None:
    """A quarter of them lack the image with the person, whom one of the two runs finds."""
    run = load_run(truth(person(1), images=2), [found(off=0)], SKELETON)
    interval = compare(run.without(np.array([True])), run, resamples=50)["AP"]
    assert (interval.difference, interval.low, interval.high) == pytest.approx((1, 1, 1))


def test_what_an_image_loses() -> None:
    people = [person(1, 1), person(2, 2), person(3, 2, 1)]
    records = [
        found(1, off=0),
        found(2, off=0, score=0.8),
        found(2, 2, score=0.5),
        found(2, 2, score=0.2),
    ]
    run = run_of(people, records)
    losses = image_losses(run, find_errors(run), threshold=0.3)
    assert losses == pytest.approx([0, 1.5])
