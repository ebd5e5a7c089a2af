"""Label files of other tools in COCO's format: the converters, and their tools."""

from __future__ import annotations

import importlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.converters.coco import ConversionError
from swahr.converters.dlc import read_dlc, split_frames
from swahr.converters.lsp import NAMES, SKELETON
from swahr.skeleton import COCO, load_skeleton, skeleton_yaml
from tests.commands.exit_status import status_of

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PARTS = ("snout", "left_ear", "right_ear", "tail")
Tool = Callable[[str], ModuleType]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def write_image(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(str(path)))
    cv2.imwrite(str(path), random.integers(0, 256, (height, width, 3), np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG file of one grey image without its pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        check = zlib.crc32(kind + content)
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
    return data


def read(root: Path, split: str) -> dict[str, Any]:
    return json.loads((root / f"annotations/person_keypoints_{split}.json").read_text())


def problems(tool: Tool, root: Path, split: str) -> int:
    """The exit status of tools/check_dataset.py, which is 0 where there are no problems."""
    files = [f"{root}/annotations/person_keypoints_{split}.json", f"{root}/images/{split}"]
    return tool("check_dataset").main(
        [*files, "--skeleton", str(root / "skeleton.yaml"), "--read-images"]
    )


@pytest.mark.parametrize("skeleton", [COCO, SKELETON], ids=lambda each: each.name)
def test_a_skeleton_is_read_as_it_was_written(tmp_path: Path, skeleton: Any) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(skeleton_yaml(skeleton))
    assert load_skeleton(path) == skeleton


# -- Leeds Sports Pose


def lsp_line(name: str, split: str, joints: dict[str, tuple[float, float]]) -> list[str]:
    cells = [name, split]
    for joint in NAMES:
        cells += [*map(str, joints[joint]), "1"] if joint in joints else ["", "", "0"]
    return cells


@pytest.fixture
def lsp(tmp_path: Path) -> Path:
    """Two photographs for training, one for validation."""
    header = ["image", "split", *(f"{name}_{part}" for name in NAMES for part in "xyv")]
    rows = [
        lsp_line("a.jpg", "train", {"neck": (30, 10.5), "left_hip": (20, 40)}),
        lsp_line("b.jpg", "val", {name: (3 * k, 2 * k) for k, name in enumerate(NAMES)}),
        lsp_line("c.jpg", "train", {"neck": (10, 12), "head_top": (10, 70), "left_hip": (-1, 3)}),
    ]
    folder = tmp_path / "lsp"
    for row in rows:
        write_image(folder / "images" / row[0])
    (folder / "joints.csv").write_text("\n".join(map(",".join, [header, *rows])) + "\n")
    return folder


def test_photographs(lsp: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    root = lsp.parent / "out"
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(root)]) == 0
    printed = capsys.readouterr().out
    assert "train  2 images, 2 people\nval    1 image, 1 person\n2 joints lie outside" in printed
    train, val = read(root, "train"), read(root, "val")
    assert [image["file_name"] for image in train["images"]] == ["a.jpg", "c.jpg"]
    assert [image["id"] for image in train["images"] + val["images"]] == [1, 3, 2]
    assert train["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    first, second = train["annotations"]
    keypoints = np.array(first["keypoints"]).reshape(-1, 3)
    assert keypoints[NAMES.index("neck")].tolist() == [30, 10.5, 2]
    assert keypoints[:, 2].sum() == 4 and first["num_keypoints"] == 2
    # 8 px around (20, 10.5) to (30, 40), of which 0.5 are outside the image of 48.
    assert first["bbox"] == [12, 2.5, 26, 45.5]
    assert first["area"] == pytest.approx(0.53 * 26 * 45.5, abs=0.01)
    assert second["num_keypoints"] == 1 and second["bbox"] == [2, 4, 16, 16]
    assert not any(second["keypoints"][3 * NAMES.index("left_hip") :][:3])
    assert problems(tool, root, "train") == problems(tool, root, "val") == 0
    assert (root / "images/val/b.jpg").is_symlink()
    assert (root / "images/val/b.jpg").read_bytes() == (lsp / "images/b.jpg").read_bytes()


def test_images_are_copied_on_demand_and_once_more(lsp: Path, tool: Tool) -> None:
    root = lsp.parent / "out"
    arguments = ["--data", str(lsp), "--out", str(root)]
    source = (lsp / "images/a.jpg").read_bytes()
    for more in ([], ["--copy"], ["--copy"], []):
        assert status_of(tool("lsp_to_coco").main, [*arguments, *more]) == 0
        assert (root / "images/train/a.jpg").is_symlink() == (not more)
        assert (root / "images/train/a.jpg").read_bytes() == source
    assert (lsp / "images/a.jpg").read_bytes() == source


def test_images_are_copied_where_links_are_not_possible(
    lsp: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.symlink", refuse)
    root = lsp.parent / "out"
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(root)]) == 0
    assert not (root / "images/train/a.jpg").is_symlink()


def test_boxes_grow_with_the_person(lsp: Path, tool: Tool) -> None:
    write_image(lsp / "images/b.jpg", 640, 480)
    lines = (lsp / "joints.csv").read_text().splitlines()
    lines[2] = ",".join(lsp_line("b.jpg", "val", {"neck": (100, 100), "left_hip": (150, 300)}))
    (lsp / "joints.csv").write_text("\n".join(lines))
    root = lsp.parent / "out"
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(root)]) == 0
    assert read(root, "val")["annotations"][0]["bbox"] == [80, 80, 90, 240]


@pytest.mark.parametrize(
    ("line", "old", "new", "said"),
    [
        (0, "image", "file", "joints.csv: the first line must be image,split,right_ankle_x,"),
        (1, "train", "test", "line 2: the split is 'test'; it is one of train, val"),
        (1, "30", "3o", "line 2: neck_x is '3o', not a number"),
        (1, "10.5", "nan", "line 2: neck_y is 'nan', not a number"),
        (1, "10.5,1", "10.5,2", "line 2: neck_v is '2'; it is 0 or 1"),
        (1, "10.5,1", "10.5", "line 2: 43 values; the header has 44"),
        (2, "b.jpg", "d.jpg", "images/d.jpg"),
        (2, "b.jpg", "../b.jpg", "line 3: '../b.jpg' is not the name of an image file"),
        (3, "c.jpg", "a.jpg", "line 4: the image a.jpg is there already ("),
        (2, "b.jpg", "a.jpg", "joints.csv, line 2); a name stands once, in train or in val\n"),
        (3, "c.jpg", "broken.jpg", "line 4: {lsp}/images/broken.jpg: not an image that can be"),
        (3, "c.jpg", "half.jpg", "line 4: {lsp}/images/half.jpg: the file is cut off after "),
        (3, "c.jpg", "large.png", "line 4: {lsp}/images/large.png: 40000 x 40000 pixels; OpenCV "),
    ],
)
def test_wrong_lists_of_photographs(
    lsp: Path,
    tool: Tool,
    capsys: pytest.CaptureFixture[str],
    line: int,
    old: str,
    new: str,
    said: str,
) -> None:
    (lsp / "images/broken.jpg").write_bytes(b"not an image")
    whole = (lsp / "images/c.jpg").read_bytes()
    (lsp / "images/half.jpg").write_bytes(whole[: len(whole) // 2])
    (lsp / "images/large.png").write_bytes(png_header(40000, 40000))
    lines = (lsp / "joints.csv").read_text().splitlines()
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new, 1)
    (lsp / "joints.csv").write_text("\n".join(lines))
    root = lsp.parent / "out"
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(root)]) == 2
    printed = capsys.readouterr()
    assert said.format(lsp=lsp) in printed.err and printed.err.count("\n") == 1
    assert not root.exists()


def test_a_list_that_a_spreadsheet_wrote(lsp: Path, tool: Tool) -> None:
    """Excel's "CSV UTF-8" starts with a byte order mark."""
    path = lsp / "joints.csv"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(lsp / "out")]) == 0


@pytest.mark.parametrize(
    ("text", "said"), [("", "the first line must be"), (None, "no images are listed")]
)
def test_lists_of_nothing(
    lsp: Path, tool: Tool, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = lsp / "joints.csv"
    header = path.read_text().splitlines()[0]
    path.write_text(header if text is None else text)
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(lsp / "out")]) == 2
    assert said in capsys.readouterr().err
    path.unlink()
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(lsp / "out")]) == 2
    assert "joints.csv: cannot be read (No such file" in capsys.readouterr().err


# -- DeepLabCut


def dlc_rows(frames: int = 10, index: int = 1) -> list[list[str]]:
    """Header lines and frames; the last frame has no labels, the first no tail."""
    blank = [""] * (index - 1)
    rows = [
        ["scorer", *blank, *["me"] * (2 * len(PARTS))],
        ["bodyparts", *blank, *(part for part in PARTS for _ in "xy")],
        ["coords", *blank, *["x", "y"] * len(PARTS)],
    ]
    for i in range(frames):
        path = ("labeled-data", "m1", f"img{i:03}.png")
        cells = [str(value) for k in range(len(PARTS)) for value in (20 + 5 * k + 0.25, 10 + i)]
        if i == 0:
            cells[-2:] = ["", ""]
        if i == frames - 1:
            cells = [""] * len(cells)
        rows.append([*(path if index == 3 else ["/".join(path)]), *cells])
    return rows


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    return path


@pytest.fixture
def dlc(tmp_path: Path) -> Path:
    for i in range(10):
        write_image(tmp_path / f"labeled-data/m1/img{i:03}.png")
    return write_csv(tmp_path / "labels.csv", dlc_rows())


def convert(tool: Tool, csv: Path, *more: str, images: str = "") -> tuple[int, Path]:
    root = csv.parent / "out"
    where = str(csv.parent / images)
    arguments = [str(csv), "--images", where, "--out", str(root), *more]
    return status_of(tool("dlc_to_coco").main, arguments), root


@pytest.mark.parametrize("index", [1, 3])
@pytest.mark.parametrize("images", ["", "labeled-data", "labeled-data/m1"])
def test_labelled_frames(
    dlc: Path, tool: Tool, index: int, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(dlc, dlc_rows(index=index))
    status, root = convert(tool, dlc, images=images)
    assert status == 0
    printed = capsys.readouterr().out
    assert "train  7 images, 7 animals\nval    2 images, 2 animals\n" in printed
    assert "left out: 1 frame without labels\n" in printed
    assert "flip pairs: left_ear and right_ear" in printed
    assert problems(tool, root, "train") == problems(tool, root, "val") == 0
    skeleton = load_skeleton(root / "skeleton.yaml")
    assert skeleton.keypoints == PARTS and skeleton.flip_pairs == ((1, 2),)
    assert skeleton.sigmas == (0.05,) * 4 and skeleton.limbs == ()
    both = [read(root, split) for split in ("train", "val")]
    names = {image["id"]: image["file_name"] for data in both for image in data["images"]}
    assert sorted(names.values()) == [f"m1_img{i:03}.png" for i in range(9)]
    people = {a["image_id"]: a for data in both for a in data["annotations"]}
    by_name = {names[image]: person["keypoints"] for image, person in people.items()}
    assert by_name["m1_img004.png"] == [20.25, 14, 2, 25.25, 14, 2, 30.25, 14, 2, 35.25, 14, 2]
    assert by_name["m1_img000.png"][-3:] == [0, 0, 0]


def test_the_split_follows_the_seed(dlc: Path) -> None:
    frames = read_dlc(dlc, dlc.parent).images

    def val(share: float, seed: int) -> list[int]:
        return [i for i, f in enumerate(split_frames(frames, share, seed)) if f.split == "val"]

    assert val(0.4, 0) == val(0.4, 0) != val(0.4, 1)
    assert [len(val(share, 0)) for share in (0, 0.01, 0.4, 0.99)] == [0, 1, 4, 8]
    with pytest.raises(ConversionError, match=r"is 1.0 \(--val\); it is from 0 below 1"):
        split_frames(frames, 1.0, 0)
    with pytest.raises(ConversionError, match="one labelled frame cannot be split"):
        split_frames(frames[:1], 0.2, 0)


def test_a_frame_that_is_listed_twice_is_refused_whatever_the_split(dlc: Path, tool: Tool) -> None:
    rows = dlc_rows()
    write_csv(dlc, [*rows, rows[4]])
    for seed in range(6):
        status, root = convert(tool, dlc, "--val", "0.5", "--seed", str(seed))
        assert status == 2 and not root.exists()


def test_a_frame_never_gets_the_image_of_another_video(
    dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [[cell.replace("/m1/", "/m2/") for cell in row] for row in dlc_rows()[3:]]
    write_csv(dlc, [*dlc_rows(), *other])
    status, root = convert(tool, dlc, images="labeled-data/m1")
    assert status == 2 and not root.exists()
    said = "labels.csv, line 4; give the folder that holds the folders of all videos\n"
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--val", "1"], "the share of frames for validation is 1.0 (--val); it is from 0 below 1"),
        (["--seed", "-1"], "the seed of the split is -1 (--seed); it is 0 or more"),
        (["--sigma", "0"], "the constant of all parts is 0.0 (--sigma); it is above 0"),
        (["--sigma", "nan"], "the constant of all parts is nan (--sigma); it is above 0"),
    ],
)
def test_flags_out_of_range_are_named(
    dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert convert(tool, dlc, *flags)[0] == 2
    assert capsys.readouterr().err == f"{said}\n"


def test_without_validation_there_is_no_file_for_it(dlc: Path, tool: Tool) -> None:
    convert(tool, dlc, "--sigma", "0.03")
    status, root = convert(tool, dlc, "--val", "0")
    assert status == 0 and len(read(root, "train")["images"]) == 9
    assert not (root / "annotations/person_keypoints_val.json").exists()
    assert load_skeleton(root / "skeleton.yaml").sigmas == (0.03,) * 4


@pytest.mark.parametrize("flags", [[], ["--copy"]])
def test_another_split_leaves_no_frame_in_both(dlc: Path, tool: Tool, flags: list[str]) -> None:
    """Also after more frames were labelled, and with another share."""
    write_csv(dlc, dlc_rows(6))
    for share, seed in (("0.4", "0"), ("0.4", "1"), ("0.2", "1")):
        status, root = convert(tool, dlc, "--val", share, "--seed", seed, *flags)
        assert status == 0
        write_csv(dlc, dlc_rows())
    assert [len(read(root, split)["images"]) for split in ("train", "val")] == [7, 2]
    for split in ("train", "val"):
        names = {image["file_name"] for image in read(root, split)["images"]}
        assert {path.name for path in (root / "images" / split).iterdir()} == names


# -- what is in the output already


def test_a_skeleton_that_was_edited_is_kept(
    dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    _, root = convert(tool, dlc)
    path = root / "skeleton.yaml"
    edited = f"keypoints: [{', '.join(PARTS)}]\nsigmas: [.1, .2, .2, .3]\nlimbs: [[snout, tail]]\n"
    path.write_text(edited)
    assert convert(tool, dlc)[0] == 0
    assert path.read_text() == edited
    printed = capsys.readouterr().out
    assert f"{path} is kept as it is; remove it to have it written anew\n" in printed
    assert printed.count("is kept as it is") == 1
    assert "flip pairs: none" in printed
    assert read(root, "train")["categories"][0]["skeleton"] == [[1, 4]]


def test_a_list_of_photographs_keeps_an_edited_skeleton(
    lsp: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = lsp.parent / "out"
    edited = skeleton_yaml(replace(SKELETON, limbs=()))
    root.mkdir()
    (root / "skeleton.yaml").write_text(edited)
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(root)]) == 0
    assert (root / "skeleton.yaml").read_text() == edited
    assert "skeleton.yaml is kept as it is" in capsys.readouterr().out


def whole_content(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def made_by_hand(area: float) -> str:
    """Annotations without "info" of one person in a box of 10 by 10."""
    person = {"id": 1, "image_id": 1, "bbox": [1, 2, 10, 10], "area": area}
    return json.dumps({"images": [], "annotations": [person], "categories": []})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "skeleton.yaml",
            "keypoints: [snout, tail]\nsigmas: [.1, .1]\n",
            "has the keypoints snout, tail; the labels have snout, left_ear, right_ear, tail; ch",
        ),
        ("skeleton.yaml", "a: [", "cannot be read as YAML"),
        ("annotations/person_keypoints_train.json", made_by_hand(100), "no conversion wrote it"),
        ("annotations/person_keypoints_val.json", made_by_hand(100), "no conversion wrote it"),
        ("annotations/person_keypoints_val.json", '{"info": {}}', "no conversion wrote it"),
        ("annotations/person_keypoints_val.json", "[]", "no conversion wrote it"),
        ("annotations/person_keypoints_val.json", "mine", "no conversion wrote it"),
        ("images/train/m1_img000.png", "mine", "is no copy of"),
        ("images/val/m1_img008.png", "mine", "is no copy of"),
    ],
)
def test_files_that_no_conversion_wrote_stay(
    dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    """Where a file would be replaced, and where it would be removed (--val 0)."""
    path = dlc.parent / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for share in ("0", "0.2"):
        status, root = convert(tool, dlc, "--val", share)
        printed = capsys.readouterr().err
        assert status == 2 and said in printed and printed.count("\n") == 1
        assert printed.startswith(f"{path}:")
        assert whole_content(root) == {str(path): text.encode()}


def test_a_link_to_another_image_is_replaced(lsp: Path, tool: Tool) -> None:
    """As where the photographs were moved."""
    root = lsp.parent / "out"
    (root / "images/train").mkdir(parents=True)
    write_image(lsp.parent / "earlier.jpg", 16, 16)
    (root / "images/train/a.jpg").symlink_to(lsp.parent / "earlier.jpg")
    assert status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(root)]) == 0
    assert (root / "images/train/a.jpg").samefile(lsp / "images/a.jpg")


def test_an_image_of_the_same_size_and_date_is_no_copy(lsp: Path, tool: Tool) -> None:
    source = lsp / "images/a.jpg"
    path = lsp.parent / "out/images/train/a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(source.stat().st_size))
    shutil.copystat(source, path)
    assert (
        status_of(tool("lsp_to_coco").main, ["--data", str(lsp), "--out", str(lsp.parent / "out")])
        == 2
    )
    assert not any(path.read_bytes())


def test_annotations_of_an_earlier_version_are_replaced(dlc: Path, tool: Tool) -> None:
    """They have no "info"."""
    _, root = convert(tool, dlc)
    path = root / "annotations/person_keypoints_train.json"
    content = read(root, "train")
    del content["info"]
    path.write_text(json.dumps(content))
    assert convert(tool, dlc)[0] == 0 and "info" in read(root, "train")


def test_frames_that_are_in_the_output_already_stay_as_they_are(tmp_path: Path, tool: Tool) -> None:
    rows = [
        ["scorer", "m", "m"],
        ["bodyparts", "a", "a"],
        ["coords", "x", "y"],
        ["1.png", "4", "5"],
        ["2.png", "4", "5"],
    ]
    csv = write_csv(tmp_path / "labels.csv", rows)
    for name in ("1.png", "2.png"):
        write_image(tmp_path / "out/images/train" / name)
    status, root = convert(tool, csv, "--val", "0.5", images="out/images/train")
    assert status == 0 and problems(tool, root, "train") == problems(tool, root, "val") == 0
    assert {path.is_symlink() for path in (root / "images/train").iterdir()} == {False}


def test_a_frame_without_labels_needs_no_image(dlc: Path) -> None:
    (dlc.parent / "labeled-data/m1/img009.png").unlink()
    assert read_dlc(dlc, dlc.parent).unlabelled == 1


def test_several_animals(dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    """Two animals with their parts in another order, and a corner that belongs to neither."""
    owners = ["a"] * 4 + ["b"] * 4 + ["single"] * 2
    parts = ["nose", "nose", "tail", "tail", "tail", "tail", "nose", "nose", "corner", "corner"]
    rows = [
        ["scorer", *["me"] * 10],
        ["individuals", *owners],
        ["bodyparts", *parts],
        ["coords", *["x", "y"] * 5],
        ["labeled-data\\m1\\img000.png", *map(str, range(1, 11))],
        ["labeled-data\\m1\\img001.png", *map(str, range(1, 5)), *["nan"] * 4, "1", "1"],
        ["labeled-data\\m1\\img002.png", *[""] * 8, "1", "1"],
    ]
    write_csv(dlc, rows)
    status, root = convert(tool, dlc, "--val", "0")
    printed = capsys.readouterr().out
    assert status == 0 and "parts of no animal were left out: corner" in printed
    assert "train  2 images, 3 animals" in printed and "none, since no names" in printed
    data = read(root, "train")
    assert data["categories"][0]["keypoints"] == ["nose", "tail"]
    keypoints = [person["keypoints"] for person in data["annotations"]]
    assert keypoints == [[1, 2, 2, 3, 4, 2], [7, 8, 2, 5, 6, 2], [1, 2, 2, 3, 4, 2]]
    assert problems(tool, root, "train") == 0


@pytest.mark.parametrize(
    ("row", "column", "value", "said"),
    [
        (0, 0, "Scorer", "not a label file of DeepLabCut, whose first lines begin with scorer,"),
        (2, 1, "z", "line 3: the columns must be x, y, x, y, ..."),
        (2, 2, "likelihood", "line 3: a likelihood stands there, so these are no labels but"),
        (1, 2, "tail", "x and y of a body part must stand side by side"),
        (4, 2, "2o", "line 5: snout y is '2o', not a number"),
        (4, 2, "inf", "line 5: snout y is 'inf', not a number"),
        (4, 1, "", "line 5: snout has y alone"),
        (4, 2, "", "line 5: snout has x alone"),
        (
            4,
            0,
            "labeled-data/m1/img999.png",
            "line 5: there is no image labeled-data/m1/img999.png",
        ),
        (4, 0, "labeled-data/m1/img003.png", "line 7: the image m1_img003.png is there already ("),
        (4, 0, "", "line 5: the path of the image is empty"),
        (4, 0, "bad.png", "bad.png: not an image that can be decoded"),
        (4, 8, "1,2", "line 5: 10 cells; the header has 9"),
    ],
)
def test_wrong_labels_of_frames(
    dlc: Path,
    tool: Tool,
    capsys: pytest.CaptureFixture[str],
    row: int,
    column: int,
    value: str,
    said: str,
) -> None:
    (dlc.parent / "bad.png").write_bytes(b"not an image")
    rows = dlc_rows()
    rows[row][column] = value
    write_csv(dlc, rows)
    status, root = convert(tool, dlc)
    printed = capsys.readouterr()
    assert status == 2 and not root.exists()
    assert said in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "the file is empty"),
        (dlc_rows()[:3], "no frame has a label"),
        ([["scorer", "me"]], "not a label file of DeepLabCut"),
        ([["scorer"], ["bodyparts"], ["coords"]], "line 3: no columns x and y after the path"),
        (
            [["scorer", "m"], ["bodyparts", "a", "a"], ["coords", "x", "y"]],
            "the header lines are not equally long",
        ),
        (
            [["scorer", *"mmmm"], ["bodyparts", *"aaaa"], ["coords", *"xyxy"]],
            "the body part 'a' is there twice",
        ),
        (
            [
                ["scorer", *"mmmm"],
                ["individuals", *"pprr"],
                ["bodyparts", *"aabb"],
                ["coords", *"xyxy"],
            ],
            "r has other body parts than p",
        ),
        (
            [["scorer", *"mmmm"], ["bodyparts", *"aa", "", ""], ["coords", *"xyxy"]],
            "line 2: bodyparts has no name in column 4",
        ),
        (
            [
                ["scorer", *"mm"],
                ["individuals", "", ""],
                ["bodyparts", *"aa"],
                ["coords", *"xy"],
            ],
            "line 2: individuals has no name in column 2",
        ),
    ],
)
def test_files_that_hold_no_labels(dlc: Path, rows: list[list[str]], said: str) -> None:
    write_csv(dlc, rows)
    with pytest.raises(ConversionError, match=said):
        read_dlc(dlc, dlc.parent)


def test_places_that_are_not_there(dlc: Path) -> None:
    with pytest.raises(ConversionError, match=r"none.csv: cannot be read \(No such file"):
        read_dlc(dlc.with_name("none.csv"), dlc.parent)
    with pytest.raises(ConversionError, match="nowhere: there is no such folder of images"):
        read_dlc(dlc, dlc.parent / "nowhere")


def test_an_output_that_cannot_be_written(
    dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    (dlc.parent / "out").write_text("a file")
    status, _ = convert(tool, dlc)
    printed = capsys.readouterr().err
    assert status == 3 and "the folder cannot be made" in printed and printed.count("\n") == 1


@pytest.mark.parametrize("share", ["0", "0.2"])
@pytest.mark.parametrize("name", ["images/train/m1_img000.png", "images/val/m1_img000.png"])
def test_a_folder_in_the_place_of_an_image_stays(
    dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str], name: str, share: str
) -> None:
    """Nothing is written beside it."""
    path = dlc.parent / "out" / name
    path.mkdir(parents=True)
    status, root = convert(tool, dlc, "--val", share)
    printed = capsys.readouterr().err
    assert status == 2 and f"{path}: exists, and is no copy of " in printed
    assert printed.count("\n") == 1 and whole_content(root) == {}


def test_a_file_that_cannot_be_removed_is_named(
    dlc: Path, tool: Tool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image of a frame that is in the other split now."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    _, root = convert(tool, dlc, "--val", "0")
    monkeypatch.setattr(Path, "unlink", refuse)
    status, _ = convert(tool, dlc, "--copy")
    said = capsys.readouterr().err
    assert status == 3 and said.startswith(f"{root}/images/")
    assert said.endswith(": cannot be written (Permission denied)\n") and said.count("\n") == 1
