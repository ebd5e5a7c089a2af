from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.evaluation.metrics import NAMES, EvaluationError, evaluate, format_table
from swahr.skeleton import COCO, CROWD_POSE, Skeleton

STICK = Skeleton("stick", ("top", "middle", "bottom"), (), (0.05, 0.1, 0.05))


def person(number: int, image: int, x: float, size: float = 60, **fields: Any) -> dict[str, Any]:
    keypoints = [x, 10, 2, x + size / 4, 10 + size / 2, 2, x, 10 + size, 2]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "keypoints": keypoints,
        "num_keypoints": 3,
        "iscrowd": 0,
        "bbox": [x, 10, size / 2, size],
        "area": size * size / 2,
        **fields,
    }


def truth(annotations: list[dict[str, Any]], images: int = 2) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480}
        for i in range(1, images + 1)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }


def found(image: int, x: float, score: float, size: float = 60) -> dict[str, Any]:
    keypoints = [x, 10, 1, x + size / 4, 10 + size / 2, 1, x, 10 + size, 1]
    return {"image_id": image, "category_id": 1, "keypoints": keypoints, "score": score}


@pytest.mark.parametrize(
    ("name", "protocol", "annotations"),
    [
        ("coco", "coco", "data/coco_mini/annotations/person_keypoints_val2017.json"),
        ("crowdpose", "crowd_pose", "golden/crowdpose_subset.json"),
    ],
)
def test_the_published_figures_come_out(
    shared: Path, name: str, protocol: str, annotations: str
) -> None:
    stats = evaluate(
        shared / annotations,
        str(shared / f"golden/{name}_detections.json"),
        COCO if protocol == "coco" else CROWD_POSE,
        protocol,
    )
    assert stats == pytest.approx(
        json.loads((shared / f"golden/{name}_stats.json").read_text()), abs=1e-6
    )
    assert tuple(stats) == NAMES[protocol]


def test_figures_are_those_of_pycocotools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.coco import COCO as Annotations
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(0)
    labels = []
    records = []
    for image in range(1, 13):
        for number in range(image % 4):
            x = random.uniform(0, 500)
            size = float(random.choice([20, 60, 200]))
            labels.append(person(len(labels) + 1, image, x, size, iscrowd=int(number == 2)))
            records += [
                found(image, x + random.normal(0, size / 15), random.uniform(), size)
                for _ in range(2)
            ]
    (tmp_path / "truth.json").write_text(json.dumps(truth(labels, 12)))
    (tmp_path / "found.json").write_text(json.dumps(records))
    annotations = Annotations(str(tmp_path / "truth.json"))
    judge = COCOeval(annotations, annotations.loadRes(str(tmp_path / "found.json")), "keypoints")
    judge.params.kpt_oks_sigmas = np.array(STICK.sigmas)
    judge.evaluate(), judge.accumulate(), judge.summarize()
    capsys.readouterr()
    stats = evaluate(tmp_path / "truth.json", tmp_path / "found.json", STICK)
    assert list(stats.values()) == pytest.approx(judge.stats.tolist(), abs=1e-9)
    assert 0.1 < stats["AP"] < 0.9
    assert capsys.readouterr() == ("", "")


def test_one_person_found_exactly() -> None:
    stats = evaluate(truth([person(5, 1, 100)]), [found(1, 100, 0.9)], STICK)
    assert stats["AP"] == stats["AR"] == stats["AP (M)"] == 1 and stats["AP (L)"] == -1


def test_the_id_0_counts_like_any_other_and_fields_may_be_missing() -> None:
    labels = [person(0, 1, 100), person(1, 2, 200)]
    records = [found(1, 100, 0.9), found(2, 200, 0.8)]
    for key in ("num_keypoints", "iscrowd", "area"):
        del labels[0][key]
    before = copy.deepcopy((labels, records))
    assert evaluate(truth(labels), records, STICK)["AP"] == 1
    assert (labels, records) == before


def test_num_keypoints_is_taken_from_the_file() -> None:
    labels = [person(1, 1, 100), person(2, 2, 200, num_keypoints=0)]
    assert evaluate(truth(labels), [found(1, 100, 0.9)], STICK)["AR"] == 1


def test_crowd_levels_are_told_apart_and_images_without_an_index_are_on_none() -> None:
    labels = truth([person(i, i, 100) for i in range(1, 5)], 4)
    for image, index in zip(labels["images"], (0.19, 0.2, 0.8)):
        image["crowdIndex"] = index
    stats = evaluate(
        labels, [found(2, 100, 0.9), found(3, 300, 0.9), found(4, 100, 0.8)], STICK, "crowd_pose"
    )
    assert (stats["AP (easy)"], stats["AP (medium)"], stats["AP (hard)"]) == (0, 1, 0)
    del labels["images"][0]["crowdIndex"]
    assert evaluate(labels, [found(2, 100, 0.9)], STICK, "crowd_pose")["AP (easy)"] == -1


@pytest.mark.parametrize(
    ("protocol", "undefined"), [("coco", {"AP (L)", "AR (L)"}), ("crowd_pose", {"AP (hard)"})]
)
def test_nobody_found_is_zero_and_said(
    protocol: str, undefined: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Figures that nobody labelled counts for are undefined, as they are if somebody is found."""
    labels = truth([person(1, 1, 100), person(2, 2, 100)])
    for image, index in zip(labels["images"], (0.1, 0.5)):
        image["crowdIndex"] = index
    expected = {name: -1.0 if name in undefined else 0.0 for name in NAMES[protocol]}
    assert evaluate(labels, [found(1, 700, 0.9)], STICK, protocol) == expected
    with caplog.at_level(logging.WARNING, "swahr"):
        assert evaluate(labels, [], STICK, protocol) == expected
    assert "nobody was found" in caplog.text


@pytest.mark.parametrize("records", [[], [found(1, 100, 0.9)]])
def test_nobody_labelled_gives_no_figures(
    records: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "swahr"):
        assert set(evaluate(truth([]), records, STICK).values()) == {-1.0}
    assert "nobody is labelled" in caplog.text


@pytest.mark.parametrize(
    ("labels", "records", "protocol", "message"),
    [
        (truth([]), [], "mpii", "unknown scoring protocol 'mpii': it is one of coco, crowd_pose"),
        ({"images": [], "categories": []}, [], "coco", "the annotations have no annotations"),
        ([], [], "coco", "annotations must be a JSON object, not list$"),
        ("missing.json", [], "coco", "annotations missing.json: cannot be read .*No such file"),
        (
            truth([person(3, 1, 9, keypoints=[1, 2, 2])]),
            [],
            "coco",
            "annotation 3 has 3 keypoint numbers; the skeleton st",
        ),
        (truth([]), [{"image_id": 1}], "coco", "result 0 has no category_id"),
        (
            truth([]),
            [found(1, 9, 1) | {"keypoints": [1]}],
            "coco",
            "result 0 has 1 keypoint number; the skeleton needs 3 x 3",
        ),
        (
            truth([]),
            [found(9, 9, 1)],
            "coco",
            "result 0 is of image 9, which is not among the annotated",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    labels: Any, records: Any, protocol: str, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message) as error:
        evaluate(labels, records, STICK, protocol)
    assert "\n" not in str(error.value)


def test_the_table_is_markdown() -> None:
    table = format_table("net", {"AP": 0.12345, "AP (L)": -1})
    assert table == "| Arch | AP | AP (L) |\n|---|---|---|\n| net | 0.123 | - |"
