"""Photographs with one person labelled in each, listed in joints.csv, as the Leeds Sports Pose
Extended set is given (S. Johnson and M. Everingham, Learning Effective Human Pose Estimation from
Inaccurate Annotation, CVPR 2011).

The first line of joints.csv names its columns: image, split, then NAME_x, NAME_y, NAME_v of each
joint, in the order of NAMES. A line follows for each image: the name of its file, its split (train
or val), and of each joint x and y in pixels, and v. v is 1, or 0 where the joint is not labelled;
x and y may then be empty. The folder images beside joints.csv holds the images.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from swahr.converters.coco import SPLITS, ConversionError, LabelledImage, number
from swahr.data.sides import flip_pairs
from swahr.skeleton import Skeleton

NAMES = (
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "neck",
    "head_top",
)
# COCO's constants; neck and head as CrowdPose has them.
SIGMAS = {
    "ankle": 0.089,
    "knee": 0.087,
    "hip": 0.107,
    "wrist": 0.062,
    "elbow": 0.072,
    "shoulder": 0.079,
    "neck": 0.079,
    "head_top": 0.079,
}
LIMBS = (
    ("head_top", "neck"),
    *(("neck", f"{side}_shoulder") for side in ("left", "right")),
    *((f"{side}_shoulder", f"{side}_elbow") for side in ("left", "right")),
    *((f"{side}_elbow", f"{side}_wrist") for side in ("left", "right")),
    *((f"{side}_shoulder", f"{side}_hip") for side in ("left", "right")),
    ("left_hip", "right_hip"),
    *((f"{side}_hip", f"{side}_knee") for side in ("left", "right")),
    *((f"{side}_knee", f"{side}_ankle") for side in ("left", "right")),
)
# From the trunk outwards, because joints that are easy to find come first.
GROUPING = (
    "neck",
    "head_top",
    *(f"{side}_{joint}" for joint in ("shoulder", "hip") for side in ("left", "right")),
    *(f"{side}_{joint}" for joint in ("elbow", "knee") for side in ("left", "right")),
    *(f"{side}_{joint}" for joint in ("wrist", "ankle") for side in ("left", "right")),
)

SKELETON = Skeleton(
    name="lsp",
    keypoints=NAMES,
    flip_pairs=flip_pairs(NAMES),
    sigmas=tuple(SIGMAS[name.removeprefix("left_").removeprefix("right_")] for name in NAMES),
    limbs=tuple((NAMES.index(a), NAMES.index(b)) for a, b in LIMBS),
    grouping_order=tuple(NAMES.index(name) for name in GROUPING),
)


def read_lsp(folder: str | Path) -> list[LabelledImage]:
    """The images of joints.csv, in its order; ConversionError, naming the line, where it is not
    such a file.
    """
    path = Path(folder) / "joints.csv"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConversionError(f"{path}: cannot be read ({reason})") from None
    columns = [f"{name}_{part}" for name in NAMES for part in "xyv"]
    header = ["image", "split", *columns]
    if not rows or rows[0] != header:
        raise ConversionError(f"{path}: the first line must be {','.join(header[:5])},...")
    images = []
    for line, row in enumerate(rows[1:], 2):
        if row:
            images.append(_image(row, header, Path(folder), f"{path}, line {line}"))
    if not images:
        raise ConversionError(f"{path}: no images are listed")
    return images


def _image(row: list[str], header: list[str], folder: Path, where: str) -> LabelledImage:
    if len(row) != len(header):
        raise ConversionError(f"{where}: {len(row)} values; the header has {len(header)}")
    name, split, *texts = row
    if split not in SPLITS:
        raise ConversionError(f"{where}: the split is {split!r}; it is one of {', '.join(SPLITS)}")
    if not name or Path(name).name != name:
        raise ConversionError(f"{where}: {name!r} is not the name of an image file")
    joints = np.zeros((1, len(NAMES), 3))
    for k, joint in enumerate(NAMES):
        x, y, flag = texts[3 * k : 3 * k + 3]
        if flag not in ("0", "1"):
            raise ConversionError(f"{where}: {joint}_v is {flag!r}; it is 0 or 1")
        if flag == "1":
            joints[0, k] = number(x, where, f"{joint}_x"), number(y, where, f"{joint}_y"), 1
    return LabelledImage(folder / "images" / name, name, split, joints, where)
