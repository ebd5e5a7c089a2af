"""JSON lines and CSV, line by line."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from swahr.engine.people_file import Moment, PeopleFile
from swahr.engine.people_lines import CsvTable, JsonLines
from swahr.files import WriteError
from swahr.inference.predictor import Prediction
from tests.engine.test_people_file import PERSON, SIZE, SKELETON, people


def people_file(folder: Path, *, write_json: bool = True) -> PeopleFile:
    lines = [JsonLines(folder), CsvTable(folder, SKELETON.keypoints)]
    return PeopleFile(
        folder,
        SKELETON,
        {},
        threshold=0.1,
        joint_threshold=0.1,
        lines=lines,
        write_json=write_json,
    )


def json_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "people.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_lines_are_written_as_soon_as_an_image_is_done(tmp_path: Path) -> None:
    with people_file(tmp_path) as file:
        assert json_lines(tmp_path) == rows(tmp_path) == []
        file.add(0, "a.png", SIZE, people(PERSON, PERSON))
        assert len(json_lines(tmp_path)) == 1 and len(rows(tmp_path)) == 2
        file.add(1, "nobody.png", SIZE, people())
    first, second = json_lines(tmp_path)
    assert first["file_name"] == "a.png" and (first["width"], first["height"]) == SIZE
    annotations = json.loads((tmp_path / "people.json").read_text())["annotations"]
    for person, annotation in zip(first["people"], annotations, strict=True):
        assert person.items() <= annotation.items()
    assert second["file_name"] == "nobody.png" and second["people"] == []


def test_a_row_has_every_joint_and_empty_cells_for_what_is_unknown(tmp_path: Path) -> None:
    with people_file(tmp_path) as file:
        file.add(0, "a, b.png", SIZE, people(PERSON))
    [row] = rows(tmp_path)
    assert row == {
        **{"file_name": "a, b.png", "frame": "", "time": "", "track_id": "", "score": "0.5"},
        **{"x": "10.0", "y": "20.0", "width": "20.0", "height": "5.0"},
        **{"head_x": "10.0", "head_y": "20.0", "head_score": "0.9"},
        **{"tail_x": "30.0", "tail_y": "25.0", "tail_score": "0.05"},
        **{"nose_x": "", "nose_y": "", "nose_score": "0.0"},
    }


def test_people_of_a_video_have_frame_time_and_id_everywhere(tmp_path: Path) -> None:
    with people_file(tmp_path) as file:
        moment = Moment(3, 0.12345678)
        file.add(3, "clip.mp4#3", SIZE, people(PERSON, PERSON), moment, [7, -1])
    content = json.loads((tmp_path / "people.json").read_text())
    assert content["images"][0]["frame"] == 3 and content["images"][0]["time"] == 0.123457
    for found in (content["annotations"], json_lines(tmp_path)[0]["people"]):
        assert [(person["frame"], person["time"]) for person in found] == [(3, 0.123457)] * 2
        assert found[0]["track_id"] == 7 and "track_id" not in found[1]
    assert [row["track_id"] for row in rows(tmp_path)] == ["7", ""]
    assert {(row["frame"], row["time"]) for row in rows(tmp_path)} == {("3", "0.123457")}


def test_without_json_only_the_lines_are_written(tmp_path: Path) -> None:
    with people_file(tmp_path, write_json=False) as file:
        file.add(0, "a.png", SIZE, people(PERSON))
        [kept] = (tmp_path / ".people_parts").iterdir()
        assert "keypoints" not in kept.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"people.jsonl", "people.csv"}
    assert (file.summary.images, file.summary.people) == (1, 1)


def test_a_second_run_begins_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with people_file(tmp_path) as file:
            file.add(0, "a.png", SIZE, people(PERSON))
    assert len(json_lines(tmp_path)) == len(rows(tmp_path)) == 1


def test_people_below_the_threshold_are_in_no_line(tmp_path: Path) -> None:
    low = Prediction(np.array([PERSON], np.float32), np.array([0.05], np.float32))
    with people_file(tmp_path) as file:
        file.add(0, "a.png", SIZE, low)
    assert json_lines(tmp_path)[0]["people"] == rows(tmp_path) == []


def test_names_that_are_no_text_are_written_as_the_disk_has_them(tmp_path: Path) -> None:
    table = CsvTable(tmp_path, ["head"])
    person = {"bbox": [0, 0, 1, 1], "keypoints": [1, 2, 2], "keypoint_scores": [0.5], "score": 0.5}
    table.add({"file_name": os.fsdecode(b"caf\xe9.jpg")}, [person])
    assert table.path.read_bytes().startswith(b"caf\xe9.jpg,")


def test_a_line_that_a_full_disk_cuts_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = JsonLines(tmp_path)
    lines.begin()
    lines.add({"file_name": "a.png"}, [])
    before = lines.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(WriteError, match="people.jsonl: could not be written"):
            lines.add({"file_name": "b.png"}, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert lines.path.read_bytes() == before


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "none")
    with pytest.raises(WriteError, match="people.jsonl: could not be written"):
        lines.add({}, [])
