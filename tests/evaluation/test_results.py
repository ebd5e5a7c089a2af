from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from swahr.evaluation.results import PartFiles, to_records, write_results
from swahr.files import WriteError


class People(NamedTuple):
    keypoints: np.ndarray
    scores: np.ndarray


TWO = People(
    np.array([[[1, 2, 0.5], [3, -4, 0.25]], [[0, 0, 0], [10.00006, 20, 1]]], np.float32),
    np.array([0.375, 0.5], np.float32),
)


def test_a_record_has_what_the_servers_take() -> None:
    first, second = to_records(np.int64(7), TWO, np.int64(1))  # type: ignore[arg-type]
    assert first == {
        "image_id": 7,
        "category_id": 1,
        "keypoints": [1, 2, 0.5, 3, -4, 0.25],
        "score": 0.375,
        "bbox": [1, -4, 2, 6],
    }
    assert second["keypoints"][3] == 10.0001 and second["bbox"] == [0, 0, 10.0001, 20]
    assert json.loads(json.dumps(first)) == first


def test_nobody_is_no_record() -> None:
    assert to_records(1, People(np.zeros((0, 2, 3), np.float32), np.zeros(0, np.float32))) == []


def test_results_may_hold_numpy_numbers(tmp_path: Path) -> None:
    path = tmp_path / "results" / "a.json"
    write_results(
        path, [{"score": np.float32(0.5), "keypoints": np.arange(3), "image_id": np.int64(4)}]
    )
    assert json.loads(path.read_text()) == [{"score": 0.5, "keypoints": [0, 1, 2], "image_id": 4}]
    write_results(path, [])
    assert json.loads(path.read_text()) == []


def test_what_is_no_number_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    write_results(tmp_path / "a.json", [])
    with pytest.raises(TypeError, match="could not be encoded"):
        write_results(tmp_path / "a.json", [{"score": object()}])
    assert (tmp_path / "a.json").read_text() == "[]"


def test_parts_of_all_processes_are_read_back(tmp_path: Path) -> None:
    parts = PartFiles(tmp_path / "new", "run")
    records = to_records(7, TWO)
    assert parts.read() == {}
    parts.append(0, 7, records)
    parts.append(1, 8, [])
    parts.append(0, 9, [{"score": np.float32(0.5)}])
    assert parts.read() == {7: records, 8: [], 9: [{"score": 0.5}]}


def test_a_line_cut_off_is_not_there(tmp_path: Path) -> None:
    parts = PartFiles(tmp_path, "run")
    parts.append(0, 7, [])
    parts.append(0, 8, to_records(8, TWO))
    [path] = tmp_path.iterdir()
    path.write_text(path.read_text()[:-20])
    assert parts.read() == {7: []}


def test_other_runs_are_not_read_and_do_not_stay(tmp_path: Path) -> None:
    PartFiles(tmp_path, "old").append(0, 7, [])
    (tmp_path / "keypoints_val_results.json").write_text("[]")
    parts = PartFiles(tmp_path, "new")
    assert parts.read() == {}
    parts.append(3, 8, [])
    parts.clear(keep=parts.read())
    assert parts.read() == {8: []} and PartFiles(tmp_path, "old").read() == {}
    parts.append(0, 9, [])
    parts.clear(keep=parts.read())
    assert parts.read() == {8: [], 9: []}
    parts.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["keypoints_val_results.json"]


def test_a_part_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-run-0.jsonl").mkdir()
    with pytest.raises(WriteError, match="part-run-0.jsonl: could not be written"):
        PartFiles(tmp_path, "run").append(0, 7, [])
