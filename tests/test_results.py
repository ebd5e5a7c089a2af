"""Results: what they hold, and what they are converted to."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.inference.predictor import Prediction
from swahr.results import Result, make_result
from swahr.skeleton import Skeleton

HAND = Skeleton("hand", ("wrist", "left_tip", "right_tip"), ((1, 2),), (0.1,) * 3, ((0, 1), (0, 2)))
# Two people; the second one's right tip was not found, and a third was not found at all.
POINTS = [
    [[10, 10, 0.9], [30, 12, 0.8], [12, 40, 0.7]],
    [[50, 20, 0.4], [70, 30, 0.3], [-3, -4, 0]],
    [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
]


@pytest.fixture
def result() -> Result:
    image = np.full((60, 80, 3), 90, np.uint8)
    prediction = Prediction(
        np.array(POINTS, np.float32),
        np.array([0.8, 0.25, 0.01], np.float32),
        np.array([[1, 2], [3, 4], [5, 6]], np.float32),
    )
    return make_result("photo.jpg", image, prediction, HAND)


def nobody() -> Result:
    empty = Prediction(np.zeros((0, 3, 3), np.float32), np.zeros(0, np.float32))
    return make_result("empty.jpg", np.zeros((4, 6, 3), np.uint8), empty, HAND)


def test_joints_that_were_not_found_have_no_place_and_no_score(result: Result) -> None:
    assert result.names == HAND.keypoints and len(result) == 3
    assert result.keypoints.shape == (3, 3, 2) and result.keypoints.dtype == np.float32
    assert np.isnan(result.keypoints[1, 2]).all() and np.isnan(result.keypoints[2]).all()
    assert result.keypoint_scores[1].tolist() == pytest.approx([0.4, 0.3, 0])
    assert result.keypoints[0].tolist() == [[10, 10], [30, 12], [12, 40]]
    assert result.tags is not None and result.tags.tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.filterwarnings("error")
def test_boxes_lie_around_the_found_joints(result: Result) -> None:
    assert result.boxes[:2].tolist() == [[10, 10, 30, 40], [50, 20, 70, 30]]
    assert np.isnan(result.boxes[2]).all()
    assert nobody().boxes.shape == (0, 4)


def test_text(result: Result) -> None:
    assert repr(result) == "Result('photo.jpg', 80 x 60 px: 3 people (scores 0.80, 0.25, 0.01))"
    assert repr(nobody()) == "Result('empty.jpg', 6 x 4 px: nobody)"
    assert result._repr_html_().startswith('<img alt="3 people" style="max-width:100%" src="data:')
    many = Prediction(np.ones((7, 3, 3), np.float32), np.ones(7, np.float32))
    assert "7 people (scores 1.00, 1.00, 1.00, 1.00, 1.00, ...)" in repr(
        make_result("a", result.image, many, HAND)
    )


def test_some_of_the_people(result: Result) -> None:
    sure = result.select(result.scores > 0.5)
    assert len(sure) == len(sure.boxes) == len(sure.to_coco()) == 1 and len(result) == 3
    assert np.array_equal(sure.keypoints, result.keypoints[:1]) and sure.tags is not None
    assert sure.tags.tolist() == [[1, 2]] and sure.keypoint_scores.shape == (1, 3)
    assert nobody().select(np.zeros(0, bool)).tags is None


def test_drawing_and_saving(result: Result, tmp_path: Path) -> None:
    drawn = result.draw()
    assert drawn.shape == result.image.shape and (drawn != result.image).any()
    assert (result.image == 90).all()
    assert (result.draw(threshold=0.5) != drawn).any()
    path = result.save(tmp_path / "out.png")
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], drawn)
    with pytest.raises(ValueError, match=r"out.xyz: images are written as .png or .jpg"):
        result.save(tmp_path / "out.xyz")
    assert np.array_equal(nobody().draw(), nobody().image)


def test_coco_annotations(result: Result) -> None:
    first, second = result.to_coco(image_id=7)
    assert (first["id"], second["id"], first["image_id"]) == (1, 2, 7)
    assert first["keypoints"] == [10, 10, 2, 30, 12, 2, 12, 40, 2]
    assert second["keypoints"] == [50, 20, 2, 70, 30, 2, 0, 0, 0]
    assert (first["bbox"], first["area"]) == ([10, 10, 20, 30], 600)
    assert second["num_keypoints"] == 2 and second["score"] == 0.25
    assert nobody().to_coco() == []


def test_a_frame_has_a_row_for_each_person_and_keypoint(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas: Any = ModuleType("pandas")
    pandas.DataFrame = dict
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    frame = result.to_frame()
    assert frame["person"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert frame["keypoint"] == list(HAND.keypoints) * 3
    assert frame["x"][:3].tolist() == [10, 30, 12] and frame["y"][:3].tolist() == [10, 12, 40]
    assert np.isnan(frame["x"][5]) and frame["score"][5] == 0
    assert frame["person_score"][3:5].tolist() == [0.25, 0.25]


@pytest.mark.filterwarnings("error")
def test_keypoints_of_supervision(result: Result) -> None:
    """With its own drawing, which needs the edges of the skeleton."""
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    points = result.to_supervision()
    assert len(points) == 3 and points.xy[0].tolist() == [[10, 10], [30, 12], [12, 40]]
    assert points.xy[1, 2].tolist() == [0, 0]
    assert np.array_equal(points.keypoint_confidence, result.keypoint_scores)
    assert np.array_equal(points.detection_confidence, result.scores)
    assert points.visible.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    edges = [(a + 1, b + 1) for a, b in HAND.limbs]
    drawn = supervision.EdgeAnnotator(edges=edges).annotate(result.image.copy(), points)
    assert (drawn != result.image).any()
    assert len(nobody().to_supervision()) == 0


@dataclass
class OldKeyPoints:
    """supervision's before version 0.29."""

    xy: Any
    confidence: Any = None
    class_id: Any = None


def test_keypoints_of_an_older_supervision(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    supervision: Any = ModuleType("supervision")
    supervision.KeyPoints = OldKeyPoints
    monkeypatch.setitem(sys.modules, "supervision", supervision)
    points = result.to_supervision()
    assert points.xy.shape == (3, 3, 2) and points.xy[1, 2].tolist() == [0, 0]
    assert np.array_equal(points.confidence, result.keypoint_scores)
    assert points.class_id.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["pandas", "supervision"])
def test_a_missing_library_is_named_in_one_line(
    result: Result, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    convert = {"pandas": result.to_frame, "supervision": result.to_supervision}[name]
    with pytest.raises(ImportError, match=f"needs {name}: pip install {name}$"):
        convert()
