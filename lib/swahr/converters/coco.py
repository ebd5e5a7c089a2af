"""A data set in COCO's format, written from images and labelled keypoints.

ROOT/annotations/person_keypoints_SPLIT.json, ROOT/images/SPLIT/ and ROOT/skeleton.yaml, as
DATASET.ROOT and DATASET.SKELETON expect them.

Rules where the source gives no more than keypoints: a keypoint outside its image is not labelled;
the box is that of swahr.data.annotation_fields; the area is BOX_TO_AREA of the box, as CrowdPose's
evaluation has it.
"""

from __future__ import annotations

import filecmp
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swahr.data.annotation_fields import box_of_joints
from swahr.data.images import ImageError, read_image
from swahr.files import make_folder, naming, write_bytes, write_text
from swahr.geometry import BOX_TO_AREA
from swahr.skeleton import Skeleton, load_skeleton, skeleton_yaml

DECIMALS = 2  # of a pixel
SPLITS = ("train", "val")
INFO = {"description": "labels converted by swahr"}  # of the annotation files written here
_CATEGORY = 1

Floats = NDArray[np.float64]


class ConversionError(ValueError):
    """Labels that cannot be converted; the message names the file and the line, and says why."""


@dataclass(frozen=True)
class LabelledImage:
    """One image of the source.

    path: the image file; name: its name in the new data set. split: one of SPLITS. people
    (P, K, 3): x, y in pixels, and 0 where a keypoint is not labelled. where: its place in the
    source, for messages.
    """

    path: Path
    name: str
    split: str
    people: Floats
    where: str


@dataclass(frozen=True)
class Written:
    """What was written.

    images, people: how many of each split. outside: keypoints that lay outside their image.
    skeleton: that of the folder. kept: a line that says that its file was there already, or "".
    """

    images: dict[str, int]
    people: dict[str, int]
    outside: int
    skeleton: Skeleton
    kept: str


def write_dataset(
    root: str | Path,
    images: Sequence[LabelledImage],
    skeleton: Skeleton,
    category: str = "person",
    copy: bool = False,
) -> Written:
    """Write the data set; images are symbolic links, or copies if `copy` or where the system has no
    links. A split without images gets no annotation file. What an earlier conversion wrote there is
    replaced, but a skeleton file with the same keypoints is kept, with its limbs and constants.

    Raises ConversionError for an image that cannot be read, a name that is there twice, a skeleton
    file with other keypoints, or where files of other origin would be replaced; SkeletonError;
    WriteError where the system cannot write. Nothing is written before all this is checked.
    """
    root = Path(root)
    _check_names(images)
    skeleton_file = root / "skeleton.yaml"
    kept = skeleton_file.exists()
    if kept:
        skeleton = _same_keypoints(skeleton_file, skeleton)
    for split in SPLITS:
        _refuse_other_annotations(_annotation_file(root, split))
    data = {split: _annotations(category, skeleton) for split in SPLITS}
    ids = itertools.count(1)
    outside = 0
    for image_id, image in enumerate(images, 1):
        width, height = image_size(image.path, image.where)
        part = data[image.split]
        part["images"].append(
            {"id": image_id, "file_name": image.name, "width": width, "height": height}
        )
        people, removed = _inside(image.people, width, height)
        outside += removed
        for person in people:
            annotation = {"id": next(ids), "image_id": image_id}
            part["annotations"].append(annotation | _annotation(person, width, height))
    targets = [
        (image, split, root / "images" / split / image.name) for image in images for split in SPLITS
    ]
    for image, _, target in targets:
        _refuse_other_image(target, image.path)
    for image, split, target in targets:
        if split == image.split:
            _place(image.path, target, copy)
        elif not _is_source(target, image.path):  # left by a conversion with another split
            _remove(target)
    for split, part in data.items():
        path = _annotation_file(root, split)
        if part["images"]:
            write_text(path, json.dumps(part))
        else:
            _remove(path)
    if not kept:
        write_text(skeleton_file, skeleton_yaml(skeleton))
    return Written(
        images={split: len(part["images"]) for split, part in data.items()},
        people={split: len(part["annotations"]) for split, part in data.items()},
        outside=outside,
        skeleton=skeleton,
        kept=f"{skeleton_file} is kept as it is; remove it to have it written anew" if kept else "",
    )


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"person_keypoints_{split}.json"


def _same_keypoints(path: Path, skeleton: Skeleton) -> Skeleton:
    """The skeleton of a file that is there; ConversionError if it has other keypoints."""
    there = load_skeleton(path)
    if there.keypoints != skeleton.keypoints:
        raise ConversionError(
            f"{path}: has the keypoints {', '.join(there.keypoints)}; the labels have "
            f"{', '.join(skeleton.keypoints)}; choose another folder (--out), or remove this file"
        )
    return there


def _refuse_other_annotations(path: Path) -> None:
    """Raise ConversionError where a file is there that no conversion wrote."""
    if not os.path.lexists(path):
        return
    try:
        is_own = _is_converted(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        is_own = False
    if not is_own:
        raise ConversionError(
            f"{path}: exists, and no conversion wrote it; choose another folder (--out)"
        )


def _is_converted(content: Any) -> bool:
    """Whether a conversion wrote these annotations. Those of earlier versions have no INFO, but
    areas that follow from the boxes.
    """
    if not isinstance(content, dict):
        return False
    if "info" in content:
        return content["info"] == INFO
    if content.keys() != {"images", "annotations", "categories"}:
        return False
    for annotation in content["annotations"]:
        _, _, width, height = annotation["bbox"]
        rounding = 0.01 * (width + height + 1)
        if abs(annotation["area"] - BOX_TO_AREA * width * height) > rounding:
            return False
    return True


def _refuse_other_image(target: Path, source: Path) -> None:
    """Raise ConversionError where a file is there that is neither a link nor a copy of the image,
    so that no conversion wrote it.
    """
    if target.is_symlink() or not target.exists():
        return
    if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
        raise ConversionError(
            f"{target}: exists, and is no copy of {source}; choose another folder (--out), or "
            "remove it"
        )


def _remove(path: Path) -> None:
    """Remove a file if it is there. Raises WriteError if that is not possible."""
    with naming(path):
        path.unlink(missing_ok=True)


def image_size(path: Path, where: str) -> tuple[int, int]:
    """Width and height in pixels of the stored image, its EXIF rotation ignored; ConversionError
    where read_image refuses it.
    """
    try:
        image = read_image(path)
    except ImageError as error:
        raise ConversionError(f"{where}: {error}") from None
    return image.shape[1], image.shape[0]


def number(text: str, where: str, what: str) -> float:
    """A finite number; ConversionError where the text is none."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ConversionError(f"{where}: {what} is {text!r}, not a number")
    return value


def _check_names(images: Sequence[LabelledImage]) -> None:
    """A name stands once, in train or in val: training does not see images of validation, and
    write_dataset removes an image from the split that it is not in.
    """
    first: dict[str, str] = {}
    for image in images:
        if image.name in first:
            raise ConversionError(
                f"{image.where}: the image {image.name} is there already ({first[image.name]}); "
                "a name stands once, in train or in val"
            )
        first[image.name] = image.where
    if not images:
        raise ConversionError("there are no labelled images")


def _annotations(category: str, skeleton: Skeleton) -> dict[str, Any]:
    entry = {
        "id": _CATEGORY,
        "name": category,
        "supercategory": category,
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }
    return {"info": INFO, "images": [], "annotations": [], "categories": [entry]}


def _inside(people: Floats, width: int, height: int) -> tuple[Floats, int]:
    """People with at least one keypoint within the image, and how many keypoints were outside."""
    people = people.copy()
    labelled = people[..., 2] > 0
    x, y = people[..., 0], people[..., 1]
    outside = labelled & ~((x >= 0) & (x <= width) & (y >= 0) & (y <= height))
    people[outside | ~labelled] = 0
    return people[(people[..., 2] > 0).any(axis=1)], int(outside.sum())


def _annotation(person: Floats, width: int, height: int) -> dict[str, Any]:
    labelled = person[:, 2] > 0
    keypoints = np.zeros_like(person)
    keypoints[labelled, :2] = person[labelled, :2].round(DECIMALS)
    keypoints[labelled, 2] = 2
    box = np.array(box_of_joints(person.ravel().tolist(), (width, height)))
    return {
        "category_id": _CATEGORY,
        "keypoints": [int(v) if v == int(v) else v for v in keypoints.ravel().tolist()],
        "num_keypoints": int(labelled.sum()),
        "bbox": box.round(DECIMALS).tolist(),
        "area": round(BOX_TO_AREA * float(box[2:].prod()), DECIMALS),
        "iscrowd": 0,
    }


def _place(source: Path, target: Path, copy: bool) -> None:
    """Put an image into the data set, in place of what an earlier conversion left there."""
    make_folder(target.parent)
    if _is_source(target, source):
        return
    if copy or not _linked(source, target):
        write_bytes(target, source.read_bytes(), durable=False)


def _is_source(target: Path, source: Path) -> bool:
    """Whether the target is the source file itself, not a link to it or a copy."""
    return not target.is_symlink() and target.exists() and target.samefile(source)


def _linked(source: Path, target: Path) -> bool:
    try:
        target.unlink(missing_ok=True)
        os.symlink(source.resolve(), target)
    except OSError:  # no links on this file system, or not allowed
        return False
    return True
