"""The synthetic walk: the same every time, smooth, with ids that hold while people hide each
other.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from swahr.commands import synthetic
from swahr.synthetic import SyntheticError, render_walk, write_video
from tests.commands.exit_status import status_of

SIZE = (160, 120)
PINNED = "162d2ceca35c"


def walk(seed: int = 0, **given):
    return render_walk(seed, **{"num_frames": 4, "num_people": 3, "size": SIZE, **given})


def test_a_walk_is_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for image, people in walk(num_frames=3):
        digest.update(image.tobytes())
        digest.update(json.dumps(people).encode())
    assert digest.hexdigest()[:12] == PINNED


def test_the_first_frames_do_not_depend_on_the_number_of_frames() -> None:
    few = list(walk(num_frames=2))
    for (a, first), (b, second) in zip(few, walk(num_frames=9)):
        np.testing.assert_array_equal(a, b)
        assert first == second
    assert any((a[0] != b[0]).any() for a, b in zip(few, walk(1)))


def test_people_cross_and_hide_each_other_and_keep_their_ids() -> None:
    """In every video of 10 s somebody is hidden, and appears again later."""
    for seed in range(3):
        visible = np.zeros((100, 5))
        for i, (_, people) in enumerate(render_walk(seed, num_frames=100, size=(320, 240))):
            assert len({person["id"] for person in people}) == len(people)
            for person in people:
                visible[i, person["id"]] = person["visible"]
        assert (visible < 0.2).any(), "nobody is hidden"
        seen = visible > 0.6
        assert (seen[:50].any(axis=0) & seen[50:].any(axis=0)).all()


def test_people_move_smoothly_and_look_where_they_walk() -> None:
    positions: dict[int, list] = {}
    for _, people in walk(num_frames=60, num_people=1, size=(320, 240)):
        points = np.reshape(people[0]["keypoints"], (17, 3))
        positions.setdefault(people[0]["id"], []).append(points)
    points = np.array(positions[0])
    hips = points[:, 11:13, :2].mean(axis=1)
    steps = np.diff(hips, axis=0)
    assert np.abs(steps).max() < 12 and np.abs(steps[:, 0]).mean() > 2
    looks = points[1:, 0, 0] - hips[1:, 0]  # the nose against the hips
    walking = (np.abs(steps[:, 0]) > 2) & (points[1:, 0, 2] > 0)
    assert walking.sum() > 30
    assert (np.sign(looks[walking]) == np.sign(steps[walking, 0])).mean() > 0.9
    assert len(set(np.sign(steps[walking, 0]))) == 2  # it turned round


def test_a_folder_gets_frames_and_the_truth(tmp_path: Path) -> None:
    truth = write_video(tmp_path, num_frames=3, num_people=2, size=SIZE)
    data = json.loads(truth.read_text())
    assert (data["fps"], data["width"], data["height"]) == (10, 160, 120)
    assert [frame["time"] for frame in data["frames"]] == [0, 0.1, 0.2]
    for frame in data["frames"]:
        assert cv2.imread(str(tmp_path / frame["file_name"])).shape == (120, 160, 3)
        for person in frame["people"]:
            assert len(person["keypoints"]) == 3 * len(data["keypoints"]) and person["id"] in (0, 1)
    with pytest.raises(SyntheticError, match="holds other files .000002.jpg."):
        write_video(tmp_path, num_frames=2, num_people=2, size=SIZE)


def test_a_file_gets_the_same_people(tmp_path: Path) -> None:
    truth = write_video(tmp_path / "new" / "walk.mp4", num_frames=3, num_people=2, size=SIZE)
    assert truth == tmp_path / "new" / "walk.json"
    capture = cv2.VideoCapture(str(tmp_path / "new" / "walk.mp4"))
    frames = list(itertools.takewhile(lambda read: read[0], iter(capture.read, None)))
    assert len(frames) == 3 and frames[0][1].shape == (120, 160, 3)
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    people = [frame["people"] for frame in json.loads(truth.read_text())["frames"]]
    assert people == [people for _, people in walk(num_frames=3, num_people=2)]


@pytest.mark.parametrize(
    ("out", "other", "said"),
    [
        ("walk", "walk/people.json", "walk/people.json: exists and is not the truth of a"),
        ("walk.mp4", "walk.json", "walk.json: exists and is not the truth of a synthetic video"),
        ("walk", "walk/frames/000000.jpg", r"holds other files \(000000.jpg\)"),
    ],
)
@pytest.mark.parametrize("text", ["mine", "[]", '{"info": {}, "images": [], "frames": 3}'])
def test_files_of_other_origin_stay(
    tmp_path: Path, out: str, other: str, said: str, text: str
) -> None:
    path = tmp_path / other
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with pytest.raises(SyntheticError, match=said) as error:
        write_video(tmp_path / out, num_frames=1, num_people=1, size=SIZE)
    assert "\n" not in str(error.value)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["walk.avi", "walk.MKV"])
def test_other_kinds_of_video_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SyntheticError, match=f"{name}: a video is written as .mp4, not as .*; gi"):
        write_video(tmp_path / name, num_frames=1, num_people=1, size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["walk", "walk.mp4"])
def test_a_video_is_made_again(tmp_path: Path, out: str) -> None:
    for frames in (1, 2):
        truth = write_video(tmp_path / out, num_frames=frames, num_people=1, size=SIZE)
        assert len(json.loads(truth.read_text())["frames"]) == frames


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_frames": 0}, "0 frames of 3 people: it must be 1 frame or more"),
        ({"num_people": 51}, "4 frames of 51 people: .* 1 to 50 people"),
        ({"size": (640, 20)}, "size: 640 x 20 px; the sides of a video have 64 to 4096 px"),
        ({"size": (100_000, 480)}, "size: 100000 x 480 px; the sides of a video have 64 to 4096"),
        ({"seed": -1}, "seed: -1 must be 0 or more"),
    ],
)
def test_invalid_arguments(given: dict, message: str) -> None:
    with pytest.raises(SyntheticError, match=message):
        next(walk(**given))


def test_the_tool_makes_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "tools"))
    tool = importlib.import_module("make_synthetic")
    given = ["--video", "--frames", "2", "--people", "1", "--size", "80", "64"]
    assert tool.main([*given, "--out", str(tmp_path / "a")]) == 0
    assert "2 frames, people in" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "a/frames/000001.jpg")).shape == (64, 80, 3)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--size", "8"], "--size: 8 px; a side has at least 16 px\n"),
        (["--size", "64", "8"], "--size: 8 px; a side has at least 16 px\n"),
        (["--video", "--size", "32"], "--size: 32 px; a side has at least 64 px\n"),
    ],
)
def test_a_size_that_is_too_small_names_the_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert status_of(synthetic.main, [*flags, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == said and not (tmp_path / "out").exists()
