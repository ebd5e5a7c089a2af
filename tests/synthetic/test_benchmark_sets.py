"""The fixed benchmark sets: the same bytes everywhere, complete labels, and a manifest that finds
every difference.
"""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swahr.synthetic import (
    BENCHMARKS,
    PRESETS,
    SyntheticError,
    dataset,
    render_scene,
    verify_benchmark,
    write_benchmark,
    write_dataset,
)
from tests.commands.exit_status import status_of

SMALL = "benchmark-v1-small"
TINY = replace(PRESETS["calm"], width=(64, 64), height=(64, 64))
COUNTS = {"train": 4, "val": 2}
# First digits of the SHA-256 of every file of that part of the small set.
PINNED = {
    "annotations/person_keypoints_train2017.json": "6d1cff8915f2",
    "annotations/person_keypoints_val2017.json": "2c53f0b2b359",
    "images/train2017/000000000001.jpg": "cefb99edfc33",
    "images/train2017/000000000002.jpg": "8bd68d7657d4",
    "images/train2017/000000000003.jpg": "4d70fc5e27ba",
    "images/train2017/000000000004.jpg": "556771b73371",
    "images/val2017/000001000001.jpg": "41f6635b2878",
    "images/val2017/000001000002.jpg": "aa2d5fbc5af4",
    "json/crowdpose_train.json": "3b014a37ebfd",
    "json/crowdpose_val.json": "63dc3ee225a0",
    "synthetic.json": "2a3e7cf65b7f",
}
LARGE_FIRST = "eeea33b33759"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmark")
    assert write_benchmark(root, SMALL, images=COUNTS) == 6
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "set"))


@pytest.fixture
def part_is_whole(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set of the tests counts as the whole benchmark."""
    digest = json.loads((made / "manifest.json").read_text())["sha256"]
    whole = replace(BENCHMARKS[SMALL], images=COUNTS, sha256=digest)
    monkeypatch.setitem(dataset.BENCHMARKS, SMALL, whole)


def test_files_are_the_same_on_every_machine(made: Path) -> None:
    """JPEG files included. An intended change needs a benchmark of another name."""
    digests = json.loads((made / "manifest.json").read_text())["files"]
    assert {path: digest[:12] for path, digest in digests.items()} == PINNED


def test_the_large_set_is_the_same_on_every_machine(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "benchmark-v1", images={"train": 1, "val": 1})
    digests = json.loads((tmp_path / "manifest.json").read_text())["files"]
    first = digests["images/train2017/000000000001.jpg"]
    assert first[:12] == LARGE_FIRST


def test_the_number_of_processes_and_a_second_run_change_nothing(
    made: Path, copy: Path, tmp_path: Path
) -> None:
    write_benchmark(tmp_path / "two", SMALL, images=COUNTS, workers=2)
    manifest = (made / "manifest.json").read_bytes()
    assert (tmp_path / "two" / "manifest.json").read_bytes() == manifest
    assert write_benchmark(copy, SMALL, images=COUNTS) == 0
    (copy / "manifest.json").unlink()
    assert write_benchmark(copy, SMALL, images=COUNTS) == 0
    assert (copy / "manifest.json").read_bytes() == manifest
    (copy / "json" / "crowdpose_val.json").unlink()
    assert write_benchmark(copy, SMALL, images=COUNTS) == 2
    assert (copy / "manifest.json").read_bytes() == manifest


def test_both_forms_label_the_same_images_and_people_with_heights(made: Path) -> None:
    for split in COUNTS:
        coco = json.loads((made / f"annotations/person_keypoints_{split}2017.json").read_text())
        crowd = json.loads((made / f"json/crowdpose_{split}.json").read_text())
        for a, b in zip(coco["images"], crowd["images"], strict=True):
            assert (made / f"images/{split}2017" / a["file_name"]).is_file()
            assert b["file_name"] == f"{split}2017/{a['file_name']}"
            assert (made / "images" / b["file_name"]).is_file() and "crowdIndex" in b
        for a, b in zip(coco["annotations"], crowd["annotations"], strict=True):
            assert a["id"] == b["id"] and a["height"] == b["height"] > 15 and not a["iscrowd"]
            assert len(a["keypoints"]) == 51 and len(b["keypoints"]) == 42
            assert a["keypoints"][15:18] == b["keypoints"][:3]  # the left shoulder


@pytest.mark.parametrize("name", BENCHMARKS)
def test_heights_span_one_to_twelve_and_images_are_empty_to_crowded(name: str) -> None:
    benchmark = BENCHMARKS[name]
    side = benchmark.levels[0].width[1]
    calm = replace(benchmark.levels[0], people=(12, 12), clutter=0.0, distractors=(0, 0))
    heights = [p.height / side for i in range(8) for p in render_scene(0, i, calm)[1]]
    assert 0.078 <= min(heights) < 0.1 and 0.85 < max(heights) <= 0.98
    assert 0.35 < np.mean(np.array(heights) < np.sqrt(0.078 * 0.98)) < 0.65  # log-uniform
    assert max(heights) / min(heights) > 9 and 0.98 / 0.078 > 12
    overlaps = [level.overlap for level in benchmark.levels]
    assert overlaps[0] == 0 and overlaps == sorted(overlaps) and overlaps[-1] >= 0.8


def test_a_part_is_not_the_whole_set(made: Path) -> None:
    (problem,) = verify_benchmark(made)
    assert problem.startswith(
        "manifest.json: {'train': 4, 'val': 2} images; benchmark-v1-small has"
    )


@pytest.mark.usefixtures("part_is_whole")
def test_every_difference_is_named(copy: Path) -> None:
    (copy / ".hidden").write_text("")
    assert verify_benchmark(copy) == []
    (copy / "images/val2017/new.jpg").write_bytes(b"")
    (copy / "images/train2017/000000000001.jpg").unlink()
    with (copy / "json/crowdpose_val.json").open("a") as file:
        file.write(" ")
    assert verify_benchmark(copy) == [
        "images/train2017/000000000001.jpg: missing",
        "images/val2017/new.jpg: not in the manifest",
        "json/crowdpose_val.json: differs from the manifest",
    ]


@pytest.mark.usefixtures("part_is_whole")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0"}, "its list of files differs from its own sha256"),
        ({"name": "mine"}, "'mine' is not one of benchmark-v1"),
        ({"name": ["mine"]}, "is not one of benchmark-v1"),
    ],
)
def test_a_changed_manifest_is_named(copy: Path, change: dict, message: str) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert any(message in problem for problem in verify_benchmark(copy))


@pytest.mark.usefixtures("part_is_whole")
def test_a_set_made_by_another_program_is_named(copy: Path) -> None:
    """Its files agree with its own manifest, but not with the published digest."""
    image = copy / "images/val2017/000001000001.jpg"
    image.write_bytes(image.read_bytes() + b" ")
    (copy / "manifest.json").unlink()
    write_benchmark(copy, SMALL, images=COUNTS)
    (problem,) = verify_benchmark(copy)
    assert "benchmark-v1-small has" in problem


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "mine",
        '{"files": {}, "images": {}}',
        '{"files": [[1, 2]], "name": "mine", "images": {}, "sha256": ""}',
        "[" * 100_000,
    ],
)
def test_another_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SyntheticError, match="manifest.json: cannot be read") as error:
        verify_benchmark(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "has no lists images and annotations"),
        ("\xff", "cannot be r"),
    ],
)
def test_a_damaged_part_of_crowdposes_format_is_named(tmp_path: Path, text: str, said: str) -> None:
    """It is read again where both parts are joined."""
    numbers = {"num_train": 1, "num_val": 1, "settings": TINY}
    write_dataset(tmp_path, format="crowd_pose", **numbers)
    (tmp_path / "json/crowdpose_trainval.json").unlink()
    part = tmp_path / "json/crowdpose_val.json"
    part.write_text(text, encoding="latin-1")
    with pytest.raises(SyntheticError, match=f"^{part}: {said}.*; remove it to have it made again"):
        write_dataset(tmp_path, format="crowd_pose", **numbers)
    part.unlink()
    write_dataset(tmp_path, format="crowd_pose", **numbers)
    joined = json.loads((tmp_path / "json/crowdpose_trainval.json").read_text())
    assert len(joined["images"]) == 2


def test_what_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SyntheticError, match="'calm' must be one of benchmark-v1"):
        write_benchmark(tmp_path, "calm")
    with pytest.raises(SyntheticError, match="manifest.json: cannot be read"):
        verify_benchmark(tmp_path)
    with pytest.raises(SyntheticError, match="train: 0 images"):
        write_benchmark(tmp_path, SMALL, images={"train": 0})


@pytest.fixture
def tool():
    return importlib.import_module("swahr.commands.synthetic")


@pytest.mark.usefixtures("part_is_whole")
def test_the_tool_makes_and_verifies_a_benchmark(tool, copy: Path, capsys) -> None:
    make = ["--out", str(copy), "--preset", SMALL, "--workers", "1"]
    assert tool.main(make) == 0
    assert "nothing to do" in capsys.readouterr().out
    for path in (copy / "images/train2017").iterdir():
        path.write_bytes(b"")
    assert tool.main(["--out", str(copy), "--verify"]) == 1
    assert "differs from the manifest\n" in capsys.readouterr().out


@pytest.mark.parametrize("flag", [["--seed", "0"], ["--train", "5"], ["--size", "64"]])
def test_the_tool_refuses_to_change_a_benchmark(tool, capsys, flag: list[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main(["--preset", SMALL, *flag])
    assert f"{flag[0]}: {SMALL} is fixed" in capsys.readouterr().err


def test_the_tool_names_a_folder_without_a_manifest(tool, tmp_path: Path, capsys) -> None:
    assert status_of(tool.main, ["--out", str(tmp_path), "--verify"]) == 2
    assert "manifest.json: cannot be read" in capsys.readouterr().err
