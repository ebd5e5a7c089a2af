"""tools/score_results.py: results files from elsewhere, for COCO and CrowdPose."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swahr.evaluation.metrics import METRICS
from swahr.skeleton import COCO
from tests.commands.exit_status import status_of

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    "coco": "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml",
    "crowd_pose": "experiments/crowd_pose/higher_hrnet/w32_512_adam_lr1e-3.yaml",
}

Score = Callable[..., tuple[int, str, str]]


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Score:
    """score(protocol, results file, root, KEY, VALUE, ...) -> exit status, output, errors."""
    tool = importlib.import_module("swahr.commands.score")

    def call(protocol: str, results: Path, root: Path, *opts: str) -> tuple[int, str, str]:
        arguments = ["--cfg", str(ROOT / CONFIGS[protocol]), str(results)]
        status = status_of(tool.main, [*arguments, "DATASET.ROOT", str(root), *opts])
        return (status, *capsys.readouterr())

    return call


def joints(x: float) -> list[float]:
    return [value for i in range(17) for value in (x + 3 * i, 20 + 5 * i, 2)]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The root of a set with a man in image 1 and a woman in image 2, and no image files."""
    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 640, "height": 480} for i in (1, 2)],
        "categories": [
            {"id": 5, "name": "man", "keypoints": list(COCO.keypoints)},
            {"id": 6, "name": "woman", "keypoints": list(COCO.keypoints)},
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 4 + i,
                "keypoints": joints(100 * i),
                "num_keypoints": 17,
                "bbox": [100 * i, 20, 48, 80],
                "area": 2000,
                "iscrowd": 0,
            }
            for i in (1, 2)
        ],
    }
    (tmp_path / "annotations").mkdir()
    write(tmp_path, data)
    return tmp_path


def write(root: Path, data: Any, name: str = "annotations/person_keypoints_val2017.json") -> Path:
    (root / name).write_text(json.dumps(data))
    return root / name


def record(image_id: Any, category_id: Any, **fields: Any) -> dict[str, Any]:
    keypoints = joints(100 * image_id) if isinstance(image_id, int) else joints(1)
    values = {"image_id": image_id, "category_id": category_id, "keypoints": keypoints}
    return values | {"score": 0.9} | fields


def test_the_published_figures(score: Score, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    annotations = shared / "golden/crowdpose_subset.json"
    shutil.copy(annotations, tmp_path / "json/crowdpose_test.json")
    for name, protocol, root in (
        ("coco", "coco", shared / "data/coco_mini"),
        ("crowdpose", "crowd_pose", tmp_path),
    ):
        stats = json.loads((shared / f"golden/{name}_stats.json").read_text())
        results = shared / f"golden/{name}_detections.json"
        status, printed, errors = score(protocol, results, root)
        assert (status, errors) == (0, "")
        row = " | ".join(f"{value:.3f}" for value in stats.values())
        assert printed.splitlines() == [
            f"| Arch | {' | '.join(stats)} |",
            "|---" * (len(stats) + 1) + "|",
            f"| {name}_detections | {row} |",
        ]


def test_categories_that_are_taken_as_one_score_as_one(score: Score, own: Path) -> None:
    results = write(own, [record(1, 5), record(2, 6)], "r.json")
    assert "| r | 1.000 |" in score("coco", results, own)[1]
    results = write(own, [record(1, 6), record(2, 5)], "r.json")
    assert "| r | 1.000 |" in score("coco", results, own)[1]
    status, _, errors = score("coco", results, own, "DATASET.CATEGORIES", "['woman']")
    said = f"{results}: result 1 has the category 5; the annotations have 6\n"
    assert status == 2 and errors == said


def test_images_that_are_skipped_are_not_scored(
    score: Score, own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own / "images/val2017").mkdir(parents=True)
    (own / "images/val2017/1.png").touch()
    results = write(own, [record(1, 5), record(2, 5, keypoints=joints(500))], "r.json")
    status, _, errors = score("coco", results, own)
    assert status == 2 and "no image file" in errors
    status, printed, _ = score("coco", results, own, "DATASET.STRICT", "False")
    assert status == 0 and "| r | 1.000 |" in printed
    assert "not scored, as the image was skipped: 1 result\n" in caplog.text


def test_own_metrics_stand_in_the_table(
    score: Score, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get the records as they are scored, of the set's one category."""
    results = write(own, [record(1, 6), record(2, 6)], "r.json")
    seen: list[Any] = []
    monkeypatch.setitem(METRICS, "mine", lambda dataset, records: seen.extend(records) or 7)
    status, printed, _ = score("coco", results, own)
    head, _, row = printed.splitlines()
    assert status == 0 and head.endswith("| AR (L) | mine |") and row.endswith("| 7.000 |")
    assert [each["category_id"] for each in seen] == [5, 5]
    monkeypatch.setitem(METRICS, "mine", lambda dataset, records: None)
    said = "METRICS['mine']: returned None; it must return a number\n"
    assert score("coco", results, own) == (2, "", said)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (record(1, 7), "result 1 has the category 7; the annotations have 5"),
        (record(3, 5), "result 1 is of image 3, which is not among the annotated images"),
        (record("1", 5), "result 1 has the image_id '1', which is text, not a whole number"),
        (
            record(1, 5, score=float("nan")),
            "result 1 has the score nan (image 1), not a number between -1e9 and 1e9",
        ),
        (5, "result 1 is 5, not an object"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(
    score: Score, own: Path, wrong: Any, said: str
) -> None:
    results = write(own, [record(1, 5), wrong], "r.json")
    assert score("coco", results, own) == (2, "", f"{results}: {said}\n")


def test_another_json_file_is_named(score: Score, own: Path) -> None:
    results = write(own, {}, "r.json")
    said = f"results {results}: must be a JSON list, not object\n"
    assert score("coco", results, own) == (2, "", said)


def test_people_of_images_are_told_from_results(score: Score, own: Path) -> None:
    """people.json of predict has annotations, whose image ids are its own."""
    people = write(own, {"images": [], "annotations": [], "categories": []}, "people.json")
    status, _, said = score("coco", people, own)
    assert status == 2 and said.startswith(f"results {people}: must be a JSON list, not object; it")
    assert said.endswith(" are written by `swahr val`, as results/keypoints_..._results.json\n")


def test_what_is_missing_is_said_in_one_line(score: Score, own: Path) -> None:
    status, _, errors = score("coco", own / "gone.json", own)
    assert status == 2 and "gone.json: cannot be read" in errors and errors.count("\n") == 1
    results = write(own, [], "r.json")
    status, _, errors = score("coco", results, own, "DATASET.TEST", "test2017")
    assert status == 2 and "cannot be read (No such file" in errors
    data = json.loads((own / "annotations/person_keypoints_val2017.json").read_text())
    del data["annotations"]
    write(own, data)
    status, _, errors = score("coco", results, own)
    assert status == 2 and "has no annotations, so there is nothing to score against" in errors
