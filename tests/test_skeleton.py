from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swahr.skeleton import (
    COCO,
    CROWD_POSE,
    MissingSigmas,
    Skeleton,
    SkeletonError,
    dataset_names,
    get_skeleton,
    load_skeleton,
    skeleton_yaml,
)


@pytest.mark.parametrize("skeleton", [COCO, CROWD_POSE])
def test_mirroring_twice_changes_nothing_and_swaps_sides(skeleton: Skeleton) -> None:
    index = skeleton.flip_index
    assert [index[i] for i in index] == list(range(skeleton.num_keypoints))
    for i, name in enumerate(skeleton.keypoints):
        swapped = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert skeleton.keypoints[index[i]] == swapped


def test_files_are_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for start in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(start + "keypoints: [né, b]\nsigmas: [.1, .1]\n".encode())
        assert load_skeleton(path).keypoints == ("né", "b")


@pytest.mark.parametrize(
    ("entry", "name"), [("", "hand"), ("name:", "hand"), ("name: ' '", "hand"), ("name: 7", "7")]
)
def test_without_a_name_it_is_that_of_the_file(tmp_path: Path, entry: str, name: str) -> None:
    path = tmp_path / "hand.yaml"
    path.write_text(f"keypoints: [a]\nsigmas: [.1]\nflip_pairs:\n{entry}\n")
    assert load_skeleton(path).name == name


def test_a_keypoint_with_the_name_of_the_centre_is_named() -> None:
    own = Skeleton("mouse", ("tail", "center"), (), (0.1, 0.1))
    said = (
        r"^skeleton 'mouse': center is the name of the added centre \(DATASET.WITH_CENTER\); give"
    )
    with pytest.raises(SkeletonError, match=said):
        own.with_center()


def test_center_is_last_and_grouped_first() -> None:
    person = COCO.with_center()
    assert person.num_keypoints == 18 and person.keypoints[17] == "center"
    assert person.grouping_order[0] == 17 and person.grouping_order[1:] == COCO.grouping_order
    assert person.flip_index[17] == 17


def test_skeleton_from_yaml_by_name_and_by_index(tmp_path: Path) -> None:
    path = tmp_path / "hand.yaml"
    path.write_text(
        "keypoints: [wrist, left_tip, right_tip]\nsigmas: [.1, .05, 5.0e-2]\n"
        "flip_pairs: [[left_tip, right_tip]]\nlimbs: [[0, left_tip], [0, 2]]\n"
        "colors: ['#ff8000', '#00FF00', '#0000ff']\n"
    )
    hand = get_skeleton(str(path))
    assert hand == Skeleton(
        "hand",
        keypoints=("wrist", "left_tip", "right_tip"),
        flip_pairs=((1, 2),),
        sigmas=(0.1, 0.05, 0.05),
        limbs=((0, 1), (0, 2)),
        grouping_order=(0, 1, 2),
        colors=((255, 128, 0), (0, 255, 0), (0, 0, 255)),
    )
    assert hand.flip_index == (0, 2, 1)
    assert hand.with_center().colors == (*hand.colors, (255, 128, 0))
    path.write_text(skeleton_yaml(hand))
    assert load_skeleton(path) == hand


@pytest.mark.parametrize(
    "text, message",
    [
        ("keypoints: [a\n", "cannot be read as YAML"),
        ("sigmas: [.1]\n", "needs the entries keypoints and sigmas"),
        ("keypoints: [a]\nsigmas: [.1]\ncolour: red\n", "unknown entry 'colour'"),
        ("keypoints: [a]\nsigmas: [.1]\ncolors: [red]\n", "colors: 'red' is not a colour such as"),
        ("keypoints: [a]\nsigmas: [.1]\ncolors: [1, 2]\n", "colors: 1 is not a colour such as"),
        (
            "keypoints: [a, b]\nsigmas: [.1, .1]\ncolors: ['#ffffff']\n",
            "colors has 1 value; it needs 2, or none",
        ),
        (
            "keypoints: [a, b]\nsigmas: [.1, .1]\nflip_pairs: [[a, c]]\n",
            "'c' is neither a keypoint's name",
        ),
        ("keypoints: [a, b]\nsigmas: [.1, .1]\nlimbs: [[a, b, a]]\n", "not a pair"),
        (
            "keypoints: [a, b]\nsigmas: [.1, .1]\nlimbs: [[a, yes]]\n",
            "True is neither a keypoint's",
        ),
        ("keypoints: [a, no]\nsigmas: [.1, .1]\n", "keypoints: False is no name; put it in quotes"),
        ("keypoints: [2, 1]\nsigmas: [.1, .1]\nlimbs: [[0, 1]]\n", "1 is an index and the name of"),
        ("keypoints: 3\nsigmas: [.1]\n", "keypoints must be a list, not 3"),
        ("keypoints: [a, b]\nsigmas: x\n", "sigmas must be a list, not 'x'"),
        ("keypoints: [a, b]\nsigmas: [x, 1]\n", "sigmas must be a list of numbers"),
        ("keypoints: [a, b]\nsigmas: [.1, .1]\nlimbs: 3\n", "limbs must be a list, not 3"),
        ("keypoints: [a, b]\nsigmas: [.1]\n", "sigmas has 1 value; it needs 2, one for each"),
        ("keypoints: [a, a]\nsigmas: [.1, .1]\n", "a name twice"),
        ("keypoints: []\nsigmas: []\n", "keypoints is empty"),
        (
            "keypoints: [a, b]\nsigmas: [.1, .nan]\n",
            "sigmas: nan of 'b' must be above 0 and finite",
        ),
        ("keypoints: [a, b]\nsigmas: [0, .1]\n", "sigmas: 0 of 'a' must be above 0 and finite"),
        (
            "keypoints: [a, b]\nsigmas: [.1, .1]\ngrouping_order: [a]\n",
            "each index from 0 to 1 once",
        ),
        (
            "keypoints: [a, b]\nsigmas: [.1, .1]\nflip_pairs: [[a, b], [b, a]]\n",
            "flip_pairs names a keypoint twice",
        ),
        ("keypoints: [a]\nsigmas: [.1]\nkeypoints: [b]\n", "keypoints is given twice"),
        ("keypoints: [a, b]\nsigmas: [true, .1]\n", "sigmas must be a list of numbers, not .True"),
        ("keypoints: ['', b]\nsigmas: [.1, .1]\n", "keypoints has an empty name"),
        ("keypoints: [' ', b]\nsigmas: [.1, .1]\n", "keypoints has an empty name"),
        ("keypoints: [a, b]\nsigmas: [.1, .1]\nlimbs: [[a, a]]\n", "from a keypoint to itself"),
        ("keypoints: [a]\nsigmas: [.1]\nname: 2024-99-99\n", "YAML .month must be in 1..12"),
        ("keypoints: [a]\nsigmas: [.1]\nname: [a]\n", r"name: \['a'\] is no name; put it in quo"),
        ("keypoints: [a]\nsigmas: [.1]\nname: no\n", "name: False is no name; put it in quotes"),
        ("keypoints: [a]\nsigmas: [.1]\nflip_pairs: false\n", "flip_pairs must be a list, not F"),
        ("keypoints: [a]\nsigmas: [.1]\nlimbs: ''\n", "limbs must be a list, not ''"),
        ("keypoints: [a]\nsigmas: [.1]\ncolors: {}\n", "colors must be a list, not {}"),
        ("keypoints: [a]\nsigmas: [.1]\nname: !!bool x\n", "cannot be read as YAML"),
        ("keypoints: " + "[" * 5000, "cannot be read as YAML"),
    ],
)
def test_a_wrong_skeleton_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "skeleton.yaml"
    path.write_text(text)
    with pytest.raises(SkeletonError, match=message) as error:
        load_skeleton(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("keypoints: [a]\n\tsigmas: [.1]\n", 2),
        ("keypoints: [a]\nsigmas: [.1]\nkeypoints: [b]\n", 3),
    ],
)
def test_the_line_of_a_mistake_is_named(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "skeleton.yaml"
    path.write_text(text)
    with pytest.raises(SkeletonError, match=f"^{path}:{line}: cannot be read as YAML "):
        load_skeleton(path)


def test_sigmas_may_be_missing_where_they_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "hand.yaml"
    path.write_text("keypoints: [wrist, tip]\n")
    assert load_skeleton(path, default_sigma=0.05).sigmas == (0.05, 0.05)
    with pytest.raises(MissingSigmas, match=f"--skeleton {path} --suggest-sigmas` prints it$"):
        load_skeleton(path)
    path.write_text("keypoints: [wrist, tip]\nsigmas: [.1, .2]\n")
    assert load_skeleton(path, default_sigma=0.05).sigmas == (0.1, 0.2)


@pytest.mark.parametrize("content", [b"keypoints: [n\xe9z]", b"\xff\xfek\x00e", b"a\x00"])
def test_a_file_in_another_encoding_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "skeleton.yaml"
    path.write_bytes(content)
    with pytest.raises(SkeletonError) as error:
        load_skeleton(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}: cannot be read")


def test_a_path_without_a_file_is_no_unknown_name(tmp_path: Path) -> None:
    for name in ("hand.yaml", f"{tmp_path}/hand"):
        with pytest.raises(SkeletonError, match=f"^skeleton {name}: no such file$"):
            get_skeleton(name)
    with pytest.raises(SkeletonError, match=f"^skeleton {tmp_path}: is a folder, not a file$"):
        get_skeleton(str(tmp_path))


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(SkeletonError, match="one of coco, crowd_pose, or the path"):
        get_skeleton("coco18")
    with pytest.raises(SkeletonError, match="keypoint 9"):
        Skeleton("x", ("a",), (), (0.1,), limbs=((0, 9),))


@pytest.mark.parametrize("sigma", [".nan", ".inf", "-0.1", "0", "1" + "0" * 400])
def test_sigmas_that_are_no_fractions(tmp_path: Path, sigma: str) -> None:
    (tmp_path / "own.yaml").write_text(f"keypoints: [a, b]\nsigmas: [0.1, {sigma}]\n")
    with pytest.raises(SkeletonError, match="sigmas") as error:
        load_skeleton(tmp_path / "own.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    text = "keypoints: [n\u00e9z, b]\nsigmas: [0.1, 0.1]\n"
    (tmp_path / "own.yaml").write_text(text, encoding=encoding)
    assert load_skeleton(tmp_path / "own.yaml").keypoints == ("n\u00e9z", "b")


def test_data_sets_are_named_by_the_skeleton() -> None:
    assert dataset_names(COCO) == ("coco_kpt", "coco")
    assert dataset_names(CROWD_POSE) == ("crowd_pose_kpt", "crowd_pose")
    other = Skeleton("crowd_pose", ("a",), (), (0.1,))
    assert dataset_names(other) == ("own_crowd_pose", "own_crowd_pose")
    assert dataset_names(replace(other, name="../a b")) == ("_a_b", "_a_b")
    assert dataset_names(replace(other, name="..")) == ("own", "own")
