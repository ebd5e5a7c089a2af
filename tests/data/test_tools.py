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
from swahr.data.keypoints import KeypointDataset
from swahr.skeleton import COCO
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
    assert check.main([*paths(root), "--skeleton", "crowd_pose"]) == 2
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
    assert tool("check").main(paths(root)) == 2
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


def test_concat(tool: Any, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    concat = tool("crowdpose")
    train = made((1, 2))
    val = made((3,))
    (tmp_path / "crowdpose_train.json").write_text(json.dumps(train))
    assert concat.main(["--data_dir", str(tmp_path)]) == 2
    assert "crowdpose_val.json: cannot be read (No such file" in capsys.readouterr().err
    (tmp_path / "crowdpose_val.json").write_text(json.dumps(val))
    assert concat.main(["--root", str(tmp_path)]) == 2
    said = (
        "crowdpose_train.json and crowdpose_val.json: 1 ids of images are in both, for example 10"
    )
    assert said in capsys.readouterr().err
    assert not (tmp_path / "crowdpose_trainval.json").exists()
    val["images"][0]["id"], val["annotations"] = 99, []
    (tmp_path / "crowdpose_val.json").write_text(json.dumps(val))
    assert concat.main(["--data_dir", str(tmp_path)]) == 0
    joined = json.loads((tmp_path / "crowdpose_trainval.json").read_text())
    assert [len(joined[key]) for key in ("images", "annotations", "categories")] == [3, 3, 1]
    assert "crowdpose_trainval.json: 3 images, 3 annotations" in capsys.readouterr().out
