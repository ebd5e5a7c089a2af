"""Annotations as other tools export them: what is accepted, what is named, and what it becomes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.data.annotation_fields import box_of_joints
from swahr.data.annotation_report import AnnotationError
from swahr.data.keypoints import KeypointDataset
from swahr.evaluation.metrics import evaluate
from swahr.evaluation.results import Record
from swahr.skeleton import COCO, CROWD_POSE, Skeleton

Tree = Callable[..., Path]
Made = Callable[..., dict[str, Any]]
NAN = float("nan")
HUGE = 10**400


def opened(
    root: Path, data: Any = None, strict: bool = True, skeleton: Skeleton = COCO, **options: Any
) -> KeypointDataset:
    file = root / "annotations/person_keypoints_train2017.json"
    if data is not None:
        file.write_text(json.dumps(data))
    return KeypointDataset(file, root / "images/train2017", skeleton, strict=strict, **options)


def perfect(data: dict[str, Any], category_id: int = 1) -> list[Record]:
    """Records that find every labelled person of an annotation file exactly."""
    return [
        {
            "image_id": int(a["image_id"]),
            "category_id": category_id,
            "keypoints": a["keypoints"],
            "score": 0.9,
        }
        for a in data["annotations"]
        if any(a["keypoints"][2::3])
    ]


def joints(*labelled: tuple[float, float]) -> list[float]:
    """17 keypoints, of which the first ones are labelled."""
    points = [value for x, y in labelled for value in (x, y, 2)]
    return points + [0] * (51 - len(points))


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"area": 0}, "area 0 of a person with labelled keypoints is below a pixel"),
        ({"area": 0.0}, "area 0.0 of a person"),
        ({"area": 0.04}, "area 0.04 of a person"),
        ({"bbox": [20, 20, 0, 0]}, r"bbox \[20, 20, 0, 0\] has no width or no height"),
        ({"bbox": [20, 20, 0, 30]}, "has no width or no height"),
        ({"bbox": [20, 20, 30, 0.5]}, "has no width or no height"),
        ({"bbox": [500, 500, 30, 30]}, "lies outside its image of 64 x 48"),
    ],
)
def test_people_without_a_size_get_one(
    tree: Tree, made: Made, fields: dict[str, Any], problem: str
) -> None:
    """With an area of 0, nobody who is found can match."""
    data = made((1, 1))
    for annotation in data["annotations"]:
        annotation.update(fields)
    root = tree(data)
    with pytest.raises(AnnotationError, match=problem):
        opened(root)
    repaired = opened(root, strict=False).coco
    assert evaluate(repaired, perfect(data), COCO)["AP"] == 1
    assert all(min(a["bbox"][2:]) >= 1 for a in repaired["annotations"])


@pytest.mark.parametrize(
    "points",
    [
        joints((30, 20)),
        joints((10, 20), (50, 20)),
        joints((30, 5), (30, 40)),
        joints((63, 47), (63, 47)),
    ],
    ids=["one joint", "in a row", "in a column", "in the corner"],
)
def test_few_joints_get_a_box_with_an_area(tree: Tree, made: Made, points: list[float]) -> None:
    data = made((1, 1))
    number = sum(v > 0 for v in points[2::3])
    data["annotations"][0].update(keypoints=points, num_keypoints=number, bbox=[0, 0, 0, 0], area=0)
    dataset = opened(tree(data), strict=False)
    repaired = dataset.coco
    x, y, width, height = repaired["annotations"][0]["bbox"]
    assert min(width, height) >= 8
    assert all(x <= px <= x + width for px, v in zip(points[::3], points[2::3]) if v)
    assert all(y <= py <= y + height for py, v in zip(points[1::3], points[2::3]) if v)
    assert 0 <= x <= x + width <= 64 and 0 <= y <= y + height <= 48
    assert evaluate(repaired, perfect(data), COCO)["AP"] == 1


def test_the_box_of_joints_is_a_tenth_larger_on_every_side() -> None:
    assert box_of_joints([100, 100, 2, 300, 200, 1, 900, 900, 0], (1000, 1000)) == [
        80,
        80,
        240,
        140,
    ]
    assert box_of_joints([100, 100, 2], (1000, 1000)) == [92, 92, 16, 16]
    assert box_of_joints([3, 100, 2], (1000, 1000)) == [0, 92, 11, 16]
    assert box_of_joints([2000, 100, 2], (1000, 1000)) == [1992, 92, 16, 16]
    assert box_of_joints([100, 100, 0], (1000, 1000)) == [0, 0, 0, 0]


def test_who_is_not_scored_needs_no_size(tree: Tree, made: Made) -> None:
    data = made((2,))
    data["annotations"][0].update(keypoints=[0] * 51, num_keypoints=0, area=0, bbox=[9, 9, 0, 0])
    data["annotations"][1].update(iscrowd=1, area=0, bbox=[9, 9, 0, 0])
    assert opened(tree(data)).report.count == 0


@pytest.mark.parametrize("count", [0, 5])
def test_a_count_that_contradicts_the_visibilities(tree: Tree, made: Made, count: int) -> None:
    """0 with labelled joints is neither scored nor trained on; 5 with none is scored as a miss."""
    data = made((1, 1))
    points = [0] * 51 if count else joints((10, 10), (20, 30))
    data["annotations"][0].update(keypoints=points, num_keypoints=count)
    root = tree(data)
    labelled = 0 if count else 2
    said = rf"num_keypoints is {count}, but {labelled} are labelled -> keypoints counted"
    with pytest.raises(AnnotationError, match=said):
        opened(root)
    dataset = opened(root, strict=False)
    assert dataset.coco["annotations"][0]["num_keypoints"] == labelled
    assert dataset.mask(10).all() == (not count)  # people without keypoints are masked
    stats = evaluate(dataset.coco, perfect(data), COCO)
    assert stats["AP"] == stats["AR"] == 1


def test_a_count_that_changes_no_result_is_a_note(
    tree: Tree, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    data = made((2,))
    for x, annotation in enumerate(data["annotations"]):
        annotation.update(keypoints=joints((x, 10), (20, 30)), num_keypoints=17)
    dataset = opened(tree(data))
    assert dataset.report.count == 0
    assert "num_keypoints and keypoints of 2 people differ: annotation 1001" in caplog.text
    assert [a["num_keypoints"] for a in dataset.coco["annotations"]] == [2, 2]


def crowd_pose(made: Made, *counts: int) -> dict[str, Any]:
    """People of whom only the head and the neck are labelled, with their num_keypoints."""
    data = made((len(counts),))
    data["categories"][0]["keypoints"] = list(CROWD_POSE.keypoints)
    for x, (annotation, count) in enumerate(zip(data["annotations"], counts), 9):
        annotation.update(keypoints=[0] * 36 + [x, 9, 2, x, 20, 1], num_keypoints=count)
    return data


def test_crowd_pose_counts_neither_head_nor_neck(
    tree: Tree, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    """Its counts stay what they are, as the published scores depend on them."""
    dataset = opened(tree(crowd_pose(made, 0, 2)), skeleton=CROWD_POSE)
    assert str(dataset.report).endswith("0 problems")
    assert [a["num_keypoints"] for a in dataset.coco["annotations"]] == [0, 2]
    root = dataset.images.root.parents[1]
    other = opened(root, crowd_pose(made, 7, -1), strict=False, skeleton=CROWD_POSE)
    assert other.report.count == 1 and "num_keypoints is 7, but 0 are labelled" in caplog.text
    assert [a["num_keypoints"] for a in other.coco["annotations"]] == [7, 0]
    without = crowd_pose(made, 0)
    del without["annotations"][0]["num_keypoints"]
    missing = opened(root, without, skeleton=CROWD_POSE)
    assert [a["num_keypoints"] for a in missing.coco["annotations"]] == [0]


def test_crowd_pose_itself_has_no_problems(shared: Path, tmp_path: Path) -> None:
    file = shared / "golden/crowdpose_subset.json"
    raw = json.loads(file.read_text())
    for image in raw["images"]:
        (tmp_path / image["file_name"]).touch()
    dataset = KeypointDataset(file, tmp_path, CROWD_POSE)
    assert dataset.coco["annotations"] == raw["annotations"]
    assert dataset.coco["images"] == raw["images"]
    unmasked, outside = dataset.report.notes
    assert "2 of 15348 labelled joints lie outside their image" in outside
    assert unmasked.startswith("115 crowds and people without keypoints have no outline")


def test_coco_itself_has_nothing_to_say(shared: Path) -> None:
    for split in ("train2017", "val2017"):
        file = shared / f"data/coco_mini/annotations/person_keypoints_{split}.json"
        dataset = KeypointDataset(file, shared / f"data/coco_mini/images/{split}", COCO)
        assert str(dataset.report).endswith("0 problems")
        assert dataset.coco["annotations"] == json.loads(file.read_text())["annotations"]


@pytest.mark.parametrize("nothing", [None, NAN, float("inf"), 1e300, HUGE], ids=str)
def test_an_unlabelled_joint_needs_no_coordinates(tree: Tree, made: Made, nothing: Any) -> None:
    data = made((1,))
    data["annotations"][0]["keypoints"][:6] = [nothing, nothing, 0, 30, 20, 2]
    data["annotations"][0]["keypoints"][6:9] = [3, nothing, 0.0]
    count = sum(v > 0 for v in data["annotations"][0]["keypoints"][2::3])
    data["annotations"][0]["num_keypoints"] = count
    dataset = opened(tree(data))
    assert dataset.report.count == 0
    people = dataset.joints(10)
    assert people.shape == (1, 17, 3) and people[0, :3].tolist() == [[0] * 3, [30, 20, 2], [0] * 3]
    assert dataset.coco["annotations"][0]["keypoints"][:3] == [0, 0, 0]


@pytest.mark.parametrize(
    "joint", [[None, 3, 2], [NAN, 3, 1], [HUGE, NAN, 2], [3, 3, None], [3, 3, NAN], ["3", 3, 0]]
)
def test_other_joints_need_coordinates(tree: Tree, made: Made, joint: list[Any]) -> None:
    data = made((1, 1))
    data["annotations"][0]["keypoints"][:4] = [*joint, 30.5]
    root = tree(data)
    with pytest.raises(AnnotationError, match="keypoints are not all finite numbers"):
        opened(root)
    assert [len(opened(root, strict=False).joints(i)) for i in (10, 11)] == [0, 1]


@pytest.mark.parametrize("value", [1e9, -1e30, 1e300, HUGE], ids=str)
def test_coordinates_may_not_be_absurd(tree: Tree, made: Made, value: float) -> None:
    """They are finite all the same."""
    data = made((1, 1))
    data["annotations"][0]["keypoints"][:3] = [3, value, 2]
    said = r"keypoints are not all numbers of pixels: -?1[0e]\S+ is too large -> annotation skipped"
    with pytest.raises(AnnotationError, match=said):
        opened(tree(), data)


def test_whole_numbers_may_be_written_with_a_point(tree: Tree, made: Made) -> None:
    data = made((1, 1))
    root = tree(data)
    for image in data["images"]:
        image.update(id=float(image["id"]), width=64.0, height=48.0)
    for annotation in data["annotations"]:
        for key in ("id", "image_id", "category_id", "num_keypoints", "iscrowd"):
            annotation[key] = float(annotation[key])
    data["categories"][0]["id"] = 1.0
    dataset = opened(root, data)
    assert dataset.report.count == 0 and dataset.image_ids == [10, 11]
    assert dataset.read(10).shape == (48, 64, 3)
    records = perfect(data)
    assert evaluate(dataset.coco, records, COCO)["AP"] == 1
    kinds = {type(a[key]) for a in dataset.coco["annotations"] for key in ("id", "image_id")}
    assert kinds == {int}


@pytest.mark.parametrize(
    "where, fields, said",
    [
        ("images", {"id": "10"}, "its id '10' is text, not a whole number"),
        ("images", {"id": 10.5}, "its id 10.5 is not a whole number"),
        ("annotations", {"id": "7"}, "its id '7' is text, not a whole number"),
        ("annotations", {"image_id": "10"}, "its image_id '10' is text, not a whole number"),
        ("annotations", {"category_id": "1"}, "its category_id '1' is text, not a whole number"),
        ("categories", {"id": "1"}, "no category has an id that can be used; '1' is text"),
    ],
)
def test_ids_as_text_are_named_as_text(
    tree: Tree, made: Made, where: str, fields: dict[str, Any], said: str
) -> None:
    data = made((1, 1))
    root = tree(data)
    data[where][0].update(fields)
    with pytest.raises(AnnotationError, match=said):
        opened(root, data)


@pytest.mark.parametrize(
    "where, key",
    [("images", "id"), ("images", "width"), ("images", "crowdIndex")]
    + [
        ("annotations", key)
        for key in ("id", "image_id", "category_id", "area", "num_keypoints", "iscrowd")
    ]
    + [("annotations", "bbox"), ("annotations", "segmentation")],
)
def test_numbers_of_400_digits_are_problems(tree: Tree, made: Made, where: str, key: str) -> None:
    data = made((1, 1))
    root = tree(data)
    value: Any = HUGE
    if key in ("bbox", "segmentation"):
        value = [1.5, 2, HUGE, 4] if key == "bbox" else [[1.5, 2, 3, 4, 5, HUGE]]
        data[where][0].update(keypoints=[0] * 51, num_keypoints=0)
    data[where][0][key] = value
    with pytest.raises(AnnotationError, match="1 problem|2 problems"):
        opened(root, data)
    dataset = opened(root, strict=False)
    evaluate(dataset.coco, [], COCO)
    assert 11 in dataset.image_ids


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_every_unicode_encoding_is_read(tree: Tree, made: Made, encoding: str) -> None:
    data = made((1,))
    root = tree(data)
    file = root / "annotations/person_keypoints_train2017.json"
    file.write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)
    assert len(opened(root)) == 1
    (root / "results.json").write_text(json.dumps(perfect(data)), encoding=encoding)
    assert evaluate(file, root / "results.json", COCO)["AP"] == 1


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_side_that_cannot_be_warped_is_found_when_the_set_is_opened(
    tree: Tree, made: Made, side: str
) -> None:
    data = made((1, 1))
    root = tree(data)
    data["images"][0][side] = 32767
    with pytest.raises(AnnotationError, match="32767.* pixels; OpenCV can warp sides of up to"):
        opened(root, data)
    assert opened(root, strict=False).image_ids == [11]
    data["images"][0][side] = 32766
    assert opened(root, data).image_ids == [10, 11]


@pytest.mark.parametrize(
    "name",
    ["a\u00a0b.png", "a\u202fb.png", "\u3000.png", "a\u200db.png", "\U0001f9d1.png"],
    ids=repr,
)
def test_spaces_of_every_kind_are_part_of_names(tree: Tree, made: Made, name: str) -> None:
    data = made((1,))
    data["images"][0]["file_name"] = name
    dataset = opened(tree(data))
    assert dataset.read(10).shape == (48, 64, 3)


@pytest.mark.parametrize(
    "name", ["", 5, "a\nb.png", "a\x00.png", "\x1b[2J.png", "a\udc80.png", "a\u2028.png"]
)
def test_control_characters_are_no_names(tree: Tree, made: Made, name: Any) -> None:
    data = made((1, 1))
    root = tree(data)
    data["images"][0]["file_name"] = name
    with pytest.raises(AnnotationError, match="image 10: file_name .* names no file") as error:
        opened(root, data)
    assert str(error.value).isprintable() or "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ["/etc/passwd", "../10.png", "a/../../10.png", ".."])
def test_a_path_that_leaves_the_folder_is_refused(tree: Tree, made: Made, name: str) -> None:
    data = made((1, 1))
    root = tree(data)
    data["images"][0]["file_name"] = name
    with pytest.raises(AnnotationError, match="leads out of the folder of the images"):
        opened(root, data)
    assert opened(root, strict=False).image_ids == [11]


def test_a_path_that_comes_back_is_fine(tree: Tree, made: Made) -> None:
    data = made((1,))
    root = tree(data)
    (root / "images/train2017/below").mkdir()
    data["images"][0]["file_name"] = "below/../10.png"
    assert opened(root, data).read(10).shape == (48, 64, 3)


@pytest.mark.parametrize("strict", [True, False])
def test_backslashes_are_named_with_what_was_looked_for(
    tree: Tree, made: Made, strict: bool
) -> None:
    data = made((1, 1))
    root = tree(data)
    for image in data["images"]:
        image["file_name"] = f"train2017\\{image['file_name']}"
    with pytest.raises(AnnotationError) as error:
        opened(root, data, strict)
    said = f"no image file {root}/images/train2017/train2017\\10.png; only / separates folders"
    assert said in str(error.value)


def test_skipped_images_are_remembered(tree: Tree, made: Made) -> None:
    data = made((1, 1, 1, 1))
    root = tree(data)
    data["images"][0]["width"] = 0
    data["images"][1]["file_name"] = "gone.png"
    data["images"].append(dict(data["images"][2]))
    dataset = opened(root, data, strict=False)
    assert dataset.report.skipped_images == {10, 11} and dataset.image_ids == [12, 13]
    assert {a["image_id"] for a in dataset.coco["annotations"]} == {12, 13}


def test_a_repaired_set_is_the_same_to_loader_and_scorer(
    tree: Tree, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    data = made((3, 2, 1))
    people = data["annotations"]
    people[0]["num_keypoints"] = 0
    people[1]["keypoints"] = [NAN] * 51
    people[3].update(bbox=[0, 0, 0, 0])
    root = tree(data)
    with caplog.at_level(logging.WARNING):
        dataset = opened(root, strict=False)
    scored: dict[int, list[Any]] = {image_id: [] for image_id in dataset.image_ids}
    for annotation in dataset.coco["annotations"]:
        scored[annotation["image_id"]].append(annotation)
    for image_id in dataset.image_ids:
        expected = np.array([a["keypoints"] for a in scored[image_id]], np.float32)
        assert np.array_equal(dataset.joints(image_id), expected.reshape(-1, 17, 3))
    assert np.array_equal(
        dataset.arrays.boxes, np.array([a["bbox"] for a in dataset.coco["annotations"]], np.float32)
    )
