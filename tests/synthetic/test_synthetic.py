"""Synthetic people are the same every time; labels agree with the image and with each other."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO as CocoIndex

from swahr.commands import synthetic
from swahr.skeleton import COCO, CROWD_POSE, Skeleton
from swahr.synthetic import (
    PRESETS,
    Person,
    SceneSettings,
    SyntheticError,
    dataset,
    render_scene,
    write_dataset,
)
from swahr.synthetic.dataset import crowd_index
from swahr.synthetic.figure import POINT, face_visible, sample_figure, to_pixels
from swahr.synthetic.outfit import COOL, WARM, sample_outfit
from swahr.synthetic.paint import figure_shapes, joint_visible
from swahr.synthetic.shapes import PARTS, paint

BUSY = replace(
    PRESETS["benchmark"],
    width=(160, 200),
    height=(120, 160),
    people=(3, 6),
    unlabelled=0.3,
    crowd=0.6,
)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def coco_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    assert write_dataset(root, num_train=12, num_val=2, seed=3, settings=BUSY) == 14
    return root


@pytest.fixture(scope="module")
def crowd_pose_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crowd_pose")
    assert (
        write_dataset(
            root, num_train=3, num_val=2, num_test=1, seed=3, format="crowd_pose", settings=BUSY
        )
        == 6
    )
    return root


# -- scenes


def test_a_scene_depends_on_seed_and_index_only() -> None:
    first, people = render_scene(1, 7, BUSY)
    render_scene(1, 8, BUSY)
    again, same = render_scene(1, 7, BUSY)
    np.testing.assert_array_equal(first, again)
    for a, b in zip(people, same, strict=True):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        np.testing.assert_array_equal(a.mask, b.mask)
    for other in (render_scene(2, 7, BUSY)[0], render_scene(1, 8, BUSY)[0]):
        assert other.shape != first.shape or (other != first).any()


@pytest.mark.parametrize(
    ("preset", "expected"), [("calm", "633ddfc7c7de8ed3"), ("benchmark", "36a642b88d3d861b")]
)
def test_scenes_are_the_same_on_every_machine(preset: str, expected: str) -> None:
    """An intended change also raises dataset.VERSION, so that old sets on disk are recognised."""
    digest = hashlib.sha256()
    for index in range(3):
        image, people = render_scene(0, index, PRESETS[preset])
        for part in (image, *(person.keypoints for person in people)):
            digest.update(part.tobytes())
    assert digest.hexdigest()[:16] == expected


def test_opencv_threads_do_not_change_the_image() -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = render_scene(1, 7, BUSY)[0]
        cv2.setNumThreads(4)
        np.testing.assert_array_equal(alone, render_scene(1, 7, BUSY)[0])
    finally:
        cv2.setNumThreads(threads)


def test_keypoints_lie_in_the_image_and_visible_ones_on_the_person() -> None:
    flags = np.zeros(3, int)
    for index in range(12):
        image, people = render_scene(0, index, BUSY)
        for person in people:
            x, y, flag = person.keypoints.T
            flags += np.bincount(flag.astype(int), minlength=3)
            assert (person.keypoints[flag == 0] == 0).all()
            assert (
                (x >= 0).all()
                and (y >= 0).all()
                and (x < image.shape[1]).all()
                and (y < image.shape[0]).all()
            )
            seen = flag == 2
            assert person.mask[np.round(y[seen]).astype(int), np.round(x[seen]).astype(int)].all()
    assert (flags > 20).all()


def test_masks_do_not_overlap_and_lie_in_their_boxes() -> None:
    for index in range(6):
        _, people = render_scene(0, index, BUSY)
        assert np.sum([person.mask for person in people], axis=0).max() <= 1
        for person in people:
            x, y, w, h = person.box
            rows, columns = np.nonzero(person.mask)
            assert (
                x <= columns.min()
                and y <= rows.min()
                and columns.max() < x + w
                and rows.max() < y + h
            )


def test_both_skeletons_describe_the_same_people() -> None:
    settings = replace(BUSY, unlabelled=0.0)
    image, coco = render_scene(0, 4, settings, COCO)
    same, crowd = render_scene(0, 4, settings, CROWD_POSE)
    np.testing.assert_array_equal(image, same)
    shared = [CROWD_POSE.keypoints.index(name) for name in COCO.keypoints[5:]]
    for a, b in zip(coco, crowd, strict=True):
        np.testing.assert_array_equal(a.keypoints[5:], b.keypoints[shared])


def test_sizes_span_from_25_pixels_to_the_image() -> None:
    settings = replace(
        PRESETS["benchmark"],
        width=(320, 320),
        height=(320, 320),
        upright=1.0,
        people=(4, 4),
        cut_off=0.0,
        unlabelled=0.0,
        crowd=0.0,
        clutter=0.0,
    )
    heights = np.array(
        [p.box[3] for index in range(10) for p in render_scene(0, index, settings)[1]]
    )
    assert 18 <= heights.min() < 45 and heights.max() > 230
    assert 0.3 < np.mean(heights < 90) < 0.7  # the middle of log(25 .. 320) is 89


# -- figures


@pytest.mark.parametrize("back", [False, True])
def test_left_and_right(back: bool) -> None:
    """From the front, the left side is on the right of the image. Marks are warm on the left side
    and cool on the right side.
    """
    rng = np.random.default_rng(0)
    for _ in range(6):
        figure = sample_figure(rng, upright=True, back=back, turn=30)
        at = to_pixels(figure, 200, (150, 130))
        for joint in ("shoulder", "hip"):
            assert (at[POINT["left_" + joint], 0] < at[POINT["right_" + joint], 0]) == back
        outfit = sample_outfit(rng, marked=True)
        assert outfit.marks[0] in WARM and outfit.marks[1] in COOL
        image = np.zeros((300, 300, 3), np.uint8)
        parts = np.zeros((300, 300), np.uint8)
        paint(figure_shapes(figure, outfit, at, 200), image, parts)
        visible = joint_visible(at, parts)
        for i, side in enumerate(("left", "right")):
            hand = PARTS.index(f"{side}_hand")
            colors = {tuple(color) for color in image[parts == hand].tolist()}
            assert outfit.marks[i] in colors or not visible[POINT[f"{side}_hand"]]
            assert outfit.marks[1 - i] not in colors


def test_faces_show_from_the_front_only() -> None:
    rng = np.random.default_rng(1)
    front = [face_visible(sample_figure(rng, upright=True, back=False, turn=20)) for _ in range(10)]
    back = [face_visible(sample_figure(rng, upright=True, back=True, turn=20)) for _ in range(10)]
    assert np.all([seen[:3] for seen in front]) and not np.any([seen[:3] for seen in back])
    assert np.mean([seen[3:] for seen in back]) > 0.5


def test_an_arm_behind_the_back_is_hidden() -> None:
    """In any pose, the flags agree with the part that was painted last at the joint."""
    rng = np.random.default_rng(2)
    hidden = 0
    for _ in range(10):
        figure = sample_figure(rng, upright=False, back=False, turn=90)
        at = to_pixels(figure, 150, (150, 150))
        image = np.zeros((300, 300, 3), np.uint8)
        parts = np.zeros((300, 300), np.uint8)
        paint(figure_shapes(figure, sample_outfit(rng, marked=False), at, 150), image, parts)
        visible = joint_visible(at, parts)
        for side in ("left", "right"):
            x, y = np.round(at[POINT[side + "_wrist"]]).astype(int)
            own = PARTS[parts[y, x]] in (side + "_hand", side + "_forearm")
            assert visible[POINT[side + "_wrist"]] == own
            hidden += not own
    assert hidden


# -- COCO


def test_coco_annotations_are_consistent(coco_set: Path) -> None:
    index = CocoIndex(str(coco_set / "annotations/person_keypoints_train2017.json"))
    assert len(index.imgs) == 12 and list(index.cats.values())[0]["keypoints"] == list(
        COCO.keypoints
    )
    kinds = {"labelled": 0, "unlabelled": 0, "crowd": 0}
    for annotation in index.anns.values():
        image = index.imgs[annotation["image_id"]]
        mask = index.annToMask(annotation)
        x, y, w, h = annotation["bbox"]
        rows, columns = np.nonzero(mask)
        assert mask.sum() == annotation["area"] > 0
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (
            x,
            y,
            x + w,
            y + h,
        )
        assert x >= 0 and y >= 0 and x + w <= image["width"] and y + h <= image["height"]
        keypoints = np.reshape(annotation["keypoints"], (-1, 3))
        assert len(keypoints) == 17 and annotation["num_keypoints"] == (keypoints[:, 2] > 0).sum()
        assert isinstance(annotation["segmentation"], dict if annotation["iscrowd"] else list)
        kinds[
            "crowd"
            if annotation["iscrowd"]
            else "labelled"
            if annotation["num_keypoints"]
            else "unlabelled"
        ] += 1
    assert all(kinds.values()) and 0 not in index.anns


def test_polygons_follow_the_mask(coco_set: Path) -> None:
    index = CocoIndex(str(coco_set / "annotations/person_keypoints_train2017.json"))
    for image_id in list(index.imgs)[:4]:
        _, people = render_scene(3, image_id, BUSY)
        for person, annotation in zip(people, index.imgToAnns[image_id], strict=True):
            mask = index.annToMask(annotation).astype(bool)
            if person.mask.sum() > 200:
                assert (mask & person.mask).sum() > 0.85 * (mask | person.mask).sum()
            if person.crowd:
                np.testing.assert_array_equal(mask, person.mask)


def test_images_are_there_and_of_their_size(coco_set: Path) -> None:
    for split in ("train2017", "val2017"):
        data = json.loads((coco_set / f"annotations/person_keypoints_{split}.json").read_text())
        for entry in data["images"]:
            assert cv2.imread(str(coco_set / "images" / split / entry["file_name"])).shape == (
                entry["height"],
                entry["width"],
                3,
            )


# -- CrowdPose


def test_crowd_pose_tree(crowd_pose_set: Path) -> None:
    found = {
        split: json.loads((crowd_pose_set / f"json/crowdpose_{split}.json").read_text())
        for split in ("train", "val", "test", "trainval")
    }
    assert found["trainval"]["images"] == found["train"]["images"] + found["val"]["images"]
    assert (
        found["trainval"]["annotations"]
        == found["train"]["annotations"] + found["val"]["annotations"]
    )
    assert len(list((crowd_pose_set / "images").glob("*.jpg"))) == 6
    assert len(
        {annotation["id"] for split in found for annotation in found[split]["annotations"]}
    ) == len(found["trainval"]["annotations"]) + len(found["test"]["annotations"])
    for entry in found["test"]["images"]:
        _, people = render_scene(
            3, entry["id"], replace(BUSY, unlabelled=0.0, crowd=0.0), CROWD_POSE
        )
        assert entry["crowdIndex"] == crowd_index(people)
    for annotation in found["trainval"]["annotations"]:
        assert set(annotation) == {
            "bbox",
            "iscrowd",
            "num_keypoints",
            "keypoints",
            "image_id",
            "category_id",
            "id",
        }
        assert len(annotation["keypoints"]) == 42 and not annotation["iscrowd"]


def slow_crowd_index(people: list[Person]) -> float:
    ratios = []
    for i, person in enumerate(people):
        x, y, w, h = person.box
        own = others = 0
        for j, other in enumerate(people):
            for px, py, flag in other.keypoints:
                if flag > 0 and x <= px <= x + w and y <= py <= y + h:
                    own, others = (own + 1, others) if i == j else (own, others + 1)
        if (person.keypoints[:, 2] > 0).any():
            ratios.append(others / max(own, 1))
    return min(1.0, sum(ratios) / len(ratios)) if ratios else 0.0


def test_crowd_index_against_loops() -> None:
    values = []
    for index in range(8):
        _, people = render_scene(5, index, BUSY, CROWD_POSE)
        values.append(crowd_index(people))
        assert values[-1] == pytest.approx(slow_crowd_index(people), abs=1e-4)
    assert len(set(values)) > 3 and crowd_index([]) == 0.0


# -- writing again


def test_any_number_of_processes_writes_the_same_files(coco_set: Path, tmp_path: Path) -> None:
    assert write_dataset(tmp_path, num_train=12, num_val=2, seed=3, settings=BUSY, workers=2) == 14
    assert files(tmp_path) == files(coco_set)


def test_the_processes_that_draw_leave_ctrl_c_to_the_main_one() -> None:
    with dataset._pool(2) as mapper:
        assert list(mapper(signal.getsignal, [signal.SIGINT])) == [signal.SIG_IGN]


def test_a_complete_set_is_kept_and_a_broken_one_completed(tmp_path: Path) -> None:
    given = {"num_train": 3, "num_val": 1, "settings": replace(BUSY, people=(1, 1))}
    write_dataset(tmp_path, **given)
    whole = files(tmp_path)
    assert write_dataset(tmp_path, **given) == 0
    (tmp_path / "images/train2017/000000000002.jpg").unlink()
    assert write_dataset(tmp_path, **given) == 3
    (
        tmp_path / "annotations/person_keypoints_val2017.json"
    ).unlink()  # as after a run that was killed
    assert write_dataset(tmp_path, **given) == 1
    assert files(tmp_path) == whole


def test_another_set_in_the_folder_is_kept(tmp_path: Path) -> None:
    settings = replace(BUSY, people=(0, 0), crowd=0.0)
    write_dataset(tmp_path / "a", num_train=1, num_val=1, settings=settings)
    before = files(tmp_path)
    with pytest.raises(SyntheticError, match="seed: 0 there, 1 wanted"):
        write_dataset(tmp_path / "a", num_train=1, num_val=1, seed=1, settings=settings)
    with pytest.raises(SyntheticError, match="overlap: 0.35 there, 0.5 wanted"):
        write_dataset(
            tmp_path / "a", num_train=1, num_val=1, settings=replace(settings, overlap=0.5)
        )
    (tmp_path / "a" / "synthetic.json").rename(tmp_path / "stamp")
    with pytest.raises(SyntheticError, match="is not part of a synthetic set"):
        write_dataset(tmp_path / "a", num_train=1, num_val=1, settings=settings)
    (tmp_path / "stamp").rename(tmp_path / "a" / "synthetic.json")
    assert files(tmp_path) == before


def test_an_image_with_nobody(tmp_path: Path) -> None:
    settings = replace(BUSY, people=(0, 0), crowd=0.0, width=(16, 16), height=(16, 16))
    write_dataset(
        tmp_path, num_train=1, num_val=1, num_test=1, format="crowd_pose", settings=settings
    )
    data = json.loads((tmp_path / "json/crowdpose_val.json").read_text())
    assert data["annotations"] == [] and data["images"][0]["crowdIndex"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "mpii"}, "format: 'mpii' must be one of coco, crowd_pose"),
        ({"num_train": 0}, "train: 0 images; it must be from 1 to"),
        ({"workers": 0}, "workers: 0 must be 1 or more"),
    ],
)
def test_invalid_arguments(tmp_path: Path, given: dict, message: str) -> None:
    with pytest.raises(SyntheticError, match=message):
        write_dataset(tmp_path, **{"num_train": 1, "num_val": 1, **given})


def test_settings_out_of_range() -> None:
    with pytest.raises(
        SyntheticError, match="width: .300, 200. must be .min, max., with 16 <= min"
    ):
        SceneSettings(width=(300, 200))
    with pytest.raises(SyntheticError, match="overlap: 1.5 must be between 0 and 1"):
        SceneSettings(overlap=1.5)
    with pytest.raises(SyntheticError, match="min_pixels: 1 must be at least 8"):
        SceneSettings(min_pixels=1)
    with pytest.raises(SyntheticError, match="people: .0, 201. must not exceed 200"):
        SceneSettings(people=(0, 201))
    tail = Skeleton(name="cat", keypoints=("nose", "tail"), flip_pairs=(), sigmas=(0.1, 0.1))
    with pytest.raises(SyntheticError, match="skeleton cat: synthetic people have no 'tail'"):
        render_scene(0, 0, BUSY, tail)


def test_a_pipe_gets_lines_and_no_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--train", "2", "--val", "1", "--size", "64", "--workers", "1"]
    assert synthetic.main(["--out", str(tmp_path), *given]) == 0
    printed = capsys.readouterr()
    assert "train: 2 of 2 images\n" in printed.err and "\r" not in printed.err
    assert f"{tmp_path}: 3 images" in printed.out
