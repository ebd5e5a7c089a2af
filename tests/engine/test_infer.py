from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from swahr.config import load_config
from swahr.distributed.launch import main_with_exit_status
from swahr.engine.infer import Video
from swahr.models.build import build_model

Run = Callable[..., int]
TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a tool with arguments, in this process; its exit status."""
    monkeypatch.syspath_prepend(str(TOOLS))

    def run(tool: str, *args: object) -> int:
        monkeypatch.setattr(sys, "argv", [tool, *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main_with_exit_status(importlib.import_module(tool).main)
        return int(end.value.code or 0)

    return run


@pytest.fixture
def network(config_file: Path) -> list[object]:
    """Arguments for a network with fresh weights that finds somebody everywhere."""
    torch.manual_seed(0)
    weights = config_file.with_suffix(".pth")
    torch.save(build_model(load_config(config_file)).state_dict(), weights)
    return ["--cfg", config_file, "TEST.MODEL_FILE", weights, "TEST.DETECTION_THRESHOLD", "0"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images of every kind, and of files that are none."""
    root = tmp_path / "in"
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    (root / "deeper").mkdir(parents=True)
    for name, image in {
        "colour.jpg": noise,
        "grey.png": noise[..., 0],
        "deep.png": noise.astype(np.uint16) * 257,
        "alpha.png": np.dstack([noise, noise[..., :1]]),
        "other.tif": noise,
        "dot.bmp": noise[:1, :1],
        "thin.png": np.zeros((20000, 1, 3), np.uint8),
    }.items():
        cv2.imwrite(str(root / name), image)
    (root / "notes.txt").write_text("no image")
    (root / "empty.jpg").write_bytes(b"")
    (root / ".hidden").write_text("")
    return root


def test_a_folder_of_images(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "new" / "out"
    assert (
        run("dist_inference", *network, "--img_dir", folder, "--save_dir", out, "--threshold", "0")
        == 0
    )
    names = ["alpha.png", "colour.jpg", "deep.png", "dot.bmp", "grey.png", "other.tif"]
    drawn = {name if name.endswith(("jpg", "png")) else f"{name}.png" for name in names}
    assert {path.name for path in out.iterdir()} == {*drawn, "people.json"}
    assert cv2.imread(str(out / "other.tif.png")).shape == (70, 90, 3)
    found = json.loads((out / "people.json").read_text())
    assert [(image["id"], image["file_name"]) for image in found["images"]] == list(
        enumerate(names, 1)
    )
    assert (found["images"][1]["width"], found["images"][1]["height"]) == (90, 70)
    assert {person["image_id"] for person in found["annotations"]} >= {1, 2, 3, 5, 6}
    assert [person["id"] for person in found["annotations"]] == list(
        range(1, len(found["annotations"]) + 1)
    )
    assert (
        found["categories"][0]["name"] == "person"
        and len(found["categories"][0]["keypoints"]) == 17
    )
    report = capsys.readouterr().err
    assert (
        "3 of 9 files left out:" in report
        and "thin.png: an image of 1 x 20000 pixels is too long" in report
    )
    assert "notes.txt: not an image" in report and "empty.jpg: the file is empty" in report


def test_nobody_is_drawn_below_the_threshold(run: Run, network: list[object], folder: Path) -> None:
    out = folder.parent / "out"
    assert (
        run(
            "dist_inference", *network, "--img_dir", folder, "--save_dir", out, "--threshold", "1e9"
        )
        == 0
    )
    np.testing.assert_array_equal(
        cv2.imread(str(out / "grey.png")), cv2.imread(str(folder / "grey.png"))
    )


def test_a_folder_without_images_fails(
    run: Run, network: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    assert (
        run(
            "dist_inference", *network, "--img_dir", tmp_path / "in", "--save_dir", tmp_path / "out"
        )
        == 2
    )
    assert "the folder holds no files" in capsys.readouterr().err
    (tmp_path / "in/a.txt").write_text("a")
    assert (
        run(
            "dist_inference", *network, "--img_dir", tmp_path / "in", "--save_dir", tmp_path / "out"
        )
        == 2
    )
    assert "none of the 1 files is an image" in capsys.readouterr().err


def test_wrong_folders_are_named(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, target, message in (
        (folder / "none", folder, "there is no such folder"),
        (folder, folder / ".", "they would be drawn over"),
        (folder, folder / "notes.txt", "is no folder"),
    ):
        assert run("dist_inference", *network, "--img_dir", source, "--save_dir", target) == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write videos")
    for shift in range(5):
        writer.write(np.roll(frame, 8 * shift, 1))
    writer.release()
    return path


def test_a_video(
    run: Run, network: list[object], video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = video.parent / "out"
    assert run("dist_inference", *network, "--video", video, "--save_dir", out) == 0
    drawn = Video(out / "clip.mp4")
    assert (
        sum(len(group) for group in drawn.groups(2)) == 5
        and drawn.fps == 10
        and drawn.read(4).shape == (64, 96, 3)
    )
    found = json.loads((out / "people.json").read_text())
    assert [image["file_name"] for image in found["images"]] == [f"clip.mp4#{i}" for i in range(5)]
    assert found["annotations"]
    assert run("dist_inference", *network, "--video", __file__, "--save_dir", out) == 2
    assert "cannot be opened as a video" in capsys.readouterr().err


def test_validation_by_two_processes_is_that_by_one(
    run: Run, network: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dist_valid", *network) == 0
    table = capsys.readouterr().out
    [path] = tmp_path.rglob("keypoints_val2017_results_noflip.json")
    alone = json.loads(path.read_text())
    path.unlink()
    done = subprocess.run(
        [sys.executable, TOOLS / "dist_valid.py", *map(str, network), "--world_size", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == table and table.startswith("| Arch | AP |")
    assert json.loads(path.read_text()) == alone != []
    assert {file.name for file in path.parent.iterdir()} == {
        path.name,
        path.with_suffix(".md").name,
    }


def test_wrong_commands_are_one_line(
    run: Run,
    network: list[object],
    config_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for args, message in (
        (["--cfg", config_file], "no weights to test with: TEST.MODEL_FILE is empty"),
        ([*network, "TEST.MODEL_FILE", "none.pth"], "TEST.MODEL_FILE: no file 'none.pth'"),
        ([*network, "DATASET.ROOT", "none"], "DATASET.ROOT: no folder 'none'"),
        ([*network, "TEST.FLIP", "True"], "TEST.FLIP: unknown key; the nearest one is "),
        ([*network, "DATASET.TEST", "none"], "images/none: there is no such folder"),
    ):
        assert run("dist_valid", *args) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
