"""Every kind of broken annotation file: what is said, and what is repaired."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swahr.data.annotation_report import AnnotationError, Report
from swahr.data.keypoints import KeypointDataset
from swahr.skeleton import COCO, CROWD_POSE, Skeleton

Tree = Callable[..., Path]
Made = Callable[..., dict[str, Any]]
Data = dict[str, Any]


def opened(root: Path, strict: bool = True, skeleton: Skeleton = COCO) -> KeypointDataset:
    file = root / "annotations/person_keypoints_train2017.json"
    return KeypointDataset(file, root / "images/train2017", skeleton, strict=strict)


def change(where: str, **fields: Any) -> Callable[[Data], None]:
    """Sets fields of the second image or annotation."""
    return lambda data: data[where][1].update(fields)


UNLABELLED: dict[str, Any] = {"keypoints": [0] * 51, "num_keypoints": 0}
NAN = float("nan")
NO_IMAGE = "image skipped"
NO_PERSON = "annotation skipped"
NEW_ID = "new id"
CLIPPED = "box clipped"
NEW_BOX = "box put around the keypoints"
NO_OUTLINE = "segmentation removed"
NOT_NUMBERS = "keypoints are not all finite numbers"
UNLABELLED_PERSON = "taken for a person without labelled keypoints"
NOT_A_BOX = "is not x, y, width, height"
NOT_AN_OUTLINE = "neither polygons nor run lengths of the image's size"

# What is wrong with the second image (11) or annotation (1201, of image 12), what is said, and what
# is done about it.
REPAIRED: dict[str, tuple[Callable[[Data], None], str, str]] = {
    "image without id": (change("images", id=None), "its id None is not a whole number", NO_IMAGE),
    "image with a large id": (
        change("images", id=2**60),
        "its id 1152921504606846976 is too large; it must lie between -2^53 and 2^53",
        NO_IMAGE,
    ),
    "image twice": (change("images", id=10), "image 10: another image has this id", NO_IMAGE),
    "no file name": (
        change("images", file_name=None),
        "image 11: file_name None names no file",
        NO_IMAGE,
    ),
    "no size": (
        change("images", width=0),
        "image 11 (11.png): no width and height in pixels",
        NO_IMAGE,
    ),
    "no image file": (change("images", file_name="gone.png"), "no image file", NO_IMAGE),
    "keypoints too short": (
        change("annotations", keypoints=[1, 2, 2]),
        "annotation 1201 (image 12): keypoints has 3 numbers, not 51",
        NO_PERSON,
    ),
    "no keypoints": (
        change("annotations", keypoints=None),
        "annotation 1201 (image 12): keypoints has 0 numbers, not 51",
        UNLABELLED_PERSON,
    ),
    "an empty list of keypoints": (
        change("annotations", keypoints=[]),
        "annotation 1201 (image 12): keypoints has 0 numbers, not 51",
        UNLABELLED_PERSON,
    ),
    "no list of keypoints": (
        lambda data: data["annotations"][1].pop("keypoints"),
        "annotation 1201 (image 12): keypoints has 0 numbers, not 51",
        UNLABELLED_PERSON,
    ),
    "one number": (
        change("annotations", keypoints=[1]),
        "annotation 1201 (image 12): keypoints has 1 number, not 51",
        NO_PERSON,
    ),
    "keypoints as text": (
        change("annotations", keypoints="none"),
        "annotation 1201 (image 12): keypoints has 0 numbers, not 51",
        NO_PERSON,
    ),
    "NaN": (change("annotations", keypoints=[NAN] * 51), NOT_NUMBERS, NO_PERSON),
    "infinite": (
        change("annotations", keypoints=[float("inf")] * 51),
        NOT_NUMBERS,
        NO_PERSON,
    ),
    "words": (change("annotations", keypoints=["1"] * 51), NOT_NUMBERS, NO_PERSON),
    "unknown image": (
        change("annotations", image_id=77),
        "annotation 1201 (image 77): there is no image",
        NO_PERSON,
    ),
    "unknown category": (
        change("annotations", category_id=[5]),
        "(image 12): there is no category [5]",
        NO_PERSON,
    ),
    "no object": (
        lambda data: data["annotations"].insert(1, 5),
        "annotation 5: not an object",
        NO_PERSON,
    ),
    "id 0": (
        change("annotations", id=0),
        "annotation 0 (image 12): the id 0 means 'not matched'",
        NEW_ID,
    ),
    "id twice": (
        change("annotations", id=1001),
        "annotation 1001 (image 12): another annotation has",
        NEW_ID,
    ),
    "a copy": (
        lambda data: data["annotations"].append(dict(data["annotations"][1])),
        "annotation 1201 (image 12): the file has this annotation already",
        "annotation skipped",
    ),
    "no id": (
        change("annotations", id=None),
        "annotation None (image 12): its id None is not a whole number",
        NEW_ID,
    ),
    "a list as id": (
        change("annotations", id=[5]),
        "annotation [5] (image 12): its id [5] is not a whole number",
        NEW_ID,
    ),
    "box outside": (
        change("annotations", bbox=[50, 2, 58, 42]),
        "annotation 1201 (image 12): bbox [50, 2, 58, 42] leaves its image of 64 x 48",
        CLIPPED,
    ),
    "box left of it": (change("annotations", bbox=[-20, 2, 58, 42]), "leaves its image", CLIPPED),
    "no box": (change("annotations", bbox=None), f"bbox None {NOT_A_BOX}", NEW_BOX),
    "box of NaN": (change("annotations", bbox=[0, 0, NAN, 1]), NOT_A_BOX, NEW_BOX),
    "box inside out": (change("annotations", bbox=[9, 9, -5, 5]), NOT_A_BOX, NEW_BOX),
    "wrong count": (
        change("annotations", num_keypoints=-1),
        "num_keypoints -1 is not a number",
        "keypoints counted",
    ),
    "area of NaN": (
        change("annotations", area=NAN),
        "area nan is not a number of pixels",
        "area of the box",
    ),
    "half a crowd": (
        change("annotations", iscrowd="yes"),
        "iscrowd 'yes' is neither 0 nor 1",
        "taken for no crowd",
    ),
    "no crowd index": (
        change("images", crowdIndex=None),
        "crowdIndex None is not a number",
        "crowdIndex removed",
    ),
    "no outline": (
        change("annotations", **UNLABELLED, segmentation=[[1, 2, 3, 4]]),
        NOT_AN_OUTLINE,
        NO_OUTLINE,
    ),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_each_problem_is_named_and_repaired(tree: Tree, made: Made, caplog: Any, name: str) -> None:
    edit, message, repair = REPAIRED[name]
    data = made((1, 0, 2))
    root = tree(data)
    edit(data)
    (root / "annotations/person_keypoints_train2017.json").write_text(json.dumps(data))
    with pytest.raises(AnnotationError) as error:
        opened(root)
    lines = str(error.value).splitlines()
    assert "train2017.json: 1 problem" in lines[0] and len(lines) == 3
    assert message in lines[1] and lines[1].endswith(f" -> {repair}")
    with caplog.at_level(logging.WARNING):
        dataset = opened(root, strict=False)
    assert message in caplog.text and f"{repair}: 1" in caplog.text
    assert dataset.image_ids == ([10, 12] if repair == NO_IMAGE else [10, 11, 12])
    people = sum(len(dataset.joints(i)) for i in dataset.image_ids)
    assert people == (2 if repair == NO_PERSON and name not in ("no object", "a copy") else 3)
    repaired = dataset.coco
    assert isinstance(repaired, dict) and [i["id"] for i in repaired["images"]] == dataset.image_ids
    assert len({a["id"] for a in repaired["annotations"]} - {0}) == len(repaired["annotations"])
    for annotation in repaired["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x <= x + width <= 64 and 0 <= y <= y + height <= 48


def category(*keypoints: str, name: str = "person") -> Callable[[Data], Data]:
    return lambda data: (
        data | {"categories": [{"id": 1, "name": name, "keypoints": list(keypoints)}]}
    )


HOPELESS: dict[str, tuple[Callable[[Data], Any], str]] = {
    "a list": (
        lambda data: [],
        "no images; annotation files have the lists images, categories and annotations",
    ),
    "no images": (lambda data: data | {"images": []}, "no images"),
    "no good image": (lambda data: data | {"images": [{}]}, "no image is left"),
    "annotations an object": (lambda data: data | {"annotations": {}}, "annotations is not a list"),
    "no categories": (
        lambda data: data | {"categories": None},
        "no category has keypoints; found none at all; each lists the names of its",
    ),
    "other category": (category("a", name="dog"), "found 'dog' with 1"),
    "other order": (
        category(COCO.keypoints[16], *COCO.keypoints[:16]),
        "not in the order of the skeleton 'coco': number 0 is right_ankle, not nose",
    ),
}


@pytest.mark.parametrize("name", HOPELESS)
@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_repaired(tree: Tree, made: Made, name: str, strict: bool) -> None:
    edit, message = HOPELESS[name]
    data = made((1,))
    root = tree(data)
    (root / "annotations/person_keypoints_train2017.json").write_text(json.dumps(edit(data)))
    with pytest.raises(AnnotationError, match=message):
        opened(root, strict)


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_not_json(tree: Tree, text: str) -> None:
    root = tree()
    (root / "annotations/person_keypoints_train2017.json").write_text(text, encoding="latin-1")
    with pytest.raises(AnnotationError, match=r"train2017\.json: not a JSON file"):
        opened(root)


def test_wrong_skeleton(tree: Tree) -> None:
    with pytest.raises(
        AnnotationError,
        match="14 keypoints, as the skeleton 'crowd_pose' has; found 'person' with 17",
    ):
        opened(tree(), skeleton=CROWD_POSE)


def test_of_several_categories_the_person(tree: Tree, made: Made) -> None:
    data = made((1, 1))
    data["categories"] = [
        {"id": 5, "name": "statue", "keypoints": list(COCO.keypoints)},
        {"id": 8, "name": "dog"},
        *data["categories"],
    ]
    data["annotations"][1]["category_id"] = 8
    dataset = opened(tree(data))
    assert dataset.category_id == 1 and len(dataset.joints(11)) == 0


def test_slack_and_missing_fields_are_no_problem(tree: Tree, made: Made) -> None:
    data = made((1,))
    annotation = data["annotations"][0]
    annotation.update(bbox=[-3, 0, 70, 50.5], keypoints=[70, -4, 2] * 17)
    for key in ("num_keypoints", "area", "segmentation", "iscrowd"):
        del annotation[key]
    dataset = opened(tree(data))
    assert dataset.joints(10).shape == (1, 17, 3) and dataset.report.count == 0


def test_at_most_twenty_lines(tree: Tree, made: Made) -> None:
    data = made((32,))
    for annotation in data["annotations"][1:]:
        annotation["keypoints"] = [NAN] * 50
    with pytest.raises(AnnotationError) as error:
        opened(tree(data))
    lines = str(error.value).splitlines()
    assert "31 problems" in lines[0] and lines[21].strip() == "... and 11 more" and len(lines) == 23


@pytest.mark.parametrize(
    "outline",
    [
        {"size": [48, 64], "counts": "zz"},
        {"size": [48, 64], "counts": "\u20ac"},
        {"size": [48, 64], "counts": "o" * 99},
        {"size": [48, 64], "counts": [5, 5]},
        {"size": [48, 64], "counts": [-1, 48 * 64 + 1]},
        {"size": [48, 64]},
        {"size": [64, 48], "counts": [48 * 64]},
        5,
        [5],
        [[0, 0, 1, 1, 1]],
        [[0, 0, 1, 1, 1, NAN]],
        [[0, 0, 1, 1, 1, 1e8]],
    ],
    ids=str,
)
def test_outlines_that_cannot_be_drawn(tree: Tree, made: Made, outline: object) -> None:
    """For those who are masked; the others' outlines are never drawn."""
    data = made((2,))
    data["annotations"][0]["segmentation"] = outline
    assert len(opened(tree(data))) == 1
    data["annotations"][0].update(UNLABELLED)
    root = tree(data)
    with pytest.raises(AnnotationError, match=NOT_AN_OUTLINE):
        opened(root)
    assert opened(root, strict=False).mask(10).all()


def test_a_person_without_a_list_of_keypoints_is_masked(tree: Tree, made: Made) -> None:
    """Learnt as background otherwise; num_keypoints cannot count what is not there."""
    data = made((1, 1))
    del data["annotations"][0]["keypoints"]
    dataset = opened(tree(data), strict=False)
    assert (dataset.mask(10) == 0).any() and dataset.mask(11).all()
    assert not dataset.joints(10).any() and dataset.report.count == 1
    [unlabelled, _] = dataset.coco["annotations"]
    assert unlabelled["num_keypoints"] == 0 and unlabelled["keypoints"] == [0] * 51


def test_copies_are_left_out_and_other_people_with_their_id_are_not(tree: Tree, made: Made) -> None:
    """Copies of a repaired annotation too, and those that write the id as 1001.0."""
    data = made((3,))
    first, second, third = data["annotations"]
    first.update(bbox=None)
    second.update(id=first["id"])
    data["annotations"] += [dict(first), dict(first, id=float(first["id"])), dict(third)]
    dataset = opened(tree(data), strict=False)
    assert dataset.report.repairs == {NEW_BOX: 1, NEW_ID: 1, NO_PERSON: 3}
    assert len(dataset.joints(10)) == len({a["id"] for a in dataset.coco["annotations"]}) == 3


def with_boxes(made: Made, boxes: list[Any]) -> Data:
    """A person for each box, in one image."""
    data = made((len(boxes),))
    for annotation, box in zip(data["annotations"], boxes):
        annotation["bbox"] = box
    return data


CORNERS = [[30, 20, 60 - i, 40 + i] for i in range(5)]


@pytest.mark.parametrize(
    "more",
    [[], [None], [[0, 0, 0, 0]], [[-3, -3, 70, 55]], [[2, 2, 58, 42]] * 45],
    ids=["all", "none", "zeros", "with slack", "many"],
)
def test_boxes_given_by_their_corners_are_asked_about_once(
    tree: Tree, made: Made, more: list[Any]
) -> None:
    with pytest.raises(AnnotationError) as error:
        opened(tree(with_boxes(made, [*CORNERS, *more])))
    count = len(more) + 5
    hint = (
        f"note: 5 of {count} boxes leave their image: are they x1, y1, x2, y2? COCO's are x, y, "
        "width, height"
    )
    assert str(error.value).count(hint) == 1


@pytest.mark.parametrize(
    "boxes",
    [
        CORNERS[:4],
        [[30, 20, 10, 40], *CORNERS],
        [*CORNERS, [30, 20, 40, 10]],
        [*CORNERS, [30, 20, 40, 57]],
        [*CORNERS, [30, 20, 73, 40]],
        [*CORNERS, [-20, 20, 40, 40]],
        [*CORNERS, "a box"],
        [*CORNERS, *[[2, 2, 58, 42]] * 46],
    ],
    ids=["few", "narrow", "low", "below", "beyond", "left of it", "no box", "few of many"],
)
def test_boxes_that_are_no_corners(tree: Tree, made: Made, boxes: list[Any]) -> None:
    dataset = opened(tree(with_boxes(made, boxes)), strict=False)
    assert dataset.report.repairs[CLIPPED] >= 4
    assert "x1, y1, x2, y2" not in str(dataset.report)


def test_a_reason_stands_first_where_nothing_is_wrong() -> None:
    report = Report("x.json")
    assert report.failure("no image") == "x.json: no image"
    report.note("small")
    assert report.failure("no image") == "x.json: no image\n  note: small"
    report.add("bad", "mended")
    lines = report.failure("no image").splitlines()
    assert lines == ["x.json: 1 problem", "  bad -> mended", "  note: small", "  no image"]


def test_an_empty_report_says_nothing() -> None:
    Report("x.json").raise_or_warn(strict=True)
