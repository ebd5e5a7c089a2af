"""tools/check_dataset.py and tools/crowdpose_concat_train_val.py."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.data.images import read_image
from swahr.data.joints import ScaleSigma
from swahr.data.keypoints import KeypointDataset
from swahr.skeleton import COCO
from tests.commands.exit_status import status_of
from tests.data.test_image_header import jpeg

Tree = Callable[..., Path]
Made = Callable[..., dict[str, Any]]


@pytest.fixture
def tool() -> Callable[[str], ModuleType]:
    return lambda name: importlib.import_module(f"swahr.commands.{name}")


def paths(root: Path) -> list[str]:
    return [
        str(root / "annotations/person_keypoints_train2017.json"),
        str(root / "images/train2017"),
    ]


def test_check_a_sound_set(
    tool: Any, tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.jpg"
    arguments = [*paths(tree((1, 0, 2))), "--contact-sheet", str(sheet), "--read-images"]
    assert tool("check").main(arguments) == 0
    lines = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["images"] == lines["annotations"] == lines["  nose"] == "3"
    assert lines["images that cannot be read"] == "0"
    assert read_image(sheet).ndim == 3


def test_a_contact_sheet_has_sixteen_annotated_images(tool: Any, tree: Tree) -> None:
    """Spread over the set, and only those with labelled people, in four rows of four."""
    check = tool("check")
    root = tree((1, 0) * 20)
    dataset = KeypointDataset(*paths(root), COCO)
    sheet = check.contact_sheet(dataset)
    cell = check.CELL
    starts = [2 * i + i * cell for i in range(4)]
    cells = [sheet[y : y + cell, x : x + cell] for y in starts for x in starts]
    assert (
        sheet.shape == (4 * cell + 6, 4 * cell + 6, 3)
        and len({part.tobytes() for part in cells}) == 16
    )
    assert np.array_equal(cells[0], check.cell(dataset, 10)) and np.array_equal(
        cells[15], check.cell(dataset, 48)
    )
    adaptive = KeypointDataset(*paths(root), COCO, sigma=ScaleSigma())
    assert np.array_equal(check.cell(adaptive, 10), cells[0])
    bare = cv2.resize(dataset.read(10), (320, 240), interpolation=cv2.INTER_LINEAR)
    assert (cells[0][:240] != bare).any(-1).mean() > 0.01  # keypoints are drawn


def test_check_a_set_with_problems(
    tool: Any, tree: Tree, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    data = made((1, 1))
    data["annotations"][0]["id"] = 0
    root = tree(data)
    (root / "images/train2017/11.png").write_bytes(b"")
    check = tool("check")
    assert (
        check.main([*paths(root), "--read-images", "--contact-sheet", str(root / "sheet.png")]) == 1
    )
    printed = capsys.readouterr()
    assert (
        "1 problem\n" in printed.out
        and "the id 0 means 'not matched' to the scorers -> new id" in printed.out
    )
    assert "11.png: the file is empty" in printed.out and not printed.err
    assert status_of(check.main, [*paths(root), "--skeleton", "crowd_pose"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_check_says_everything_when_nothing_is_left(
    tool: Any, tree: Tree, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in training: the path of each image that was looked for."""
    data = made((1, 1))
    root = tree(data)
    for image in data["images"]:
        image["file_name"] = f"train2017\\{image['file_name']}"
    Path(paths(root)[0]).write_text(json.dumps(data))
    assert status_of(tool("check").main, paths(root)) == 2
    printed = capsys.readouterr().err
    for name in ("10.png", "11.png"):
        looked_for = root / "images/train2017" / f"train2017\\{name}"
        assert f"no image file {looked_for}; only / separates folders" in printed
    assert "no image with a file is left to work with" in printed


def test_check_prints_notes_and_exif_orientations(
    tool: Any, tree: Tree, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are no problems."""
    data = made((1, 1))
    data["images"][1]["file_name"] = "11.jpg"
    data["annotations"][0]["keypoints"][:3] = [99, 20, 2]
    root = tree(data)
    (root / "images/train2017/11.jpg").write_bytes(jpeg(6, pixels=np.zeros((48, 64, 3), np.uint8)))
    assert tool("check").main([*paths(root), "--read-images"]) == 0
    printed = capsys.readouterr().out
    assert "note: 1 of" in printed and "like nose at 99, 20 in image 10 of 64 x 48" in printed
    assert "EXIF orientations ignored    1\n  image 11: " in printed


def test_check_finds_sides_that_cannot_be_warped(
    tool: Any, tree: Tree, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that the annotation file does not tell of."""
    root = tree((1, 1))
    long = cv2.imencode(".png", np.zeros((2, 32767, 3), np.uint8))[1]
    (root / "images/train2017/11.png").write_bytes(long.tobytes())
    assert tool("check").main([*paths(root), "--read-images"]) == 1
    assert "image 11: " in (printed := capsys.readouterr().out)
    assert "the file has 32767 x 2 pixels, the annotation file says 64 x 48" in printed


def test_check_of_chosen_categories(
    tool: Any, tree: Tree, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    data = made((1, 1))
    data["categories"].append({"id": 2, "name": "child", "keypoints": list(COCO.keypoints)})
    data["annotations"][1]["category_id"] = 2
    check = tool("check")
    root = tree(data)
    for options, people in (([], 2), (["--categories", "child"], 1)):
        assert check.main([*paths(root), *options]) == 0
        assert f"annotations                  {people}\n" in capsys.readouterr().out


def test_check_suggests_sigmas(
    tool: Any, tree: Tree, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measured where two people labelled 20 of a kind, which differ; else by the rule."""
    data = made((1,) * 20)
    second = tmp_path / "second.json"
    root = tree(data)
    for annotation in data["annotations"]:
        annotation["keypoints"][0] += 6  # the nose, of a person of 30 px
    second.write_text(json.dumps(data))
    check = tool("check")
    assert check.main([*paths(root), "--suggest-sigmas", "--second", str(second)]) == 0
    printed = capsys.readouterr().out
    assert "people labelled twice        20\n" in printed
    assert "  nose                       0.2000 from 20 double labels\n" in printed
    assert "  left_eye                   0.0000 from " in printed
    assert ", which are all equal: a rule of thumb is taken\n" in printed
    assert "sigmas: [0.2, 0.025, 0.025, " in printed
    assert check.main([*paths(root), "--suggest-sigmas"]) == 0
    printed = capsys.readouterr().out
    assert "sigmas by a rule of thumb: COCO's for keypoints of its names, 0.05 for " in printed
    assert "sigmas: [0.026, 0.025, 0.025, " in printed
    for image in data["images"]:
        image["file_name"] = f"other_{image['file_name']}"
    second.write_text(json.dumps(data))
    assert status_of(check.main, [*paths(root), "--suggest-sigmas", "--second", str(second)]) == 2
    assert "second.json: nobody in it was labelled in " in capsys.readouterr().err


def test_sigmas_are_suggested_for_a_skeleton_without_them(
    tool: Any, tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skeleton = tmp_path / "own.yaml"
    skeleton.write_text(f"keypoints: {json.dumps(COCO.keypoints)}\n")
    arguments = [*paths(tree((1, 2))), "--skeleton", str(skeleton)]
    check = tool("check")
    assert status_of(check.main, arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{skeleton}: a skeleton needs the entry sigmas, ")
    assert "--suggest-sigmas` prints it\n" in said
    assert check.main([*arguments, "--suggest-sigmas"]) == 0
    printed = capsys.readouterr().out
    assert f"note: {skeleton} has no sigmas yet; training needs them\n" in printed
    assert "sigmas: [0.026, 0.025, 0.025, " in printed


EXPERIMENT = "experiments/synthetic/tiny_192_cpu.yaml"


def test_check_of_an_experiments_training_set(
    tool: Any, tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Problems are reported, whatever DATASET.STRICT says; images are those that training uses."""
    root = tree((1, 0, 2))
    sheet = tmp_path / "sheet.png"
    settings = ["DATASET.ROOT", str(root), "DATASET.TRAIN=train2017", "DATASET.STRICT", "True"]
    arguments = ["--cfg", EXPERIMENT, *settings, "--augmented", str(sheet)]
    assert tool("check").main(arguments) == 0
    printed = capsys.readouterr().out
    assert "images                       2\n" in printed
    assert printed.endswith(f"augmented images: {sheet}\n")
    assert read_image(sheet).shape[1] == 4 * 320 + 6


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give an annotation file and the folder of its images, or --cfg FILE"),
        (["a.json"], "give an annotation file and the folder of its images, or --cfg FILE"),
        (["a.json", "b", "--augmented", "c.jpg"], "--augmented needs --cfg, the experiment whose"),
        (["a.json", "b", "--second", "c.json"], "--second needs --suggest-sigmas, which it is fo"),
        (["--cfg", EXPERIMENT, "--skeleton", "coco"], "--skeleton and --cfg: give the setting DAT"),
        (["--cfg", EXPERIMENT, "--categories", "dog"], "--categories and --cfg: give the setting "),
        (["--cfg", EXPERIMENT, "DATASET.ROOT", "none"], "DATASET.ROOT: no folder 'none' here or "),
        (["--cfg", EXPERIMENT, "DATASET.ROOT"], "'DATASET.ROOT' has no value"),
        (["--cfg", EXPERIMENT, "--import", "none.at_all"], "--import none.at_all: "),
    ],
)
def test_check_says_which_flags_fit(
    tool: Any, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(tool("check").main, arguments) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


def test_concat(tool: Any, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    concat = tool("crowdpose")
    train = made((1, 2))
    val = made((3,))
    (tmp_path / "crowdpose_train.json").write_text(json.dumps(train))
    assert status_of(concat.main, ["--data_dir", str(tmp_path)]) == 2
    assert "crowdpose_val.json: cannot be read (No such file" in capsys.readouterr().err
    (tmp_path / "crowdpose_val.json").write_text(json.dumps(val))
    assert status_of(concat.main, ["--root", str(tmp_path)]) == 2
    said = "crowdpose_train.json and crowdpose_val.json: both have 1 id of images, such as 10\n"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "crowdpose_trainval.json").exists()
    val["images"][0]["id"], val["annotations"] = 99, []
    (tmp_path / "crowdpose_val.json").write_text(json.dumps(val))
    concat.main(["--data_dir", str(tmp_path)])
    joined = json.loads((tmp_path / "crowdpose_trainval.json").read_text())
    assert [len(joined[key]) for key in ("images", "annotations", "categories")] == [3, 3, 1]
    assert "crowdpose_trainval.json: 3 images, 3 annotations" in capsys.readouterr().out
