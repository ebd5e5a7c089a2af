from __future__ import annotations

import hashlib
import importlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from swahr.commands import predict
from swahr.commands.predict import SCORES, describe
from swahr.config import load_config
from swahr.distributed.launch import main_with_exit_status
from swahr.distributed.place import LaunchError
from swahr.distributed.signals import Interrupted
from swahr.engine.image_sources import InferenceError
from swahr.engine.infer import Results
from swahr.engine.people_file import PeopleFile, Summary
from swahr.engine.video import Frame, Video
from swahr.files import WriteError
from swahr.models.build import build_model
from swahr.visualize import save_image
from tests.engine.test_image_sources import phone_photo

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


def infer(run: Run, network: list[object], save_dir: Path, *args: object) -> int:
    return run("dist_inference", *network, "--save_dir", save_dir, *args)


def content(folder: Path) -> Any:
    return json.loads((folder / "people.json").read_text())


def file_names(folder: Path) -> list[str]:
    return [image["file_name"] for image in content(folder)["images"]]


def test_a_folder_of_images(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "new" / "out"
    assert infer(run, network, out, "--img_dir", folder, "--threshold", 0) == 0
    names = ["alpha.png", "colour.jpg", "deep.png", "dot.bmp", "grey.png", "other.tif"]
    drawn = {name if name.endswith(("jpg", "png")) else f"{name}.png" for name in names}
    assert {path.name for path in out.iterdir()} == {*drawn, "people.json"}
    assert cv2.imread(str(out / "other.tif.png")).shape == (70, 90, 3)
    assert file_names(out) == names
    found = content(out)
    assert (found["images"][1]["width"], found["images"][1]["height"]) == (90, 70)
    assert {person["image_id"] for person in found["annotations"]} >= {1, 2, 3, 5, 6}
    assert len(found["categories"][0]["keypoints"]) == 17
    report = capsys.readouterr().err
    assert "3 of 9 files skipped:" in report
    assert "thin.png: an image of 1 x 20000 pixels is too long" in report
    assert "notes.txt: not an image" in report and "empty.jpg: the file is empty" in report
    assert f"1 folder skipped (--recursive reads them):\n  {folder / 'deeper'}\n" in report


def test_the_last_line_says_what_was_found(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "out"
    assert infer(run, network, out, "--img_dir", folder, "--threshold", 0) == 0
    people = content(out)["annotations"]
    empty = 6 - len({person["image_id"] for person in people})
    none = f", none in {empty} image{'s' * (empty != 1)}" if empty else ""
    said = capsys.readouterr().out
    assert said.endswith(f"{len(people):,} people in 6 images{none}; see {out}\n")

    assert infer(run, network, out, folder / "grey.png", "--threshold", 50) == 0
    scores = [person["score"] for person in people if person["image_id"] == 5]
    line = "nobody has a score of 50 or more (--threshold) in 1 image; the highest is "
    assert capsys.readouterr().out == f"{line}{max(scores):.3f}\n"


@pytest.mark.parametrize(
    "found, line",
    [
        (Summary(2, 2, 0, None, {}), "nobody was found in 2 frames"),
        (Summary(1234, 0, 1, 0.5, {}), "1 person in 1,234 frames"),
        (Summary(1, 1, 0, 0.5, {}), "nobody was found in 1 frame"),
    ],
)
def test_the_last_line_of_other_results(found: Summary, line: str) -> None:
    results = Results(Path("found"), frozenset(), threshold=0.3)
    assert describe(found, results, "frame") == line


@pytest.mark.parametrize("threshold", ["nan", "inf", "30%"])
def test_a_threshold_must_be_a_number(
    run: Run,
    network: list[object],
    folder: Path,
    threshold: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert infer(run, network, folder.parent / "out", folder, "--threshold", threshold) == 2
    assert f"argument --threshold: {threshold} is not a number\n" in capsys.readouterr().err


def test_the_log_and_the_json_say_weights_and_settings(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "out"
    assert infer(run, network, out, folder / "grey.png") == 0
    weights = Path(str(network[3]))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    rules = "TEST.PROJECT2IMAGE False, TEST.NMS_KERNEL 3, TEST.DETECTION_THRESHOLD 0"
    test = f"no flip test, scales 1, input size 64 px, {rules}"
    log = capsys.readouterr().err
    assert f"weights: {weights} (epoch unknown, sha256 {digest[:12]}); {test}" in log
    info = content(out)["info"]
    assert (info["weights"], info["epoch"], info["sha256"]) == (str(weights), None, digest)
    assert (info["test"], info["threshold"]) == (test, 0.1)


def test_a_pipe_gets_lines_and_no_bar(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(run, network, folder.parent / "out", folder / "grey.png") == 0
    log = capsys.readouterr().err
    assert "images: 1 of 1 images\n" in log and "\r" not in log


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["grey.png", "dot.bmp"], ["grey.png", "dot.bmp"]),
        (["--img", "grey.png", "dot.bmp", "WORKERS", "1"], ["grey.png", "dot.bmp"]),
        (["*.bmp", "WORKERS", "1"], ["dot.bmp"]),
        (["WORKERS", "1", "*.bmp", "--img", "grey.png"], ["dot.bmp", "grey.png"]),
        (["--img_dir", "deeper"], ["a.png"]),
        (["--recursive", "--img_dir", "deeper"], ["a.png", "b/c.png"]),
        (["--recursive", "deeper"], ["a.png", "b/c.png"]),
        (["TEST"], ["TEST"]),
    ],
)
def test_images_can_be_files_globs_and_folders_in_folders(
    run: Run,
    network: list[object],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    names: list[str],
) -> None:
    (folder / "deeper/b").mkdir()
    for name in ("deeper/a.png", "deeper/b/c.png", "TEST"):
        shutil.copy(folder / "grey.png", folder / name)
    monkeypatch.chdir(folder)
    out = folder.parent / "out"
    assert infer(run, network, out, *args) == 0
    assert file_names(out) == names
    drawn = {f"{name}.png" if not name.endswith(".png") else name for name in names}
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    assert found == {*drawn, "people.json"}


def test_images_are_given_in_one_way(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = folder / "grey.png"
    for args in ([], ["--img_dir", folder, "--video", grey], [grey, "--img_dir", folder]):
        assert infer(run, network, folder.parent / "out", *args) == 2
        message = "give images (or --img), --img_dir or --video, and only one of them"
        assert message in capsys.readouterr().err


def test_people_below_the_threshold_are_neither_drawn_nor_written(
    run: Run, network: list[object], folder: Path
) -> None:
    out = folder.parent / "out"
    assert infer(run, network, out, folder / "grey.png", "--threshold", 1e9) == 0
    np.testing.assert_array_equal(
        cv2.imread(str(out / "grey.png")), cv2.imread(str(folder / "grey.png"))
    )
    assert content(out)["annotations"] == []
    assert infer(run, network, out, folder / "grey.png", "--threshold", 1e9, "--all") == 0
    assert content(out)["annotations"] and content(out)["info"]["threshold"] is None


def test_phone_photos_give_the_people_that_viewers_show(
    run: Run, network: list[object], tmp_path: Path
) -> None:
    """The same image, upright and stored on its side with an EXIF orientation."""
    image = cv2.blur(np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8), (5, 5))
    upright = tmp_path / "upright.png"
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(phone_photo(image, 6))
    cv2.imwrite(str(upright), cv2.imread(str(photo)))
    assert infer(run, network, tmp_path / "out", photo, upright) == 0
    found = content(tmp_path / "out")
    assert [(image["width"], image["height"]) for image in found["images"]] == [(48, 96)] * 2
    people = [
        [person["keypoints"] for person in found["annotations"] if person["image_id"] == i]
        for i in (1, 2)
    ]
    assert people[0] == people[1] != []
    assert cv2.imread(str(tmp_path / "out/photo.jpg")).shape == (96, 48, 3)


def test_check_dataset_has_nothing_against_the_people(
    run: Run, network: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder.parent / "out"
    images = [folder / "grey.png", folder / "colour.jpg", folder / "dot.bmp"]
    assert infer(run, network, out, *images, "--all") == 0
    assert {person["image_id"] for person in content(out)["annotations"]} == {1, 2, 3}
    checker = importlib.import_module("check_dataset")
    assert checker.main([str(out / "people.json"), str(folder)]) == 0


def test_a_folder_without_images_fails(
    run: Run, network: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    assert infer(run, network, tmp_path / "out", "--img_dir", source) == 2
    assert "the folder holds no files" in capsys.readouterr().err
    (source / "a.txt").write_text("a")
    assert infer(run, network, tmp_path / "out", "--img_dir", source) == 2
    assert "the file is no image" in capsys.readouterr().err


def test_wrong_folders_are_named(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, target, message in (
        (folder / "none", folder, "there is no such folder"),
        (folder, folder / ".", "they would be overwritten"),
        (folder, folder / "notes.txt", "is not a folder"),
    ):
        assert infer(run, network, target, "--img_dir", source) == 2
        assert message in capsys.readouterr().err


def test_an_image_that_is_read_is_never_overwritten(
    run: Run, network: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/one.png", "b/two.png"):
        save_image(tmp_path / "trip" / name, np.full((40, 40, 3), 9, np.uint8))
    one = tmp_path / "trip" / "a" / "one.png"
    before = one.read_bytes()
    given = [one.parent, tmp_path / "trip" / "b"]
    assert infer(run, network, tmp_path / "trip", *given) == 2
    line = f"--save_dir {tmp_path / 'trip'}: {one} would be overwritten; give a folder outside"
    assert line in capsys.readouterr().err
    assert infer(run, network, tmp_path / "trip", tmp_path / "trip", "--recursive") == 2
    assert one.read_bytes() == before
    assert infer(run, network, tmp_path / "trip" / "out", *given) == 0
    assert (tmp_path / "trip" / "out" / "a" / "one.png").exists()
    assert infer(run, network, tmp_path / "trip", *given, "--save", "json") == 0


def test_files_in_the_folder_of_results_that_a_glob_matches_are_counted(
    run: Run, network: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/one.png", "out/two.png"):
        save_image(tmp_path / "in" / name, np.full((40, 40, 3), 9, np.uint8))
    assert infer(run, network, tmp_path / "in/out", str(tmp_path / "in/*/*.png")) == 0
    assert "not read: 1 file in --save_dir\n" in capsys.readouterr().err


def test_maps_never_replace_a_drawing(
    run: Run, network: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [tmp_path / "in" / name for name in ("one.png", "one.png_maps.png")]
    for path in images:
        save_image(path, np.full((40, 40, 3), 9, np.uint8))
    assert infer(run, network, tmp_path / "out", *images, "--show-maps") == 2
    line = "the maps of one.png would replace the drawing of one.png_maps.png; leave that image"
    assert line in capsys.readouterr().err


@pytest.fixture
def after_each(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """after_each(action): from now on action(index) is called once an image is written."""
    add = PeopleFile.add

    def call(action: Callable[[int], None]) -> None:
        def add_and_act(self: PeopleFile, index: int, *args: Any) -> None:
            add(self, index, *args)
            action(index)

        monkeypatch.setattr(PeopleFile, "add", add_and_act)

    return call


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_loses_nothing_that_was_found(
    run: Run,
    network: list[object],
    folder: Path,
    after_each: Callable[[Callable[[int], None]], None],
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    after_each(lambda index: signal.raise_signal(number))
    out = folder.parent / "out"
    images = [folder / name for name in ("grey.png", "deep.png", "other.tif")]
    assert infer(run, network, out, *images) == status
    assert file_names(out) == ["grey.png"] and (out / "grey.png").exists()
    assert not (out / ".people_parts").exists()
    line = f"stopped by {number.name}; 1 of 3 images are done, see {out / 'people.json'}"
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_an_error_in_the_last_image_loses_no_other(
    run: Run, network: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(path: Path, image: np.ndarray) -> None:
        if path.name == "other.tif.png":
            raise WriteError("no space")
        save_image(path, image)

    monkeypatch.setattr("swahr.engine.infer.save_image", save)
    out = folder.parent / "out"
    images = [folder / name for name in ("grey.png", "deep.png", "other.tif")]
    assert infer(run, network, out, *images) == 3
    assert file_names(out) == ["grey.png", "deep.png"]


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
    assert infer(run, network, out, "--video", video) == 0
    drawn = list(Video(out / "clip.mp4"))
    assert [round(frame.time, 3) for frame in drawn] == [0, 0.1, 0.2, 0.3, 0.4]
    assert drawn[4].image.shape == (64, 96, 3)
    assert file_names(out) == [f"clip.mp4#{i}" for i in range(5)]
    assert content(out)["annotations"]
    assert infer(run, network, out, "--video", __file__) == 2
    assert "cannot be opened as a video" in capsys.readouterr().err


def test_a_video_that_is_read_through_a_link_is_never_overwritten(
    run: Run, network: list[object], video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = video.parent / "links" / "clip.mp4"
    link.parent.mkdir()
    link.symlink_to(video)
    before = video.read_bytes()
    assert infer(run, network, video.parent, link) == 2
    line = f"--save_dir {video.parent}: {link} would be overwritten, as {video} is the same file"
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert video.read_bytes() == before
    assert infer(run, network, video.parent, link, "--save", "json") == 0


def test_a_video_is_refused_by_several_processes(
    network: list[object], video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    out = video.parent / "out"
    words = [*network, "--save_dir", out, video]
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
    line = f"{video}: a video is read by one process, and the launcher started 2; start one"
    with pytest.raises(InferenceError, match=re.escape(line)):
        predict.main()
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(LaunchError, match="but MASTER_ADDR not set"):
        predict.main()
    assert not out.exists()


def test_a_flag_that_a_video_ignores_is_named(
    run: Run, network: list[object], video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(run, network, video.parent / "out", video, "--gpus", 2, "--save", "json") == 0
    line = "--gpus 2 is ignored: a video is read by one process\n"
    assert capsys.readouterr().err.count(line) == 1


def test_frames_of_a_live_source_come_as_soon_as_they_are_done(
    run: Run,
    network: list[object],
    video: Path,
    after_each: Callable[[Callable[[int], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[tuple[str, int]] = []

    class Live(Video):
        def __init__(self, source: str) -> None:
            super().__init__(source)
            self.live = True

        def __iter__(self) -> Iterator[Frame]:
            for index in range(3):
                events.append(("taken", index))
                yield Frame(index, index / 10, np.zeros((64, 96, 3), np.uint8))

    monkeypatch.setattr("swahr.commands.predict.Video", Live)
    after_each(lambda index: events.append(("written", index)))
    assert infer(run, network, video.parent / "out", video, "--save", "json") == 0
    assert events == [(what, index) for index in range(3) for what in ("taken", "written")]


def test_a_second_run_reads_what_the_first_did(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert infer(run, network, folder / "found", folder / "**" / "*.jpg") == 0
        assert file_names(folder / "found") == ["colour.jpg"]
    assert infer(run, network, folder, folder / "*.jpg") == 2
    assert "is where the images are; they would be overwritten" in capsys.readouterr().err


def test_a_signal_leaves_a_video_that_can_be_played(
    run: Run,
    network: list[object],
    video: Path,
    after_each: Callable[[Callable[[int], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    after_each(lambda index: signal.raise_signal(signal.SIGINT) if index == 2 else None)
    out = video.parent / "out"
    assert infer(run, network, out, "--video", video) == 130
    assert len(list(Video(out / "clip.mp4"))) == 3
    assert file_names(out) == [f"clip.mp4#{i}" for i in range(3)]
    line = f"stopped by SIGINT; 3 of 5 frames are done, see {out / 'people.json'}"
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_an_error_leaves_a_video_that_can_be_played(
    run: Run,
    network: list[object],
    video: Path,
    after_each: Callable[[Callable[[int], None]], None],
) -> None:
    def fail(index: int) -> None:
        if index == 3:
            raise WriteError("no space")

    after_each(fail)
    out = video.parent / "out"
    assert infer(run, network, out, "--video", video) == 3
    assert len(list(Video(out / "clip.mp4"))) == 4
    assert len(file_names(out)) == 4


def test_every_person_of_a_video_has_frame_time_and_id(
    run: Run, network: list[object], video: Path
) -> None:
    out = video.parent / "out"
    save = "json,jsonl,csv,images"
    assert infer(run, network, out, video, "--track", "--save", save, "--threshold", "0") == 0
    assert {path.name for path in out.iterdir()} == {
        *("people.json", "people.jsonl", "people.csv", "clip")
    }
    frames = sorted((out / "clip").iterdir())
    assert [path.name for path in frames] == [f"{index:06d}.jpg" for index in range(5)]
    assert cv2.imread(str(frames[4])).shape == (64, 96, 3)
    images = content(out)["images"]
    assert [(image["frame"], image["time"]) for image in images] == [
        (index, pytest.approx(index / 10)) for index in range(5)
    ]
    ids = [
        {person["track_id"] for person in content(out)["annotations"] if person["frame"] == index}
        for index in range(5)
    ]
    assert all(ids) and ids[0] & ids[4]
    lines = (out / "people.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(5))


def test_smoothing_moves_joints_and_keeps_scores(
    run: Run, network: list[object], video: Path
) -> None:
    found = {}
    for flag in ("--track", "--smooth"):
        out = video.parent / flag[2:]
        assert infer(run, network, out, video, flag, "--save", "json") == 0
        found[flag] = content(out)["annotations"]
    assert all("track_id" in person for person in found["--smooth"])
    for first, second in zip(found["--track"], found["--smooth"], strict=True):
        assert first["keypoint_scores"] == second["keypoint_scores"]
        if first["frame"] == 0:
            assert first == second
    assert found["--track"] != found["--smooth"]


def test_weights_are_enough_where_they_say_what_they_are(
    run: Run, network: list[object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a run, and the settings of the command line on top of its own."""
    config, weights = Path(str(network[1])), Path(str(network[3]))
    made = folder.parent / "run"
    made.mkdir()
    shutil.copy(config, made / "config.yaml")
    shutil.copy(weights, made / "model_best.pth.tar")
    out = folder.parent / "out"
    same = folder.parent / "same"
    images = [folder / "grey.png", "TEST.DETECTION_THRESHOLD", "0"]
    assert run("dist_inference", *images, "--weights", made, "--save_dir", out) == 0
    assert infer(run, network, same, folder / "grey.png") == 0
    assert content(out)["annotations"] == content(same)["annotations"] != []
    both = ["--cfg", config, "--weights", weights, "--save_dir", same]
    assert run("dist_inference", *images, *both) == 0
    assert content(same)["annotations"] == content(out)["annotations"]
    capsys.readouterr()
    assert run("dist_inference", folder / "grey.png") == 2
    assert "give --weights (a run's folder or a file of weights), or --cfg" in (
        capsys.readouterr().err
    )


def test_paths_come_from_stdin(
    run: Run, network: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{folder / 'grey.png'}\n\n{folder / 'dot.bmp'}\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    out = folder.parent / "out"
    assert infer(run, network, out, "-", "--save", "json") == 0
    assert file_names(out) == ["grey.png", "dot.bmp"]
    assert [path.name for path in out.iterdir()] == ["people.json"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-"], "-: stdin has no paths; it should have one a line"),
        (["clip.mp4", "a.png"], "clip.mp4: a video is a source of its own; run the command once"),
        (["clip.mp4"], "clip.mp4: cannot be opened as a video (there is no such file)"),
        (["98765"], "camera 98765: cannot be opened as a video"),
        (["IN", "--track"], "--track and --smooth follow people through a video; give one"),
        (["IN", "--save", "video"], "--save video: the source is images"),
        (["IN", "--save", "json,pdf"], "--save json,pdf: 'pdf' is none of images, video, json"),
        (["IN", "--show"], "--show: this Python has no Tk"),
    ],
)
def test_wrong_sources_and_outputs_are_one_line(
    run: Run,
    network: list[object],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    monkeypatch.setitem(sys.modules, "tkinter", None)
    words = [str(folder / "grey.png") if word == "IN" else word for word in args]
    assert infer(run, network, folder.parent / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_maps_are_shown_of_images_only(
    run: Run,
    network: list[object],
    folder: Path,
    video: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = folder.parent / "out"
    images = [folder / "grey.png", folder / "notes.txt"]
    assert infer(run, network, out, *images, "--show-maps", "--save", "json") == 0
    assert {path.name for path in out.iterdir()} == {"grey.png_maps.png", "people.json"}
    assert file_names(out) == ["grey.png"] and content(out)["annotations"]
    assert "notes.txt: not an image" in capsys.readouterr().err
    assert infer(run, network, out, video, "--show-maps") == 2
    assert "--show-maps: the source is a video; give images" in capsys.readouterr().err


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], bool]]:
    """The shapes of the images that are shown, and whether they wait; the user closes the window
    after the second one.
    """
    shown: list[tuple[tuple[int, ...], bool]] = []

    class Window:
        def __init__(self, title: str) -> None:
            self.open = True

        def __enter__(self) -> Window:
            return self

        def __exit__(self, *error: object) -> None: ...

        def show(self, image: np.ndarray, *, wait: bool = False) -> None:
            shown.append((image.shape, wait))
            self.open = len(shown) < 2

    monkeypatch.setattr("swahr.engine.infer.Window", Window)
    return shown


def test_the_window_shows_images_until_the_user_ends_it(
    run: Run,
    network: list[object],
    folder: Path,
    video: Path,
    window: list[object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = folder.parent / "out"
    images = [folder / name for name in ("grey.png", "dot.bmp", "colour.jpg")]
    assert infer(run, network, out, *images, "--show", "--save", "json", "--gpus", "2") == 0
    assert "--gpus 2 is ignored: --show needs one process\n" in capsys.readouterr().err
    assert window == [((70, 90, 3), True), ((1, 1, 3), True)]
    assert file_names(out) == ["grey.png", "dot.bmp"]
    window.clear()
    assert infer(run, network, out, video, "--show", "--save", "none") == 0
    assert window == [((64, 96, 3), False)] * 2


def test_oks_nms_drops_doubles_here_too(run: Run, network: list[object], folder: Path) -> None:
    counts = []
    for threshold in ("0", "0.5"):
        out = folder.parent / f"out{threshold}"
        settings = ["TEST.OKS_NMS", threshold, "--all", "--save", "json"]
        assert infer(run, network, out, folder / "colour.jpg", *settings) == 0
        counts.append(len(content(out)["annotations"]))
    assert counts[0] > counts[1] > 0


def test_the_legend_of_scores_is_in_the_help_and_in_the_docs(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dist_inference", "--help") == 0
    assert SCORES in capsys.readouterr().out
    docs = (TOOLS.parent / "docs" / "predict.md").read_text()
    assert " ".join(SCORES.split()) in " ".join(docs.replace("`", "").split())


@pytest.mark.slow
def test_inference_by_two_processes_is_that_by_one(
    run: Run, network: list[object], folder: Path
) -> None:
    out = folder.parent / "out"
    assert infer(run, network, out, "--img_dir", folder) == 0
    alone = content(out)
    command = [*network, "--img_dir", folder, "--save_dir", out, "--world_size", "2"]
    done = subprocess.run(
        [sys.executable, TOOLS / "dist_inference.py", *map(str, command)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert content(out) == alone and alone["annotations"]
    assert "3 of 9 files skipped:" in done.stderr and "notes.txt: not an image" in done.stderr


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
        f"{path.stem}_figures.json",
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


@pytest.mark.parametrize(
    ("stop", "status"), [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143)]
)
def test_an_interrupted_validation_says_how_to_resume(
    run: Run,
    network: list[object],
    stop: BaseException,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: object) -> None:
        raise stop

    monkeypatch.setattr("swahr.commands.val.launch", interrupted)
    assert run("dist_valid", *network) == status
    assert "TEST.RESUME True resumes after them" in capsys.readouterr().err
