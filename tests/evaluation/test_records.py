"""Results from elsewhere: what is refused, in one line, and what is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.evaluation.matching import checked_run
from swahr.evaluation.metrics import EvaluationError, evaluate
from swahr.evaluation.records import checked_records
from tests.evaluation.test_metrics import STICK, found, person, truth

NAN = float("nan")
TRUTH = truth([person(1, 1, 100), person(2, 2, 200)])


@pytest.mark.parametrize(
    "record, said",
    [
        ({"image_id": "1"}, "result 1 has the image_id '1', which is text, not a whole number"),
        ({"category_id": "1"}, "has the category_id '1', which is text"),
        ({"image_id": None}, "has the image_id None, which is not a whole number"),
        ({"image_id": 1.5}, "has the image_id 1.5, which is not a whole number"),
        ({"image_id": True}, "has the image_id True, which is not a whole number"),
        ({"image_id": 9}, "is of image 9, which is not among the annotated images"),
        ({"image_id": 10**400}, "is of image 10+, which is not among"),
        ({"category_id": 3}, "has the category 3; the annotations have 1"),
        ({"score": NAN}, r"has the score nan \(image 1\), not a number between -1e9 and 1e9$"),
        ({"score": None}, "has the score None"),
        ({"score": "0.5"}, "has the score '0.5'"),
        ({"score": 10**400}, "has the score 10+"),
        ({"keypoints": [NAN] * 9}, r"has the keypoint coordinate nan at keypoints\[0\] \(image 1"),
        ({"keypoints": [None] * 9}, "has the keypoint coordinate None"),
        ({"keypoints": [1, 2, float("inf")] * 3}, r"has the keypoint score inf at keypoints\[2\]"),
        ({"keypoints": [1, 2, 10**400] * 3}, "has the keypoint score 10+"),
        (
            {"keypoints": [1, 2, 2, 1, 2e9, 2, 1, 2, 2]},
            r"result 1 has the keypoint coordinate 2000000000.0 at keypoints\[4\] \(image 1\), not",
        ),
        ({"keypoints": 5}, "has 0 keypoint numbers; the skeleton needs 3 x 3"),
        ({"keypoints": None}, "has 0 keypoint numbers"),
        ({"keypoints": [1] * 8}, "has 8 keypoint numbers"),
    ],
)
@pytest.mark.parametrize("protocol", ["coco", "crowd_pose"])
def test_a_record_that_cannot_be_scored(record: Any, said: str, protocol: str) -> None:
    records = [found(1, 100, 0.9), found(1, 100, 0.9) | record]
    with pytest.raises(EvaluationError, match=said) as error:
        evaluate(TRUTH, records, STICK, protocol)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", [5, None, [1], "text"])
def test_what_is_no_record(record: Any) -> None:
    with pytest.raises(EvaluationError, match="result 0 is .*, not an object"):
        evaluate(TRUTH, [record], STICK)


def test_ids_may_be_written_with_a_point_or_be_numpys() -> None:
    records = [
        found(1, 100, 0.9) | {"image_id": 1.0, "category_id": 1.0},
        found(2, 200, 0.9) | {"image_id": np.int64(2), "score": np.float32(0.5)},
    ]
    assert evaluate(TRUTH, records, STICK)["AR"] == 1


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("box", [None, [], [1, 2, 3], [1, 2, NAN, 4], "box"])
def test_boxes_count_only_if_all_are_valid(box: Any, first: bool) -> None:
    """The scorer takes areas from boxes if the first record has one, and then from all."""
    records = [found(1, 100, 0.9), found(2, 200, 0.8), found(2, 500, 0.7, size=20)]
    without = evaluate(TRUTH, records, STICK)
    valid = [record | {"bbox": [0, 0, 500, 500]} for record in records]
    valid[0 if first else 1]["bbox"] = box
    assert evaluate(TRUTH, valid, STICK) == without


def test_other_fields_do_not_change_how_records_are_read() -> None:
    records = [found(1, 100, 0.9), found(2, 200, 0.8)]
    more = [record | {"caption": "a", "segmentation": [[1, 2]], "id": 7} for record in records]
    assert evaluate(TRUTH, more, STICK) == evaluate(TRUTH, records, STICK)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[1" + "0" * 5000 + "]"])
def test_a_results_file_that_is_not_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"results .*r\.json: cannot be read") as error:
        evaluate(TRUTH, tmp_path / "r.json", STICK)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields, said",
    [
        (
            {"keypoints": None},
            "annotation 2 has 0 keypoint numbers; the skeleton stick needs 3 x 3",
        ),
        ({"keypoints": [1] * 8}, "annotation 2 has 8 keypoint numbers"),
        ({"keypoints": [None] * 9}, "annotation 2 has keypoints that are not all finite numbers"),
        ({"keypoints": [1, NAN, 2] * 3}, "annotation 2 has keypoints that are not all finite"),
        ({"keypoints": "abcdefghi"}, "annotation 2 has keypoints that are not all finite"),
        ({"bbox": None}, r"annotation 2 has the bbox None, not x, y, width, height"),
        ({"bbox": [1, 2]}, r"annotation 2 has the bbox \[1, 2\], not x, y, width, height"),
        ({"bbox": [1, 2, NAN, 4]}, r"annotation 2 has the bbox \[1, 2, nan, 4\], not x, y"),
        ({"area": None}, "annotation 2 has the area None, not a number"),
        ({"area": "5"}, "annotation 2 has the area '5', not a number"),
        ({"num_keypoints": None}, "annotation 2 has the num_keypoints None, not a number"),
        ({"iscrowd": None}, "annotation 2 has the iscrowd None, not a number"),
        ({"image_id": None}, "annotation 2 has the image_id None, which is not a whole number"),
        ({"image_id": "2"}, "annotation 2 has the image_id '2', which is text"),
        ({"image_id": [2]}, r"annotation 2 has the image_id \[2\], which is not a whole number"),
        ({"image_id": 9}, "annotation 2 is of image 9, which is not among the annotated images"),
        ({"category_id": None}, "annotation 2 has the category_id None, which is not a whole"),
        ({"category_id": 3}, "annotation 2 has the category 3; the annotations have 1"),
    ],
)
@pytest.mark.parametrize("protocol", ["coco", "crowd_pose"])
def test_an_annotation_that_cannot_be_scored(fields: Any, said: str, protocol: str) -> None:
    labels = truth([person(1, 1, 100), person(2, 2, 200) | fields])
    for score in (evaluate, checked_run):
        with pytest.raises(EvaluationError, match=said) as error:
            score(labels, [found(1, 100, 0.9)], STICK, protocol)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"annotations": [5]}, "annotation 5 is not an object"),
        ({"annotations": None}, "the annotations have no annotations, so there is nothing"),
        ({"images": [5]}, "image 5 is not an object"),
        ({"images": [{"file_name": "a"}]}, "the image at 0 has the id None, which is not a whole"),
        ({"images": [{"id": 1, "crowdIndex": None}]}, "image 1 has the crowdIndex None, not a num"),
        ({"categories": ["person"]}, "category 'person' is not an object"),
        ({"categories": [{"name": "person"}]}, "the category at 0 has the id None, which is not a"),
    ],
)
def test_annotation_files_that_cannot_be_scored(fields: Any, said: str) -> None:
    with pytest.raises(EvaluationError, match=said) as error:
        evaluate(TRUTH | fields, [found(1, 100, 0.9)], STICK, "crowd_pose")
    assert "\n" not in str(error.value)


def test_ids_of_annotations_may_be_written_with_a_point() -> None:
    labels = json.loads(json.dumps(TRUTH))
    for part, key in (("images", "id"), ("annotations", "image_id"), ("categories", "id")):
        for item in labels[part]:
            item[key] = float(item[key])
    assert evaluate(labels, [found(1, 100, 0.9), found(2, 200, 0.9)], STICK)["AP"] == 1


def test_annotations_without_a_box() -> None:
    labels = json.loads(json.dumps(TRUTH))
    del labels["annotations"][1]["bbox"]
    with pytest.raises(EvaluationError, match="annotation 2 has no bbox"):
        evaluate(labels, [found(1, 100, 0.9)], STICK)


def test_valid_boxes_are_kept() -> None:
    records = [found(1, 100, 0.9) | {"bbox": [0, 0, 500, 500]} for _ in range(2)]
    assert checked_records(records, {1}, {1}, 9) == records
