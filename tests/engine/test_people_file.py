from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.engine.people_file import PeopleFile, Summary, to_annotations
from swahr.files import write_text
from swahr.inference.predictor import Prediction
from swahr.skeleton import Skeleton

SKELETON = Skeleton("toy", ("head", "tail", "nose"), (), (0.1, 0.1, 0.1), limbs=((0, 1),))
SIZE = (100, 50)


def people(*joints: list[tuple[float, float, float]], scores: tuple[float, ...] = ()) -> Prediction:
    keypoints = np.array(joints, np.float32).reshape(-1, 3, 3)
    return Prediction(keypoints, np.array(scores or [0.5] * len(joints), np.float32))


PERSON = [(10.0, 20.0, 0.9), (30.0, 25.0, 0.05), (0.0, 0.0, 0.0)]


def annotations(prediction: Prediction, threshold: float = 0.1) -> list[dict[str, Any]]:
    return to_annotations(prediction, SIZE, threshold, 0.1)


def test_annotations_have_the_fields_of_coco() -> None:
    [person] = annotations(people(PERSON))
    assert person == {
        "category_id": 1,
        "iscrowd": 0,
        "keypoints": [10, 20, 2, 30, 25, 1, 0, 0, 0],
        "keypoint_scores": [0.9, 0.05, 0],
        "num_keypoints": 2,
        "score": 0.5,
        "bbox": [10, 20, 20, 5],
        "area": 100,
    }
    assert all(type(flag) is int for flag in person["keypoints"][2::3])


def test_people_below_the_threshold_are_dropped() -> None:
    prediction = people(PERSON, PERSON, PERSON, scores=(0.25, 0.5, 0.125))
    assert [person["score"] for person in annotations(prediction, 0.25)] == [0.25, 0.5]
    assert len(annotations(prediction, -math.inf)) == 3


def test_joints_outside_the_image_are_not_visible() -> None:
    [person] = annotations(people([(-0.5, 49.6, 0.9), (101.0, 10.0, 0.9), (5.0, -1.5, 0.9)]))
    assert person["keypoints"] == [0, 49, 2, 0, 0, 0, 0, 0, 0]
    assert person["keypoint_scores"] == [0.9, 0.9, 0.9] and person["num_keypoints"] == 1
    assert annotations(people([(-9.0, 9.0, 0.9)] * 3), -math.inf) == []


@pytest.mark.parametrize("corner", [(0.0, 0.0), (99.0, 49.0), (99.9, 49.9)])
def test_every_person_has_a_box_inside_the_image(corner: tuple[float, float]) -> None:
    [person] = annotations(people([(*corner, 0.9), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)]))
    x, y, width, height = person["bbox"]
    assert (width, height, person["area"]) == (1, 1, 1)
    assert 0 <= x <= 99 and 0 <= y <= 49


def people_file(folder: Path) -> PeopleFile:
    return PeopleFile(folder, SKELETON, {"weights": "w"}, threshold=0.1, joint_threshold=0.1)


def content(folder: Path) -> Any:
    return json.loads((folder / "people.json").read_text())


def test_the_file_has_images_in_their_order_and_the_people_of_each(tmp_path: Path) -> None:
    with people_file(tmp_path) as file:
        file.add(5, "last.png", SIZE, people(PERSON))
        file.skip(2, "bad.txt", "bad.txt: not an image")
        file.add(1, "first.png", (7, 8), people())
        file.add(3, "middle.png", SIZE, people(PERSON, PERSON))
    found = content(tmp_path)
    assert found["info"] == {"weights": "w"}
    assert found["images"] == [
        {"id": 1, "file_name": "first.png", "width": 7, "height": 8},
        {"id": 2, "file_name": "middle.png", "width": 100, "height": 50},
        {"id": 3, "file_name": "last.png", "width": 100, "height": 50},
    ]
    ids = [(person["id"], person["image_id"]) for person in found["annotations"]]
    assert ids == [(1, 2), (2, 2), (3, 3)]
    [category] = found["categories"]
    assert category["keypoints"] == ["head", "tail", "nose"] and category["skeleton"] == [[1, 2]]
    skipped = {"bad.txt": "bad.txt: not an image"}
    assert file.summary == Summary(images=3, empty=1, people=3, best_score=0.5, skipped=skipped)
    assert [path.name for path in tmp_path.iterdir()] == ["people.json"]


def test_an_error_loses_nothing_that_was_added(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), people_file(tmp_path) as file:
        file.add(0, "a.png", SIZE, people(PERSON))
        raise KeyboardInterrupt
    assert len(content(tmp_path)["annotations"]) == 1


def test_an_error_before_the_first_image_keeps_an_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "people.json").write_text("earlier")
    with pytest.raises(ZeroDivisionError), people_file(tmp_path):
        raise ZeroDivisionError
    assert (tmp_path / "people.json").read_text() == "earlier"


def test_a_signal_does_not_cut_the_writing_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, text: str) -> None:
        signal.raise_signal(signal.SIGINT)
        write_text(path, text)

    monkeypatch.setattr("swahr.engine.people_file.write_text", write)
    with people_file(tmp_path) as file:
        file.add(0, "a.png", SIZE, people(PERSON))
    assert len(content(tmp_path)["annotations"]) == 1


def test_what_a_killed_run_left_is_not_mixed_in(tmp_path: Path) -> None:
    people_file(tmp_path).add(0, "old.png", SIZE, people(PERSON))
    assert list((tmp_path / ".people_parts").iterdir())
    with people_file(tmp_path) as file:
        file.add(1, "new.png", SIZE, people(PERSON))
    assert [image["file_name"] for image in content(tmp_path)["images"]] == ["new.png"]


def test_pycocotools_reads_the_file(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    with people_file(tmp_path) as file:
        file.add(0, "a.png", SIZE, people(PERSON))
    read = coco.COCO(str(tmp_path / "people.json"))
    [person] = read.loadAnns(read.getAnnIds(catIds=[1], iscrowd=False, areaRng=[1, 1000]))
    assert person["num_keypoints"] == 2
