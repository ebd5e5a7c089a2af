"""What is said of a whole set: coordinates in other units, joints outside, sides and flip pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.data.annotation_arrays import AnnotationArrays
from swahr.data.annotation_report import Report
from swahr.data.plausibility import check_plausibility, flip_problem
from swahr.skeleton import COCO, CROWD_POSE, Skeleton

PAIR = Skeleton("pair", ("left_hand", "right_hand"), ((0, 1),), (0.1, 0.1))


def report(
    people: list[list[float]], size: tuple[int, int] = (640, 480), crowds: int = 0
) -> Report:
    """Of an image with these people, two keypoints each, the first of them crowds."""
    data = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]} for i in (4, 5)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": 5,
                "keypoints": keypoints,
                "bbox": [0, 0, 9, 9],
                "iscrowd": int(number <= crowds),
            }
            for number, keypoints in enumerate(people, 1)
        ],
    }
    found = Report("x.json")
    check_plausibility(AnnotationArrays(data, 2), PAIR, found)
    return found


def spread(largest: float, people: int = 20) -> list[list[float]]:
    points = np.random.default_rng(0).uniform(0, largest, (people, 2, 2))
    return np.concatenate([points, np.full((people, 2, 1), 2.0)], 2).reshape(people, 6).tolist()


def test_coordinates_in_pixels_are_nothing_to_mention() -> None:
    found = report([*spread(400), [0, 0, 0, 639, 479, 1]])
    assert not found.count and not found.notes


@pytest.mark.parametrize("people", [1, 20])
def test_fractions_are_a_problem(people: int) -> None:
    found = report(spread(1, people))
    assert found.count == 1
    assert f"all {2 * people} labelled joints lie between 0 and 1" in found.lines[0]
    assert found.lines[0].endswith("-> kept as they are")


def test_unlabelled_joints_do_not_hide_fractions() -> None:
    assert report([*spread(1), [500, 400, 0, 0, 0, 0]]).count == 1


@pytest.mark.parametrize("people", [1, 20])
def test_negative_coordinates_are_neither_fractions_nor_percentages(people: int) -> None:
    """Of joints that all lie left of or above their image."""
    found = report(
        [[-value if i % 3 < 2 else value for i, value in enumerate(p)] for p in spread(90, people)]
    )
    assert not found.count
    [note] = found.notes
    assert note.startswith(f"{2 * people} of {2 * people} labelled joints lie outside")


def test_percentages_are_a_note() -> None:
    found = report(spread(100))
    assert not found.count and "between 0 and 100, as percentages do" in found.notes[0]


@pytest.mark.parametrize(
    "people, size", [(spread(100, 5), (640, 480)), (spread(90), (128, 96))], ids=["few", "small"]
)
def test_small_coordinates_may_be_right(people: Any, size: tuple[int, int]) -> None:
    assert not report(people, size).notes


def test_joints_outside_their_image_are_counted_and_one_is_named() -> None:
    found = report([[10, 10, 2, 640, 480, 2], [9, 500, 1, -3, 200, 2], [9, 900, 0, 9, 9, 2]])
    assert not found.count
    assert found.notes == [
        "2 of 5 labelled joints lie outside their image, like left_hand at 9, 500 in image 5 of "
        "640 x 480"
    ]


def test_visibilities_that_are_scores_are_named() -> None:
    [note] = report([[100, 100, 0.87, 200, 200, 2], [200, 210, 0, 300, 300, -1]]).notes
    assert note.startswith("2 visibilities are none of 0, 1, 2, like 0.87")
    [note] = report([[100, 100, 0.87, 200, 200, 2]]).notes
    assert note.startswith("1 visibility is none of 0, 1, 2, like 0.87")


def test_a_set_that_labels_nobody_is_named() -> None:
    [note] = report([[100, 100, 0, 200, 200, 0], [0, 0, 0, 0, 0, 0]]).notes
    assert "no joint is labelled: no visibility is above 0, but 2 joints lie" in note
    [note] = report([[100, 100, -1, 200, 200, -1]]).notes
    assert note.startswith("no joint is labelled: no visibility is above 0, but 2 joints")
    [note] = report([[100, 100, 0, 0, 0, 0]]).notes
    assert note.endswith("but 1 joint lies at other places than 0, 0")


@pytest.mark.parametrize(
    ("people", "crowds", "said"),
    [
        ([], 0, "nobody is labelled: there is no annotation to use"),
        ([[0] * 6], 0, "nobody is labelled: no visibility is above 0 in 1 annotation"),
        ([[0] * 6] * 2, 2, "nobody is labelled: no visibility is above 0 in 2 annotations"),
        (
            spread(400, 2),
            2,
            "all people with labelled joints are crowds (iscrowd is 1): they are trained on, but "
            "not scored",
        ),
    ],
)
def test_a_set_in_which_nobody_can_be_found_is_named(
    people: list[list[float]], crowds: int, said: str
) -> None:
    found = report(people, crowds=crowds)
    assert found.notes == [said] and not found.count


def test_one_person_beside_crowds_is_enough() -> None:
    assert report(spread(400, 3), crowds=2).notes == []


def test_people_labelled_twice_are_counted_and_two_are_named() -> None:
    """Not crowds, those without labelled joints, or who share some joints only."""
    own = [100, 100, 2, 200, 200, 1]
    unlabelled: list[list[float]] = [[0] * 6] * 2
    close = [[100, 100, 2, 200, 201, 1], [200, 200, 1, 100, 100, 2], [100, 100, 1, 200, 200, 1]]
    [note] = report([*unlabelled, own, *close, own]).notes
    assert note == (
        "1 person has exactly the keypoints of another person of the image, like annotations 3 and "
        "7 of image 5: when scored, one of the two is always missed"
    )
    other = close[0]
    [note] = report([own, *unlabelled, other, own, other, own]).notes
    assert note.startswith("3 people have exactly the keypoints of another person of the image")
    assert report([own, *close, *unlabelled]).notes == []
    assert report([own, own, *close], crowds=1).notes == []


def test_equal_people_of_several_images_are_several_people() -> None:
    person = {"keypoints": [100, 100, 2, 200, 200, 2], "bbox": [0, 0, 9, 9]}
    ids = range(100)
    images = [{"id": i, "file_name": "a", "width": 640, "height": 480} for i in ids]
    for times, said in ((1, []), (2, ["100 people have exactly the keypoints of another"])):
        people = [{"id": i, "image_id": i} | person for i in (*ids, *ids)[: 100 * times]]
        found = Report("x.json")
        arrays = AnnotationArrays({"images": images, "annotations": people}, 2)
        check_plausibility(arrays, PAIR, found)
        assert [note[: len(line)] for note, line in zip(found.notes, said, strict=True)] == said


def test_exchanged_sides_of_images_are_asked_about() -> None:
    """Where many joints are outside, and all joints of those people lie in the other sides."""
    people = [[x, y, 2, x, 300, 2] for x in range(20, 640, 20) for y in (9, 470)]
    [note] = report(people, (480, 640)).notes
    asked = "in image 5 of 480 x 640; are width and height of the images exchanged?"
    assert note.endswith(asked)
    upright = [[100, 600, 2, 100, 620, 2], [600, 9, 2, 600, 900, 0]]
    [note] = report([*people, *upright], (480, 640)).notes
    assert note.endswith(asked)
    for outside in ([600, 500, 2, 9, 9, 2], [600, -9, 2, 9, 9, 2]):
        [note] = report([*people, outside], (480, 640)).notes
        assert note.endswith("in image 5 of 480 x 640")
    below = [[x, 650, 2, x, 630, 2] for x in range(20, 460, 20)]
    [note] = report(below, (480, 640)).notes
    assert note.endswith("in image 5 of 480 x 640")
    inside: list[list[float]] = [[x / 10, 200, 2, x / 10, 300, 2] for x in range(4000)]
    [note] = report([*people, *inside], (480, 640)).notes
    assert note.endswith("in image 5 of 480 x 640")
    [note] = report(people[-4:], (480, 640)).notes
    assert note.endswith("in image 5 of 480 x 640")


def skeleton(names: str, *pairs: tuple[int, int]) -> Skeleton:
    keypoints = tuple(names.split())
    return Skeleton("own", keypoints, pairs, (0.1,) * len(keypoints))


@pytest.mark.parametrize(
    "names, pairs, said",
    [
        ("nose left_eye right_eye", [], "left_eye, right_eye in no pair of flip_pairs"),
        ("nose LeftEye RightEye", [], "LeftEye, RightEye in no pair"),
        ("nose eye_left eye_right", [], "eye_left, eye_right in no pair"),
        ("nose lefteye righteye", [], "lefteye, righteye in no pair"),
        ("nose L_eye R_eye", [], "L_eye, R_eye in no pair"),
        ("nose eye.l eye.r", [], "eye.l, eye.r in no pair"),
        ("left_hand left_foot", [], "left_hand, left_foot in no pair"),
        ("left_eye right_eye left_ear", [(0, 1)], "'own': left_ear in no pair"),
        (
            "left_eye right_eye left_ear right_ear",
            [(0, 3), (1, 2)],
            "flip_pairs joins left_eye with right_ear, not with right_eye",
        ),
        (
            "left_eye right_eye left_ear right_ear",
            [(0, 2), (1, 3)],
            "flip_pairs joins left_eye with left_ear, not with right_eye",
        ),
        (
            "lefteye righteye leftear rightear",
            [(0, 3), (1, 2)],
            "flip_pairs joins lefteye with rightear, not with righteye",
        ),
        ("LeftEarL RightEarR", [], "LeftEarL, RightEarR in no pair"),
    ],
)
def test_sides_that_a_mirrored_image_would_mix_up(
    names: str, pairs: list[tuple[int, int]], said: str
) -> None:
    problem = flip_problem(skeleton(names, *pairs))
    assert said in problem and "\n" not in problem


@pytest.mark.parametrize(
    "own",
    [
        COCO,
        CROWD_POSE,
        PAIR,
        skeleton("nose bright_spot cleft chin"),
        skeleton("l_eye nose"),
        skeleton("lip rip"),
        skeleton("eye_left eye_right", (1, 0)),
        skeleton("a b", (0, 1)),
        skeleton("left_L right_L left_R right_R", (0, 1), (2, 3)),
    ],
    ids=lambda s: " ".join(s.keypoints[:3]),
)
def test_sides_that_are_right(own: Skeleton) -> None:
    assert flip_problem(own) == ""


def test_a_note_comes_with_the_data_set_that_trains(
    tree: Callable[..., Path], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from swahr.data.keypoints import build_dataset
    from tests.data.test_keypoints import settings

    own = tmp_path / "own.yaml"
    names = ", ".join(COCO.keypoints)
    own.write_text(f"keypoints: [{names}]\nsigmas: [{', '.join(['.1'] * 17)}]\n")
    root = tree((1,))
    for flip, train in ((0.0, True), (0.5, False), (0.5, True)):
        cfg = settings(root, SKELETON=str(own), FLIP=flip)
        build_dataset(cfg, "train2017", train=train)
        said = "left_eye, right_eye, left_ear" in caplog.text
        assert said == (flip > 0 and train)
    assert caplog.text.count("in no pair of flip_pairs") == 1 and "FLIP is 0.5" in caplog.text
