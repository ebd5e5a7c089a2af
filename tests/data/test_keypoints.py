"""What a data set gives for an image, and the trees it is found in."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO as Index
from yacs.config import CfgNode

from swahr.data.annotation_report import AnnotationError
from swahr.data.images import ImageError, read_image
from swahr.data.keypoints import KeypointDataset, ScaleSigma, build_dataset
from swahr.data.loaders import TrainingSet, collate
from swahr.data.transforms import Affine
from swahr.skeleton import COCO, CROWD_POSE
from tests.data.test_image_header import jpeg

Tree = Callable[..., Path]
Made = Callable[..., dict[str, Any]]
UNLABELLED: dict[str, Any] = {"keypoints": [0] * 51, "num_keypoints": 0}
TRAIN = ("annotations/person_keypoints_train2017.json", "images/train2017")


def opened(root: Path, **options: Any) -> KeypointDataset:
    return KeypointDataset(root / TRAIN[0], root / TRAIN[1], COCO, **options)


def settings(root: Path, **data: Any) -> CfgNode:
    values = {
        "ROOT": str(root),
        "DATASET": "coco_kpt",
        "DATASET_TEST": "coco",
        "DATA_FORMAT": "jpg",
        "SKELETON": "",
        "CATEGORIES": [""],
        "NEGATIVES": False,
        "TRANSFORMS": ["affine", "flip"],
        "FLIP": 0.5,
        "STRICT": True,
        "MIN_KEYPOINTS": 0,
        "WITH_CENTER": False,
        "SCALE_AWARE_SIGMA": False,
        "BASE_SIZE": 256.0,
        "BASE_SIGMA": 2.0,
        "INT_SIGMA": False,
    }
    return CfgNode({"DATASET": CfgNode(values | data)})


def test_images_and_people(tree: Tree) -> None:
    dataset = opened(tree())
    assert dataset.image_ids == [10, 11, 12, 13] and len(dataset) == 4
    assert dataset.category_id == 1 and dataset.has_annotations
    assert dataset.image_info(12) == (12, "12.png", 64, 48)
    assert [dataset.joints(i).shape for i in dataset.image_ids] == [
        (n, 17, 3) for n in (1, 0, 2, 31)
    ]
    assert dataset.joints(13).dtype == np.float32
    assert all((dataset.joints(i)[:, 0] == (20, 20, 2)).all() for i in (10, 12, 13))
    assert dataset.read(10).shape == (48, 64, 3)
    assert (
        dataset.coco["annotations"]
        == json.loads(dataset.annotation_file.read_text())["annotations"]
    )
    with pytest.raises(KeyError, match="no image 99"):
        dataset.joints(99)
    copy = pickle.loads(pickle.dumps(dataset))
    assert all(np.array_equal(copy.joints(i), dataset.joints(i)) for i in dataset.image_ids)


def test_which_images_train(tree: Tree, made: Made) -> None:
    data = made((1, 0, 2))
    for annotation in data["annotations"][1:]:
        annotation.update(UNLABELLED)
    root = tree(data)
    assert opened(root, require_people=True).image_ids == [10, 12]
    assert opened(root, min_keypoints=1).image_ids == [10]
    said = r"2017.json: no image with 18 labelled keypoints and a file is left to work with$"
    with pytest.raises(AnnotationError, match=said):
        opened(root, min_keypoints=18)
    for annotation in data["annotations"]:
        annotation.update(UNLABELLED)
    with pytest.raises(AnnotationError, match="no image with 1 labelled keypoint and a file is"):
        opened(tree(data), min_keypoints=1)


def test_a_crowd_trains_only_if_it_has_keypoints(tree: Tree, made: Made) -> None:
    data = made((3,))
    data["annotations"][0].update(iscrowd=1, **UNLABELLED)
    data["annotations"][1].update(iscrowd=1)
    assert len(opened(tree(data)).joints(10)) == 2


@pytest.mark.parametrize("keypoints", [None, []])
def test_a_crowd_needs_no_list_of_keypoints(tree: Tree, made: Made, keypoints: object) -> None:
    data = made((2,))
    data["annotations"][0].update(iscrowd=1, keypoints=keypoints, num_keypoints=0)
    dataset = opened(tree(data))
    assert len(dataset.joints(10)) == 1
    assert (dataset.mask(10) == 0).any()
    assert len(dataset.coco["annotations"]) == 2


def test_mask(tree: Tree, made: Made) -> None:
    """Crowds and people without keypoints are masked: polygons, and run lengths, as numbers or as
    text.
    """
    data = made((1, 1, 1, 1, 1))
    people = data["annotations"]
    spots = np.random.default_rng(0).random((48, 64)) < 0.2
    packed = run_lengths.encode(np.asfortranarray(spots, np.uint8))["counts"].decode()
    people[1].update(
        **UNLABELLED,
        segmentation=[[4, 4, 12, 4, 12, 12, 4, 12], [20, 20, 30, 20, 30, 30, 20, 30]],
    )
    people[2].update(
        iscrowd=1, segmentation={"size": [48, 64], "counts": [48 * 3, 10, 48 * 61 - 10]}
    )
    people[3].update(**UNLABELLED, iscrowd=1, segmentation={"size": [48, 64], "counts": packed})
    people[4].update(**UNLABELLED, segmentation=[])
    dataset = opened(tree(data))
    index = Index()
    index.dataset = data
    index.createIndex()
    masks = {i: dataset.mask(i) for i in dataset.image_ids}
    assert all(
        mask.shape == (48, 64) and mask.dtype == np.uint8 and mask.flags.c_contiguous
        for mask in masks.values()
    )
    assert masks[10].all() and masks[14].all()
    assert (masks[12] == 0).sum() == 10 and not masks[12][:10, 3].any()
    assert np.array_equal(masks[13], 1 - spots)
    for image_id, annotation in zip((11, 12), people[1:3]):
        assert np.array_equal(masks[image_id], 1 - index.annToMask(annotation))


def test_crowds_and_people_without_keypoints_that_have_no_outline_are_counted(
    tree: Tree, made: Made
) -> None:
    """Not those whose keypoints are learnt, or who are masked."""
    data = made((2, 4))
    people = data["annotations"]
    people[0].update(segmentation=[])
    people[1].update(iscrowd=1, segmentation=[])
    people[2].update(UNLABELLED)
    assert opened(tree(data)).report.notes == []
    people[3].update(UNLABELLED, segmentation=[])
    del people[4]["segmentation"]
    people[4].update(UNLABELLED)
    people[5].update(UNLABELLED, iscrowd=1, segmentation=[])
    [note] = opened(tree(data)).report.notes
    assert note.startswith("3 crowds and people without keypoints have no outline: training takes")
    people[3].update(segmentation=people[2]["segmentation"])
    people[5].update(segmentation=people[2]["segmentation"])
    [note] = opened(tree(data)).report.notes
    said = "1 crowd or person without keypoints has no outline: training takes it for background"
    assert note == said


def test_crowd_pose_has_no_outlines(shared: Path, tmp_path: Path) -> None:
    file = shared / "golden" / "crowdpose_subset.json"
    for image in json.loads(file.read_text())["images"]:
        (tmp_path / image["file_name"]).touch()
    dataset = KeypointDataset(file, tmp_path, CROWD_POSE)
    assert len(dataset) == 400 and dataset.category_id == 1
    assert all(dataset.mask(i).all() for i in dataset.image_ids[:5])


def test_every_real_image_is_read(shared: Path) -> None:
    for split in ("train2017", "val2017"):
        dataset = build_dataset(settings(shared / "data/coco_mini"), split, train=False)
        index = Index(str(dataset.annotation_file))
        for image_id in dataset.image_ids:
            info = index.imgs[image_id]
            people = index.imgToAnns[image_id]
            masked = np.zeros((info["height"], info["width"]), int)
            for person in people:
                if person["iscrowd"] or not person["num_keypoints"]:
                    masked += index.annToMask(person)
            assert np.array_equal(dataset.mask(image_id), masked < 0.5)
            kept = [p["keypoints"] for p in people if not p["iscrowd"] or p["num_keypoints"]]
            assert np.array_equal(
                dataset.joints(image_id), np.array(kept, np.float32).reshape(-1, 17, 3)
            )
    assert dataset.read(image_id).shape == (*masked.shape, 3)


def test_sigma_and_center(tree: Tree, made: Made) -> None:
    data = made((2,))
    data["annotations"][0]["bbox"] = [0, 0, 32, 16]
    points = np.zeros((17, 3))
    points[3], points[5] = (10, 20, 2), (30, 10, 1)
    data["annotations"][0]["keypoints"] = points.reshape(-1).tolist()
    data["annotations"][0]["num_keypoints"] = 2
    data["annotations"][1].update(keypoints=[7, 7, 0] * 17, num_keypoints=0)
    root = tree(data)
    joints = opened(root, with_center=True, sigma=ScaleSigma(64, 3.0)).joints(10)
    assert joints.shape == (2, 18, 4)
    assert joints[0, 17].tolist() == [20, 15, 1, 1.5] and joints[1, 17, :3].tolist() == [0, 0, 0]
    assert (joints[0, :, 3] == 1.5).all()
    assert (opened(root, sigma=ScaleSigma(64, 3.0, whole=True)).joints(10)[0, :, 3] == 2).all()


def test_an_image_of_another_size(tree: Tree, made: Made) -> None:
    data = made((1,))
    data["images"][0]["width"] = 66
    dataset = opened(tree(data))
    said = "the file has 64 x 48 pixels, the annotation file says 66 x 48"
    with pytest.raises(ImageError, match=rf"image 10: .*10\.png: {said}"):
        dataset.read(10)
    (dataset.images.root / "10.png").unlink()
    with pytest.raises(ImageError, match=r"image 10: .*10\.png: cannot be read"):
        dataset.read(10)


def test_a_file_much_larger_than_its_record_is_not_decoded(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PNG of some kilobytes can have a gigabyte of pixels."""
    dataset = opened(tree((1,)))
    cv2.imwrite(str(dataset.images.root / "10.png"), np.zeros((3000, 4000, 3), np.uint8))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    said = r"image 10: .*10\.png: the file has 4000 x 3000 pixels, the annotation file says 64 x 48"
    with pytest.raises(ImageError, match=said):
        dataset.read(10)


def turned(tree: Tree, made: Made, orientations: dict[int, int], **size: int) -> KeypointDataset:
    """Images of 64 x 48 stored px with EXIF orientations; size: what the annotation file says."""
    data = made((1,) * len(orientations))
    for image in data["images"]:
        image.update(file_name=f"{image['id']}.jpg", **size)
    for annotation in data["annotations"]:
        annotation["bbox"] = [2, 2, 40, 40]
    root = tree(data)
    for image_id, orientation in orientations.items():
        pixels = np.random.default_rng(image_id).integers(0, 256, (48, 64, 3), np.uint8)
        path = root / f"images/train2017/{image_id}.jpg"
        path.write_bytes(jpeg(orientation, pixels=pixels))
    return opened(root)


def test_an_exif_orientation_is_ignored_and_named_once(
    tree: Tree, made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = turned(tree, made, {10: 1, 11: 6, 12: 3})
    for image_id in (10, 11, 12, 11):
        stored = read_image(dataset.images.root / f"{image_id}.jpg")
        assert np.array_equal(dataset.read(image_id), stored)
    assert caplog.text.count("EXIF orientation") == 1
    assert "image 11" in caplog.text and "orientation 6 is ignored, because" in caplog.text
    assert [dataset.read_and_check(i)[1][:9] for i in (10, 11, 12)] == [
        "",
        "image 11:",
        "image 12:",
    ]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_exif_orientation_is_honoured_where_the_record_has_the_turned_size(
    tree: Tree, made: Made, caplog: pytest.LogCaptureFixture, orientation: int
) -> None:
    dataset = turned(tree, made, {10: orientation}, width=48, height=64)
    upright = read_image(dataset.images.root / "10.jpg", honour_exif=True)
    assert upright.shape == (64, 48, 3) and np.array_equal(dataset.read(10), upright)
    assert "EXIF" not in caplog.text and dataset.read_and_check(10)[1] == ""


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_other_orientations_do_not_excuse_a_wrong_size(
    tree: Tree, made: Made, orientation: int
) -> None:
    dataset = turned(tree, made, {10: orientation}, width=48, height=64)
    with pytest.raises(ImageError, match="64 x 48 pixels, the annotation file says 48 x 64"):
        dataset.read(10)


def test_negatives_train_if_asked_for(tree: Tree, made: Made) -> None:
    """Images without annotations; those whose people have too few keypoints are skipped as ever."""
    data = made((1, 0, 2, 0))
    for annotation in data["annotations"][1:]:
        annotation.update(UNLABELLED)
    root = tree(data)
    chosen = {
        (negatives, least): build_dataset(
            settings(root, NEGATIVES=negatives, MIN_KEYPOINTS=least), "train2017", train=True
        ).image_ids
        for negatives in (False, True)
        for least in (0, 1)
    }
    assert chosen == {
        (False, 0): [10, 12],
        (False, 1): [10],
        (True, 0): [10, 11, 12, 13],
        (True, 1): [10, 11, 13],
    }
    cfg = settings(root, NEGATIVES=True, MIN_KEYPOINTS=1)
    dataset = build_dataset(cfg, "train2017", train=True)
    transform = Affine(input_size=32, output_sizes=[8, 16])
    batch = collate([TrainingSet(dataset, transform)[0, i] for i in (1, 2)])
    assert all(not joints.any() for joints in batch.joints) and batch.masks[0].any()


def test_the_categories_of_the_configuration(tree: Tree, made: Made) -> None:
    data = made((1, 1))
    data["categories"].append({"id": 2, "name": "child", "keypoints": list(COCO.keypoints)})
    data["annotations"][1]["category_id"] = 2
    root = tree(data)
    for names, expected in (([""], [1, 1]), (["child"], [0, 1]), (["person", "child"], [1, 1])):
        dataset = build_dataset(settings(root, CATEGORIES=names), "train2017", train=False)
        assert [len(dataset.joints(i)) for i in (10, 11)] == expected


def test_strictness_is_that_of_the_configuration(tree: Tree, made: Made) -> None:
    data = made((1, 1))
    data["annotations"][0]["keypoints"] = [1, 2, 2]
    root = tree(data)
    with pytest.raises(AnnotationError, match="keypoints has 3 numbers"):
        build_dataset(settings(root), "train2017", train=False)
    dataset = build_dataset(settings(root, STRICT=False), "train2017", train=False)
    assert [len(dataset.joints(i)) for i in (10, 11)] == [0, 1]


def test_examples_have_people_where_anybody_is_labelled(tree: Tree, made: Made) -> None:
    data = made((0, 1, 0, 2, 1))
    assert opened(tree(data)).examples(2) == [11, 14]
    for annotation in data["annotations"]:
        annotation.update(UNLABELLED)
    assert opened(tree(data)).examples(9) == [10, 11, 12, 13, 14]


def test_scoring_needs_no_images(tree: Tree) -> None:
    root = tree()
    shutil.rmtree(root / "images")
    with pytest.raises(ImageError, match="no such folder or zip file"):
        build_dataset(settings(root), "train2017", train=False)
    dataset = build_dataset(settings(root), "train2017", train=False, need_images=False)
    assert len(dataset.coco["images"]) == 4
    with pytest.raises(ImageError, match=r"image 10: .*10\.png: cannot be read"):
        dataset.read(10)


def test_results_are_scored_against_what_the_set_uses(tree: Tree, made: Made) -> None:
    data = made((1, 1, 1))
    data["categories"].append({"id": 2, "name": "child", "keypoints": list(COCO.keypoints)})
    data["annotations"][1]["category_id"] = 2
    root = tree(data)
    (root / "images/train2017/12.png").unlink()
    dataset = opened(root, categories=["person"], strict=False)
    truth = dataset.coco
    assert [image["id"] for image in truth["images"]] == dataset.image_ids == [10, 11]
    assert [annotation["image_id"] for annotation in truth["annotations"]] == [10]
    assert dataset.examples(9) == [10]
    assert "12.png" in str(dataset.report) and "separates folders" not in str(dataset.report)


def test_settings_of_joints_reach_the_data_set(tree: Tree, made: Made) -> None:
    data = made((1,))
    data["annotations"][0]["bbox"] = [0, 0, 32, 16]
    root = tree(data)
    for whole, sigma in ((False, 1.5), (True, 2.0)):
        of_sigma = {"BASE_SIZE": 64.0, "BASE_SIGMA": 3.0, "INT_SIGMA": whole}
        cfg = settings(root, WITH_CENTER=True, SCALE_AWARE_SIGMA=True, **of_sigma)
        joints = build_dataset(cfg, "train2017", train=True).joints(10)
        assert joints.shape == (1, 18, 4) and (joints[..., 3] == sigma).all()


def test_images_are_tested_however_few_keypoints_they_have(tree: Tree, made: Made) -> None:
    data = made((1, 0))
    data["annotations"][0].update(UNLABELLED)
    cfg = settings(tree(data), MIN_KEYPOINTS=1)
    assert build_dataset(cfg, "train2017", train=False).image_ids == [10, 11]


def test_unicode_forms_of_names(tree: Tree, made: Made) -> None:
    data = made((1,))
    data["images"][0]["file_name"] = "caf\u00e9.png"
    root = tree(data)
    data["images"][0]["file_name"] = "cafe\u0301.png"
    (root / TRAIN[0]).write_text(json.dumps(data))
    assert pickle.loads(pickle.dumps(opened(root))).read(10).shape == (48, 64, 3)


def test_zip_is_folder(tree: Tree) -> None:
    root = tree()
    shutil.make_archive(str(root / "images/train2017"), "zip", root / "images", "train2017")
    configs = [settings(root, DATA_FORMAT=kind) for kind in ("jpg", "zip")]
    folder, archive = (build_dataset(cfg, "train2017", train=True) for cfg in configs)
    assert (
        archive.images.root.name == "train2017.zip"
        and folder.image_ids == archive.image_ids == [10, 12, 13]
    )
    assert all(np.array_equal(folder.read(i), archive.read(i)) for i in folder.image_ids)


@pytest.mark.parametrize("other", ["jpg", "zip"])
def test_images_in_the_other_format_are_named(tree: Tree, other: str) -> None:
    root = tree()
    images = root / "images/train2017"
    if other == "zip":
        shutil.make_archive(str(images), "zip", root / "images", "train2017")
        shutil.rmtree(images)
    archive = images.with_suffix(".zip")
    missing, there = (images, archive) if other == "zip" else (archive, images)
    wrong = {"jpg": "zip", "zip": "jpg"}[other]
    said = f"^{missing}: is not there, but {there} is; set DATASET.DATA_FORMAT {other}$"
    with pytest.raises(ImageError, match=said):
        build_dataset(settings(root, DATA_FORMAT=wrong), "train2017", train=True)
    build_dataset(settings(root, DATA_FORMAT=wrong), "train2017", train=False, need_images=False)


def test_test_dev_has_no_annotations(tree: Tree, made: Made) -> None:
    data = made((0, 0))
    del data["annotations"]
    data["categories"] = [{"id": 3, "name": "car"}, {"id": 7, "name": "person"}]
    root = tree(data, "test2017")
    (root / "annotations/person_keypoints_test2017.json").rename(
        root / "annotations/image_info_test-dev2017.json"
    )
    dataset = build_dataset(settings(root), "test-dev2017", train=False)
    assert (
        dataset.image_ids == [10, 11] and not dataset.has_annotations and dataset.category_id == 7
    )
    assert dataset.joints(10).shape == (0, 17, 3) and dataset.mask(10).all()
    assert dataset.coco["annotations"] == []
    assert dataset.report.notes == []


def test_training_without_annotations_says_why_it_cannot_be(tree: Tree, made: Made) -> None:
    """One file has none, the other an empty list. NEGATIVES makes it possible."""
    said = (
        r"2017.json: no image with people and a file is left to work with\n"
        r"  note: nobody is labelled: there is no annotation to use$"
    )
    empty = made((0, 0))
    missing = {key: value for key, value in empty.items() if key != "annotations"}
    for content in (empty, missing):
        root = tree(content)
        with pytest.raises(AnnotationError, match=said):
            opened(root, require_people=True)
        [note] = opened(root, require_people=True, negatives=True).report.notes
        assert note.startswith("nobody is labelled")


def test_trees(tree: Tree, made: Made, tmp_path: Path) -> None:
    root = tree(made((1,)))
    data = json.loads((root / TRAIN[0]).read_text())
    (root / "json").mkdir()
    for annotation in data["annotations"]:
        annotation["keypoints"] = annotation["keypoints"][:42]
    data["categories"] = [{"id": 1, "name": "person", "keypoints": list(CROWD_POSE.keypoints)}]
    (root / "json/crowdpose_trainval.json").write_text(json.dumps(data))
    shutil.copytree(root / "images/train2017", root / "images", dirs_exist_ok=True)
    crowd = build_dataset(settings(root, DATASET="crowd_pose_kpt"), "trainval", train=True)
    assert crowd.skeleton is CROWD_POSE and crowd.joints(10).shape == (1, 14, 3)
    names = "\n".join(f"- p{i}" for i in range(17))
    (tmp_path / "own.yaml").write_text(f"keypoints:\n{names}\nsigmas: [{', '.join(['.1'] * 17)}]\n")
    own = build_dataset(
        settings(root, DATASET="mine", SKELETON=str(tmp_path / "own.yaml")), "train2017", train=True
    )
    assert own.skeleton.name == "own" and len(own) == 1
    with pytest.raises(
        AnnotationError, match="unknown data set 'mine': it is one of coco, .* DATASET.SKELETON"
    ):
        build_dataset(settings(root, DATASET="mine"), "train2017", train=True)
    with pytest.raises(
        AnnotationError, match=r"person_keypoints_val2017\.json: cannot be read \(No such file"
    ):
        shutil.copytree(root / "images/train2017", root / "images/val2017")
        build_dataset(settings(root), "val2017", train=False)


def test_pairs_are_only_missed_where_images_are_mirrored(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "own.yaml"
    names = ", ".join(COCO.keypoints)
    own.write_text(f"keypoints: [{names}]\nsigmas: [{', '.join(['.1'] * 17)}]\n")
    root = tree((1,))
    build_dataset(settings(root, SKELETON=str(own), TRANSFORMS=["affine"]), "train2017", train=True)
    build_dataset(settings(root, SKELETON=str(own), FLIP=0.0), "train2017", train=True)
    build_dataset(settings(root, SKELETON=str(own)), "train2017", train=False)
    assert "flip_pairs" not in caplog.text
    build_dataset(settings(root, SKELETON=str(own)), "train2017", train=True)
    assert "flip_pairs" in caplog.text
