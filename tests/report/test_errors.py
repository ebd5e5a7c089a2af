"""Kinds of errors on made detections whose errors are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from swahr.evaluation.matching import Run, load_run
from swahr.report.errors import (
    CLOSE,
    ERRORS,
    GOOD,
    KEYPOINT_KINDS,
    NOT_JUDGED,
    corrected_ap,
    find_errors,
)
from tests.report.made import OFFSET, POINTS, SKELETON, found, person, truth, unlabel

NOSE, LEFT_HAND, RIGHT_HAND = 0, 1, 2
TO_OTHER_HAND = tuple(POINTS[RIGHT_HAND] - POINTS[LEFT_HAND])
TO_OTHER_PERSON = (OFFSET, 0)


def run_of(people: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> Run:
    return load_run(truth(*people), records, SKELETON)


def pixels(similarity: float) -> float:
    """The distance that has this keypoint similarity."""
    return float(np.sqrt(-200 * np.log(similarity)))


@pytest.mark.parametrize(
    ("keypoint", "shift", "kind"),
    [
        (LEFT_HAND, (0, 0), "good"),
        (LEFT_HAND, (pixels(GOOD) - 0.01, 0), "good"),
        (LEFT_HAND, (0, pixels(GOOD) + 0.01), "jitter"),
        (LEFT_HAND, (pixels(CLOSE) - 0.01, 0), "jitter"),
        (LEFT_HAND, (pixels(CLOSE) + 0.01, 0), "miss"),
        (LEFT_HAND, TO_OTHER_HAND, "inversion"),
        (LEFT_HAND, (TO_OTHER_HAND[0] + pixels(CLOSE) - 0.01, 0), "inversion"),
        (LEFT_HAND, (TO_OTHER_HAND[0] + pixels(CLOSE) + 0.01, 0), "miss"),
        (LEFT_HAND, TO_OTHER_PERSON, "swap"),
        (LEFT_HAND, (OFFSET + TO_OTHER_HAND[0], 0), "swap"),
        (LEFT_HAND, (OFFSET - pixels(CLOSE) - 0.01, 0), "miss"),
        (NOSE, TO_OTHER_PERSON, "swap"),
        (NOSE, tuple(POINTS[LEFT_HAND] - POINTS[NOSE]), "miss"),
        (LEFT_HAND, tuple(POINTS[NOSE] - POINTS[LEFT_HAND] + TO_OTHER_PERSON), "miss"),
    ],
)
def test_kinds_of_a_keypoint(keypoint: int, shift: tuple[float, float], kind: str) -> None:
    people = [person(1), person(2, place=1)]
    records = [found(move={keypoint: shift}), found(place=1, score=0.8)]
    errors = find_errors(run_of(people, records))
    expected = np.zeros((2, 5), int)
    expected[0, keypoint] = KEYPOINT_KINDS.index(kind)
    assert errors.kinds.tolist() == expected.tolist()
    assert [errors.count(name) for name in ERRORS] == [int(name == kind) for name in ERRORS]


def test_the_closest_place_decides_and_a_good_keypoint_is_good() -> None:
    """The other person's left hand lies 12 px right of the first one's."""
    beside = (POINTS + [12, 0]).tolist()
    other = person(2, keypoints=[number for x, y in beside for number in (x, y, 2)])

    def kind(shift: float) -> str:
        records = [found(move={LEFT_HAND: (shift, 0)}, off=0), found(off=12, score=0.8)]
        errors = find_errors(run_of([person(1), other], records))
        assert errors.person.tolist() == [0, 1]
        return KEYPOINT_KINDS[errors.kinds[0, LEFT_HAND]]

    assert [kind(5.6), kind(5.9), kind(6.1)] == ["good", "jitter", "swap"]
    close = person(3, place=1)
    close["keypoints"][3 * LEFT_HAND] = 50 + 5  # 5 px from where the first one's is seen
    near = [person(1), close]
    errors = find_errors(run_of(near, [found(move={LEFT_HAND: (5, 0)}), found(place=1)]))
    assert errors.kinds[0, LEFT_HAND] == KEYPOINT_KINDS.index("good")


def test_keypoints_without_label_are_no_places_and_not_judged() -> None:
    people = [unlabel(person(1), RIGHT_HAND), unlabel(person(2, place=1), LEFT_HAND)]
    moves = {LEFT_HAND: TO_OTHER_HAND}
    records = [found(move=moves), found(place=1, score=0.8, move={RIGHT_HAND: (-OFFSET, 0)})]
    errors = find_errors(run_of(people, records))
    assert errors.kinds[0].tolist() == [0, KEYPOINT_KINDS.index("miss"), NOT_JUDGED, 0, 0]
    assert errors.kinds[1, LEFT_HAND] == NOT_JUDGED
    # Where the first person's right hand is not labelled, nobody's is.
    assert errors.kinds[1, RIGHT_HAND] == KEYPOINT_KINDS.index("miss")


def test_the_area_of_the_other_person_decides_how_close_a_swap_is() -> None:
    large = person(2, place=1, area=400 * 400)
    shift = (OFFSET + pixels(CLOSE) + 5, 0)
    errors = find_errors(run_of([person(1), large], [found(move={LEFT_HAND: shift})]))
    assert errors.count("swap") == 1


def test_errors_of_whole_people() -> None:
    people = [person(1), person(2, place=1)]
    records = [found(score=0.9), found(score=0.8), found(place=0.5, score=0.7)]
    errors = find_errors(run_of(people, records))
    assert errors.person.tolist() == [0, -1, -1]
    assert errors.double.tolist() == [False, True, False]
    assert errors.background.tolist() == [False, False, True]
    assert errors.missed.tolist() == [False, True]
    assert errors.count("score") == 0


def test_a_score_error_is_a_better_detection_with_a_lower_score() -> None:
    people = [person(1), person(2, place=1)]
    worse = found(score=0.9, move={NOSE: (300, 0)})
    errors = find_errors(run_of(people, [worse, found(score=0.8), found(place=1)]))
    assert errors.score.tolist() == [True, False]


def test_people_who_are_ignored_have_no_errors() -> None:
    nobody = person(2, place=1, num_keypoints=0, keypoints=[0] * 15)
    errors = find_errors(run_of([person(1), nobody], [found(), found(place=1)]))
    assert errors.person.tolist() == [0, 1]
    assert not any(errors.count(kind) for kind in ERRORS)


# The others of the five keypoints have ks 0.995. One that is missed leaves an OKS of 0.796, right
# at 6 of 10 thresholds; ks 0.5 makes it 0.896 (8 of 10), 0.6 makes it 0.916 (9), 0.85 0.966 (10).
@pytest.mark.parametrize(
    ("kind", "shift", "before", "after"),
    [
        ("jitter", (pixels(0.6), 0), 0.9, 1.0),
        ("miss", (60, 30), 0.6, 0.8),
        ("inversion", (TO_OTHER_HAND[0], pixels(0.6)), 0.6, 0.9),
        ("inversion", (TO_OTHER_HAND[0], pixels(0.9)), 0.6, 1.0),
        ("swap", (OFFSET, pixels(0.6)), 0.6, 0.9),
    ],
)
def test_what_a_keypoint_error_costs(
    kind: str, shift: tuple[float, float], before: float, after: float
) -> None:
    """The other person, whom the swap needs, does not count."""
    people = [person(1), person(2, place=1, iscrowd=1)]
    run = run_of(people, [found(move={LEFT_HAND: shift})])
    errors = find_errors(run)
    assert errors.count(kind) == 1
    others = [other for other in ERRORS if other != kind]
    assert corrected_ap(run, errors, others) == pytest.approx(before, abs=1e-9)
    assert corrected_ap(run, errors, [kind]) == pytest.approx(after, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "people", "records", "before"),
    [
        ("background", [person(1)], [found(), found(place=1, score=0.95)], 0.5),
        ("double", [person(1), person(2, place=1)], [found(), found(score=0.8)], 51 / 101),
        ("missed", [person(1), person(2, place=1)], [found()], 51 / 101),
    ],
)
def test_what_an_error_of_a_person_costs(
    kind: str, people: list[dict[str, Any]], records: list[dict[str, Any]], before: float
) -> None:
    run = run_of(people, records)
    errors = find_errors(run)
    assert errors.count(kind) == 1
    assert corrected_ap(run, errors, []) == pytest.approx(before, abs=1e-9)
    after = before if kind == "double" else 1.0
    assert corrected_ap(run, errors, [kind]) == pytest.approx(after, abs=1e-9)


def test_a_double_costs_where_its_score_is_above_another_person() -> None:
    people = [person(1), person(2, place=1)]
    run = run_of(people, [found(), found(score=0.8), found(place=1, score=0.7)])
    errors = find_errors(run)
    assert corrected_ap(run, errors, []) == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-9)
    assert corrected_ap(run, errors, ["double"]) == pytest.approx(1)


def test_what_a_score_error_costs() -> None:
    """The better detection takes the place of the worse one, which OKS 0.796 lets pass at six
    thresholds.
    """
    run = run_of([person(1)], [found(score=0.9, move={NOSE: (300, 0)}), found(score=0.8)])
    errors = find_errors(run)
    assert corrected_ap(run, errors, []) == pytest.approx(0.6 + 0.4 * 0.5, abs=1e-9)
    assert corrected_ap(run, errors, ["score"]) == pytest.approx(1, abs=1e-9)
