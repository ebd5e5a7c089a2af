"""Commands that cannot do their work: one line and a status for what is foreseen, a traceback for
what is not.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.ablation.plan import AblationError
from swahr.commands import ablation, check, crowdpose, dlc, export, info, report, synthetic
from swahr.config import ConfigError
from swahr.converters.coco import ConversionError
from swahr.engine import video
from swahr.files import WriteError
from swahr.synthetic import video as walk
from tests.commands.exit_status import status_of

# Command -> a function that it calls, and arguments.
CALLED = {
    "check": ("_configuration", ["a.json", "images"]),
    "crowdpose": ("join", ["--data_dir", "nowhere"]),
    "dlc": ("read_dlc", ["a.csv", "--images", "images", "--out", "out"]),
    "info": ("find_model", ["demo"]),
    "lsp": ("read_lsp", ["--data", "lsp", "--out", "out"]),
    "report": ("read_json", ["r.json", "--annotations", "a.json"]),
    "score": ("load_config", ["--cfg", "a.yaml", "r.json"]),
    "synthetic": ("make_set", ["--out", "out"]),
}


@pytest.mark.parametrize("error", [ValueError("a mistake of ours"), OSError("a mistake of ours")])
@pytest.mark.parametrize("name", CALLED)
def test_an_unforeseen_error_goes_up(
    name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """main_with_exit_status then shows its traceback."""

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    command = importlib.import_module(f"swahr.commands.{name}")
    function, arguments = CALLED[name]
    monkeypatch.setattr(command, function, fail)
    with pytest.raises(type(error), match="^a mistake of ours$"):
        status_of(command.main, arguments)


def test_an_unforeseen_error_shows_its_traceback(tmp_path: Path) -> None:
    program = (
        "import sys; from swahr import cli; from swahr.commands import crowdpose; "
        "crowdpose.join = lambda *paths: int('a mistake'); "
        f"sys.argv = ['swahr', 'crowdpose', '--data_dir', {str(tmp_path)!r}]; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("ValueError: invalid literal for int()")


def person(image_id: int) -> dict[str, Any]:
    keypoints = [value for k in range(17) for value in (5 + k, 10, 2)]
    box = {"bbox": [0, 0, 30, 30], "area": 500, "iscrowd": 0, "num_keypoints": 17}
    return {"id": image_id, "image_id": image_id, "category_id": 1, "keypoints": keypoints} | box


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: CrowdPose's annotations, a set of one image, and results on it."""
    for index, split in ((1, "train"), (2, "val")):
        image = {"id": index, "file_name": f"{index}.png", "width": 64, "height": 48}
        categories = [{"id": 1, "name": "person", "keypoints": [f"k{k}" for k in range(17)]}]
        data = {"images": [image], "annotations": [person(index)], "categories": categories}
        (tmp_path / f"crowdpose_{split}.json").write_text(json.dumps(data))
    (tmp_path / "results.json").write_text(json.dumps([person(1) | {"score": 0.9}]))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/1.png"), np.full((48, 64, 3), 99, np.uint8))
    (tmp_path / "a_file").touch()
    (tmp_path / "crowdpose_trainval.json").mkdir()
    header = "scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\n"
    (tmp_path / "dlc.csv").write_text(f"{header}1.png,5,6\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SET = ["crowdpose_train.json", "images"]
PAGE = ["results.json", "--annotations", "crowdpose_train.json"]
FRAMES = ["dlc.csv", "--images", "images", "--val", "0"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("check", [*SET, "--contact-sheet", "a_file/sheet.png"], "a_file/sheet.png: could not be"),
        ("check", [*SET, "--contact-sheet", "sheet.png/"], None),
        ("crowdpose", ["--data_dir", "."], "crowdpose_trainval.json: could not be written (Is a"),
        ("dlc", [*FRAMES, "--out", "a_file"], "a_file/images/train: the folder cannot be made ("),
        ("report", [*PAGE, "--out", "a_file/report.html"], "a_file/report.html: could not be"),
        ("report", [*PAGE, "--out", "images"], "images: could not be written (Is a directory)"),
        ("synthetic", ["--out", "a_file", "--workers", "1"], "a_file/synthetic.json: could not be"),
        ("synthetic", ["--out", "a_file", "--video"], "a_file/people.json: could not be written"),
    ],
)
def test_what_cannot_be_written_ends_with_3(
    files: Path, name: str, arguments: list[str], said: str | None, capsys: Any
) -> None:
    if said is None:
        (files / "sheet.png").mkdir()
        said = "sheet.png: could not be written (Is a directory)"
    command = importlib.import_module(f"swahr.commands.{name}")
    assert status_of(command.main, arguments) == 3
    errors = capsys.readouterr().err
    assert errors.startswith(said) and errors.count("\n") == 1


def test_a_page_may_have_the_name_of_a_link_that_leads_nowhere(files: Path) -> None:
    (files / "loop.html").symlink_to("loop.html")
    assert status_of(report.main, [*PAGE, "--out", "loop.html"]) == 0


def test_figures_that_cannot_be_read_for_an_unforeseen_reason_show_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other runs of an ablation are compared without them."""
    run = SimpleNamespace(name="a_seed0", seed=0, cfg=SimpleNamespace(DEVICE="cpu"))
    for error, has_traceback in ((ValueError("a mistake"), True), (AblationError("known"), False)):

        def fail(*arguments: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(ablation, "collect", fail)
        failed: dict[str, str] = {}
        caplog.clear()
        assert ablation.collect_all({"a": [run]}, failed) == {}  # type: ignore[list-item]
        assert failed == {"a_seed0": str(error)}
        assert ("Traceback (most recent call last)" in caplog.text) == has_traceback


def test_an_exported_network_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own name, not by that under which it is written first."""
    path = tmp_path / f"{'x' * 250}.onnx"

    def write(module: Any, description: Any, temporary: Path) -> None:
        temporary.touch()

    monkeypatch.setattr(export, "write_onnx", write)
    with pytest.raises(WriteError, match=f"^{path}: could not be written "):
        export.main(["demo", "--output", str(path)])


class Clip:
    """What a writer asks of the video whose frames it writes."""

    name = source = "clip"
    is_file = False
    fps = 10.0
    end = None


@pytest.mark.parametrize(("frames", "room"), [(3, 30_000), (30, 30_000)])
def test_a_video_that_does_not_fit_on_the_disk_is_named(
    frames: int, room: int, tmp_path: Path
) -> None:
    """While its frames are written, and where they are still in memory at its end."""
    pytest.importorskip("av", reason="needs the extra video")
    resource = pytest.importorskip("resource", reason="needs limits on the size of files")
    images = np.random.default_rng(0).integers(0, 256, (frames, 240, 320, 3), np.uint8)
    path = tmp_path / "large.mp4"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with (
            pytest.raises(WriteError, match=f"^{path}: the video cannot be written "),
            video.VideoWriter(path, Clip()) as writer,  # type: ignore[arg-type]
        ):
            for index, image in enumerate(images):
                writer.write(image, index / 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_sound_that_does_not_fit_on_the_disk_is_named(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra video")

    def refuse(packet: object) -> None:
        raise av.error.FFmpegError(28, "No space left on device")

    file = video._AvFile(tmp_path / "a.mp4", Clip(), (64, 48), av)  # type: ignore[arg-type]
    file._container = SimpleNamespace(mux=refuse)
    line = "a.mp4: the video cannot be written (No space left on device)"
    with pytest.raises(WriteError, match=re.escape(line)):
        file._mux(None)


@pytest.mark.parametrize("flag", ["--contact-sheet", "--augmented"])
def test_a_sheet_that_is_no_image_is_refused_before_anything_is_read(flag: str) -> None:
    for name, kind in (("sheet.xyz", ".xyz"), ("sheet", "a bare name"), (".jpg", "a bare name")):
        line = f"^{flag} {name}: images are written as .png or .jpg, not as {kind}$"
        with pytest.raises(ConfigError, match=line):
            check.main(["none.json", "none", flag, name])


def test_empty_words_are_no_files() -> None:
    with pytest.raises(ConfigError, match="^give an annotation file and the folder of its images"):
        check.main(["", ""])


def test_info_says_what_it_knows_of_a_file_that_does_not_load(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(info.main, ["a_file"]) == 1
    assert "loads        no: a_file: " in capsys.readouterr().out


# -- flags


@pytest.mark.parametrize(
    ("name", "arguments", "flag"),
    [
        ("export", ["demo", "--outp", "x.onnx"], "--output"),
        ("publish", ["demo", "--ou", "x"], "--out"),
        ("dlc", ["a.csv", "--image", "x", "--out", "y"], "--images"),
        ("lsp", ["--dat", "x", "--out", "y"], "--data"),
        ("report", ["r.json", "--anno", "a.json"], "--annotations"),
    ],
)
def test_flags_are_written_out(
    name: str, arguments: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of train, val and predict."""
    command = importlib.import_module(f"swahr.commands.{name}")
    assert status_of(command.main, arguments) == 2
    said = capsys.readouterr().err
    assert f"the following arguments are required: {flag}\n" in said


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("crowdpose", ["--data_di", "."]),
        ("synthetic", ["--pre", "calm"]),
        ("info", ["demo", "--i"]),
    ],
)
def test_optional_flags_are_written_out(
    name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = importlib.import_module(f"swahr.commands.{name}")
    assert status_of(command.main, arguments) == 2
    assert "error: unrecognized arguments: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("export", ["x", "--output", "a", "--output", "b"], "--output a contradicts --output b"),
        ("publish", ["x", "--out", "a", "--out", "b"], "--out a contradicts --out b"),
        ("dlc", ["x", "--val", "0.1", "--val", "0.2"], "--val 0.1 contradicts --val 0.2"),
        ("lsp", ["--data", "a", "--data", "b"], "--data a contradicts --data b"),
        ("crowdpose", ["--root", "a", "--data-dir", "b"], "--root a contradicts --data-dir b"),
        ("synthetic", ["--seed", "1", "--seed", "2"], "--seed 1 contradicts --seed 2"),
        ("synthetic", ["--size", "8", "--size", "8", "9"], "--size 8 contradicts --size 8 9"),
    ],
)
def test_a_flag_has_one_value(name: str, arguments: list[str], line: str) -> None:
    command = importlib.import_module(f"swahr.commands.{name}")
    with pytest.raises(ConfigError, match=f"^{line}; give one of them$"):
        command.main(arguments)


def test_a_small_negative_number_is_no_flag() -> None:
    with pytest.raises(ConversionError, match=r"^the constant of all parts is -0.001 \(--sigma\)"):
        dlc.main(["a.csv", "--images", "images", "--out", "out", "--sigma", "-1e-3"])


def test_crowdposes_folder_has_hyphens_or_underscores(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "crowdpose_trainval.json").rmdir()
    for flag in ("--data-dir", "--data_dir", "--root"):
        crowdpose.main([flag, "."])
        assert "crowdpose_trainval.json: 2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "which"),
    [
        ("crowdpose", ["--root", ""], "--data_dir/--data-dir/--root"),
        ("dlc", ["", "--images", "a", "--out", "b"], "CSV"),
        ("report", ["", "--annotations", "a"], "RESULTS"),
        ("score", ["", "--cfg", "a"], "RESULTS"),
        ("export", ["a", "--output", ""], "--output"),
        ("export", ["a", "--output", "b", "--image", " "], "--image"),
        ("export", ["a", "--output", "b", "--cfg", ""], "--cfg"),
    ],
)
def test_an_empty_value_is_no_path(
    name: str, arguments: list[str], which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = importlib.import_module(f"swahr.commands.{name}")
    assert status_of(command.main, arguments) == 2
    assert f"error: argument {which}: it is empty; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        ("predict", ["--weights", "demo", ""], "SOURCE is empty; name images or a video"),
        ("ablation", ["a.yaml", ""], "LIST: it names no file or folder"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(
    name: str,
    words: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = importlib.import_module(f"swahr.commands.{name}")
    monkeypatch.setattr(sys, "argv", [f"swahr {name}", *words])
    assert status_of(lambda arguments: command.main(), []) == 2
    assert f"error: {line}\n" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--video", "--weights", "--img", "--save", "--cfg"])
def test_an_empty_value_is_none_of_predict(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = importlib.import_module("swahr.commands.predict")
    monkeypatch.setattr(sys, "argv", ["swahr predict", "--weights", "demo", flag, ""])
    assert status_of(lambda arguments: predict.main(), []) == 2
    said = capsys.readouterr().err
    assert f"error: argument {flag}: it is empty; give a value\n" in said


# -- files that an interrupted call left


class Stopped(BaseException):
    """A signal."""


def stop_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int) -> None:
    """Let the call of this index to a function of a module raise Stopped."""
    function = getattr(module, name)
    calls = iter(range(call + 1))

    def stopping(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            monkeypatch.setattr(module, name, function)
            raise Stopped
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, stopping)


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_walk_that_was_interrupted_is_made_again(
    frame: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--video", "--frames", "3", "--people", "1", "--size", "80", "64", "--out"]
    stop_at(monkeypatch, walk, "encode_jpeg", frame)
    with pytest.raises(Stopped):
        synthetic.main([*flags, str(tmp_path / "a")])
    for name in ("a", "b"):
        assert synthetic.main([*flags, str(tmp_path / name)]) == 0
    for path in (tmp_path / "b").rglob("*.j*"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes()
