"""Writes scenes as a data set: the tree of COCO or CrowdPose, made again only where something is
missing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from tqdm import tqdm

from swahr.files import write_bytes, write_text
from swahr.skeleton import COCO, CROWD_POSE, Skeleton
from swahr.synthetic.annotate import (
    Record,
    category,
    coco_annotation,
    crowd_index,
    crowd_pose_annotation,
)
from swahr.synthetic.scene import render_scene
from swahr.synthetic.settings import PRESETS, SceneSettings, SyntheticError

VERSION = 1  # raised when the same settings give other images
STAMP = "synthetic.json"
JPEG_QUALITY = 92
FIRST_ID = {
    "train": 1,
    "val": 1_000_001,
    "test": 2_000_001,
}  # a split does not depend on the others' sizes
MOST_IMAGES = 1_000_000
MOST_PEOPLE = 1_000  # annotation ids are image id x this + number of the person


class Tree(NamedTuple):
    """Where a format keeps its files; {} stands for the split, or for the image's id."""

    skeleton: Skeleton
    annotations: str
    images: str
    file_name: str
    splits: tuple[str, ...]


TREES = {
    "coco": Tree(
        COCO,
        "annotations/person_keypoints_{}2017.json",
        "images/{}2017",
        "{:012d}.jpg",
        ("train", "val"),
    ),
    "crowd_pose": Tree(
        CROWD_POSE, "json/crowdpose_{}.json", "images", "{}.jpg", ("train", "val", "test")
    ),
}


def write_dataset(
    root: str | Path,
    *,
    num_train: int,
    num_val: int,
    num_test: int | None = None,
    seed: int = 0,
    format: str = "coco",
    settings: SceneSettings = PRESETS["benchmark"],
    workers: int = 1,
    progress: bool = False,
) -> int:
    """Write the set below root; return how many images had to be made, 0 where a set with these
    settings is complete.

    format: "coco", or "crowd_pose", which has a test split of num_test images (default num_val) and
    labels everybody, because its files have no masks. workers: processes that render; the files do
    not depend on it. Raises SyntheticError where root holds another set, or a number is out of
    range.
    """
    counts = {"train": num_train, "val": num_val, "test": num_val if num_test is None else num_test}
    _check(format, counts, workers, seed)
    tree = TREES[format]
    if format == "crowd_pose":
        settings = SceneSettings(**{**asdict(settings), "unlabelled": 0.0, "crowd": 0.0})
    root = Path(root)
    images = {split: counts[split] for split in tree.splits}
    stamp = {
        "version": VERSION,
        "format": format,
        "seed": seed,
        "images": images,
        "settings": asdict(settings),
    }
    _claim(root, stamp, tree)
    made = 0
    with _pool(workers) as mapper:
        for split in tree.splits:
            ids = range(FIRST_ID[split], FIRST_ID[split] + counts[split])
            if not _complete(root, tree, split, ids):
                job = partial(
                    _write_image, root / tree.images.format(split), seed, settings, format
                )
                bar = tqdm(
                    mapper(job, ids), total=len(ids), desc=split, unit="image", disable=not progress
                )
                _write_annotations(root, tree, split, bar)
                made += len(ids)
    if format == "crowd_pose" and (made or not _annotation_file(root, tree, "trainval").is_file()):
        _join(root, tree, ("train", "val"), "trainval")
    return made


# -- what is there already
# ---------------------------------------------------------------------------------------------


def _check(format: str, counts: dict[str, int], workers: int, seed: int) -> None:
    if format not in TREES:
        raise SyntheticError(f"format: {format!r} must be one of {', '.join(TREES)}")
    for split, count in counts.items():
        if not 1 <= count <= MOST_IMAGES:
            raise SyntheticError(f"{split}: {count} images; it must be from 1 to {MOST_IMAGES}")
    if workers < 1 or seed < 0:
        raise SyntheticError(f"workers: {workers} must be 1 or more, and seed: {seed} 0 or more")


def _claim(root: Path, stamp: Record, tree: Tree) -> None:
    """Write the stamp into an empty folder; SyntheticError if the folder belongs to something
    else.
    """
    path = root / STAMP
    wanted = json.loads(json.dumps(stamp))
    if path.is_file():
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = None
        if found != wanted:
            raise SyntheticError(
                f"{root}: holds a synthetic set with other settings ({_difference(found, wanted)}); "
                "choose another folder, or remove this one"
            )
        return
    for split in tree.splits:
        file = _annotation_file(root, tree, split)
        if file.exists():
            raise SyntheticError(
                f"{file}: is there already and was not made here (no {STAMP}); choose another folder"
            )
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    """The first setting that differs, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in wanted:
            if found.get(key) != wanted[key]:
                return _difference(found.get(key), wanted[key], key)
    return f"{name or STAMP}: {found} there, {wanted} wanted"


def _annotation_file(root: Path, tree: Tree, split: str) -> Path:
    return root / tree.annotations.format(split)


def _complete(root: Path, tree: Tree, split: str, ids: range) -> bool:
    if not _annotation_file(root, tree, split).is_file():
        return False
    folder = root / tree.images.format(split)
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    return all(tree.file_name.format(index) in there for index in ids)


# -- writing
# -----------------------------------------------------------------------------------------------------------


@contextmanager
def _pool(workers: int) -> Iterator[Any]:
    """A map over processes that keeps the order."""
    if workers == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(
        workers, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield partial(pool.imap, chunksize=8)


def _write_image(
    folder: Path, seed: int, settings: SceneSettings, format: str, index: int
) -> tuple[Record, list[Record]]:
    """Render and write one image; return its entry of "images", and its annotations."""
    tree = TREES[format]
    image, people = render_scene(seed, index, settings, tree.skeleton)
    name = tree.file_name.format(index)
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    write_bytes(folder / name, data.tobytes(), durable=False)
    entry: Record = {
        "file_name": name,
        "id": index,
        "height": image.shape[0],
        "width": image.shape[1],
    }
    if format == "crowd_pose":
        entry["crowdIndex"] = crowd_index(people)
    annotate = coco_annotation if format == "coco" else crowd_pose_annotation
    return entry, [
        {**annotate(person), "image_id": index, "category_id": 1, "id": index * MOST_PEOPLE + i}
        for i, person in enumerate(people)
    ]


def _write_annotations(
    root: Path, tree: Tree, split: str, records: Iterable[tuple[Record, list[Record]]]
) -> None:
    images = []
    annotations = []
    for entry, people in records:
        images.append(entry)
        annotations += people
    data = {
        "info": {"description": "synthetic people"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [category(tree.skeleton)],
    }
    write_text(_annotation_file(root, tree, split), json.dumps(data))


def _join(root: Path, tree: Tree, splits: Iterable[str], name: str) -> None:
    """Write the annotations of several splits as one file."""
    parts = [json.loads(_annotation_file(root, tree, split).read_text()) for split in splits]
    for part in parts[1:]:
        for key in ("images", "annotations"):
            parts[0][key] += part[key]
    write_text(_annotation_file(root, tree, name), json.dumps(parts[0]))
