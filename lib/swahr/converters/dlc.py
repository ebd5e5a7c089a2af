"""Labelled frames of DeepLabCut: the CSV that it writes beside each video's frames.

Header lines: scorer, (for several animals: individuals,) bodyparts, coords; then a line a frame:
its path, in one column or in three (labeled-data, video, file), and x and y of each part, empty
where it is not labelled.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from swahr.converters.coco import ConversionError, LabelledImage, number
from swahr.data.sides import flip_pairs
from swahr.skeleton import TYPICAL_SIGMA, Skeleton

SIGMA = TYPICAL_SIGMA
# Individual of DeepLabCut under which parts stand that no animal has, such as corners of the arena.
UNIQUE = "single"
EMPTY = ("", "nan", "NaN")


@dataclass(frozen=True)
class DeepLabCutLabels:
    """skeleton: the parts, with the given sigma for each. images: the frames with labels, all of
    split train. unlabelled: number of frames without labels, which are left out. unique: parts of
    no animal, which are left out.
    """

    skeleton: Skeleton
    images: list[LabelledImage]
    unlabelled: int
    unique: tuple[str, ...]


@dataclass(frozen=True)
class _Layout:
    index_columns: int
    columns: int
    parts: tuple[str, ...]
    points: NDArray[np.int64]  # (individuals, parts): column of x, that of y follows
    unique: tuple[str, ...]


def read_dlc(path: str | Path, images: str | Path, sigma: float = SIGMA) -> DeepLabCutLabels:
    """The frames of a CSV file whose images are in the folder `images`, under their path in the
    file or the end of it.

    sigma: the constant of the object keypoint similarity, for all parts. COCO's are 0.025 (eyes) to
    0.107 (hips). Raises ConversionError, naming file and line, for anything else than such a file.
    """
    if not 0 < sigma < math.inf:
        raise ConversionError(f"the constant of all parts is {sigma} (--sigma); it is above 0")
    path = Path(path)
    folder = Path(images)
    if not folder.is_dir():
        raise ConversionError(f"{folder}: there is no such folder of images")
    rows = _rows(path)
    layout, first = _layout(rows, path)
    skeleton = Skeleton(
        name=path.stem,
        keypoints=layout.parts,
        flip_pairs=flip_pairs(layout.parts),
        sigmas=(sigma,) * len(layout.parts),
    )
    frames = []
    unlabelled = 0
    for line, row in enumerate(rows[first:], first + 1):
        if not any(row):
            continue
        frame = _frame(row, layout, folder, f"{path}, line {line}")
        if frame is None:
            unlabelled += 1
        else:
            frames.append(frame)
    if not frames:
        raise ConversionError(f"{path}: no frame has a label")
    _refuse_shared_images(frames)
    return DeepLabCutLabels(skeleton, frames, unlabelled, layout.unique)


def _refuse_shared_images(frames: Sequence[LabelledImage]) -> None:
    """Raise ConversionError where two frames have one image, as those of two videos do in a folder
    that has the images of one of them only.
    """
    known: dict[Path, LabelledImage] = {}
    for frame in frames:
        first = known.setdefault(frame.path, frame)
        if first.name != frame.name:
            raise ConversionError(
                f"{frame.where}: its image is {frame.path}, as that of {first.where}; give the "
                "folder that holds the folders of all videos"
            )


def split_frames(frames: Sequence[LabelledImage], val: float, seed: int) -> list[LabelledImage]:
    """The frames with a share of `val`, drawn at random, in the split val: at least one and not all
    of them if val is not 0. ConversionError where that cannot be.
    """
    if not 0 <= val < 1:
        raise ConversionError(
            f"the share of frames for validation is {val} (--val); it is from 0 below 1"
        )
    if seed < 0:
        raise ConversionError(f"the seed of the split is {seed} (--seed); it is 0 or more")
    if val and len(frames) < 2:
        raise ConversionError("one labelled frame cannot be split into train and val")
    count = min(max(round(val * len(frames)), 1), len(frames) - 1) if val else 0
    chosen = set(np.random.default_rng(seed).permutation(len(frames))[:count].tolist())
    return [
        LabelledImage(
            each.path, each.name, "val" if i in chosen else "train", each.people, each.where
        )
        for i, each in enumerate(frames)
    ]


def _rows(path: Path) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConversionError(f"{path}: cannot be read ({reason})") from None
    if not any(any(row) for row in rows):
        raise ConversionError(f"{path}: the file is empty")
    return rows


def _layout(rows: list[list[str]], path: Path) -> tuple[_Layout, int]:
    """What the columns mean, and the number of header lines."""
    several = len(rows) > 1 and rows[1][:1] == ["individuals"]
    titles = ["scorer", *(["individuals"] if several else []), "bodyparts", "coords"]
    header = rows[: len(titles)]
    if [row[0] if row else "" for row in header] != titles:
        raise ConversionError(
            f"{path}: not a label file of DeepLabCut, whose first lines begin with "
            f"{', '.join(titles)}"
        )
    coords = header[-1]
    start = next((i for i, cell in enumerate(coords[1:], 1) if cell), len(coords))
    if start == len(coords) or start not in (1, 3):
        raise ConversionError(f"{path}, line {len(titles)}: no columns x and y after the path")
    kinds = coords[start:]
    if "likelihood" in kinds:
        raise ConversionError(
            f"{path}, line {len(titles)}: a likelihood stands there, so these are no labels but "
            "predictions"
        )
    if kinds != ["x", "y"] * (len(kinds) // 2):
        raise ConversionError(f"{path}, line {len(titles)}: the columns must be x, y, x, y, ...")
    if any(len(row) != len(coords) for row in header):
        raise ConversionError(f"{path}: the header lines are not equally long")
    for line, row in enumerate(header[1:-1], 2):
        if "" in row[start:]:
            column = row.index("", start) + 1
            raise ConversionError(f"{path}, line {line}: {row[0]} has no name in column {column}")
    owners = header[1][start::2] if several else [""] * (len(kinds) // 2)
    if header[-2][start::2] != header[-2][start + 1 :: 2]:
        raise ConversionError(f"{path}: x and y of a body part must stand side by side")
    columns: dict[str, dict[str, int]] = {}
    for i, (owner, part) in enumerate(zip(owners, header[-2][start::2])):
        if part in columns.setdefault(owner, {}):
            raise ConversionError(f"{path}: the body part {part!r} is there twice")
        columns[owner][part] = start + 2 * i
    unique = tuple(columns.pop(UNIQUE)) if len(columns) > 1 and UNIQUE in columns else ()
    parts = next(iter(columns.values()))
    for owner, own in columns.items():
        if set(own) != set(parts):
            raise ConversionError(
                f"{path}: {owner} has other body parts than {next(iter(columns))}"
            )
    points = np.array([[own[part] for part in parts] for own in columns.values()], np.int64)
    return _Layout(start, len(coords), tuple(parts), points, unique), len(titles)


def _frame(row: list[str], layout: _Layout, folder: Path, where: str) -> LabelledImage | None:
    """A frame of the split train; None where nothing is labelled in it."""
    if len(row) != layout.columns:
        raise ConversionError(f"{where}: {len(row)} cells; the header has {layout.columns}")
    relative = PurePosixPath("/".join(row[: layout.index_columns]).replace("\\", "/"))
    people = np.zeros((*layout.points.shape, 3))
    for animal, columns in enumerate(layout.points.tolist()):
        for k, column in enumerate(columns):
            people[animal, k] = _point(row[column], row[column + 1], layout.parts[k], where)
    labelled = people[(people[..., 2] > 0).any(axis=1)]
    if not len(labelled):
        return None
    if not relative.parts:
        raise ConversionError(f"{where}: the path of the image is empty")
    path = _find(relative, folder, where)
    return LabelledImage(path, "_".join(relative.parts[-2:]), "train", labelled, where)


def _find(relative: PurePosixPath, folder: Path, where: str) -> Path:
    """The image under its path, or the end of its path."""
    parts = [part for part in relative.parts if part not in ("/", "..")]
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:])
        if path.is_file():
            return path
    raise ConversionError(f"{where}: there is no image {relative} in {folder}")


def _point(x: str, y: str, part: str, where: str) -> tuple[float, float, float]:
    given = [value not in EMPTY for value in (x, y)]
    if not any(given):
        return 0.0, 0.0, 0.0
    if not all(given):
        raise ConversionError(f"{where}: {part} has {'x' if given[0] else 'y'} alone")
    return number(x, where, f"{part} x"), number(y, where, f"{part} y"), 1.0
