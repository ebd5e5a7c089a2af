"""What can only be seen of a whole annotation file: coordinates in other units, joints outside
their images, unusual visibilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swahr.data.annotation_arrays import AnnotationArrays
from swahr.data.annotation_report import Report
from swahr.skeleton import Skeleton

MIN_JOINTS = 20  # from which coordinates that are all small mean percentages, not a small corner
PERCENT_SIDE = 200  # px; only images whose sides are all longer can show that

_SIDES = ("left", "right")
_PAIRS = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"), ("l", "r"), ("L", "R"))
_EXCHANGED = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of a name like left_eye, LeftEye or L_EYE


def check_plausibility(arrays: AnnotationArrays, skeleton: Skeleton, report: Report) -> None:
    """Add to the report what is implausible in the labelled joints of all people together.

    Coordinates between 0 and 1 are a problem, as every result would be wrong. The rest are notes.
    """
    visibility = arrays.keypoints[..., 2]
    labelled = visibility > 0
    count = int(labelled.sum())
    placed = int(arrays.keypoints[..., :2].any(-1).sum())
    if not count:
        if placed:
            report.note(
                f"no joint is labelled: no visibility is above 0, but {placed} joints lie at "
                "other places than 0, 0"
            )
        return
    points = arrays.keypoints[..., :2][labelled]
    least = float(points.min())
    largest = float(points.max())
    sizes = arrays.sizes_of_annotations()
    if least >= 0 and largest <= 1 and count > 1:
        report.add(
            f"all {count} labelled joints lie between 0 and 1, as fractions of the image do; "
            "coordinates are pixels",
            "kept as they are",
        )
    elif least >= 0 and largest <= 100 and count >= MIN_JOINTS and sizes.min() > PERCENT_SIDE:
        report.note(
            f"all {count} labelled joints lie between 0 and 100, as percentages do, in images of "
            f"{sizes.min()} px and more; coordinates are pixels"
        )
    _note_outside(arrays, labelled, skeleton, report)
    unusual = visibility[~np.isin(visibility, (0, 1, 2))]
    if unusual.size:
        report.note(
            f"{unusual.size} visibilities are none of 0, 1, 2, like {unusual[0]:g}; joints with a "
            "visibility above 0 are taken as labelled"
        )


def _note_outside(
    arrays: AnnotationArrays, labelled: NDArray[np.bool_], skeleton: Skeleton, report: Report
) -> None:
    points = arrays.keypoints[..., :2]
    sizes = arrays.sizes_of_annotations()[:, None]
    outside = ((points < 0) | (points > sizes)).any(-1) & labelled
    if not outside.any():
        return
    row, joint = (int(index) for index in np.argwhere(outside)[0])
    x, y = points[row, joint].tolist()
    width, height = sizes[row, 0].tolist()
    image_id = arrays.ids[np.searchsorted(arrays.starts, row, side="right") - 1]
    report.note(
        f"{int(outside.sum())} of {int(labelled.sum())} labelled joints lie outside their image, "
        f"like {skeleton.keypoints[joint]} at {x:g}, {y:g} in image {image_id} of "
        f"{width} x {height}"
    )


def flip_problem(skeleton: Skeleton) -> str:
    """What would be learnt or found wrong in mirrored images, or ''.

    A keypoint whose name says left or right must be in a flip pair with the other side. Otherwise
    a mirrored image shows the right one under the name of the left one.
    """
    names = skeleton.keypoints
    partner = {a: names[b] for pair in skeleton.flip_pairs for a, b in (pair, pair[::-1])}
    unpaired = [name for i, name in enumerate(names) if i not in partner and _has_side(name, names)]
    if unpaired:
        return (
            f"skeleton {skeleton.name!r}: {', '.join(unpaired)} in no pair of flip_pairs, so "
            "mirrored images show the wrong side under these names"
        )
    for index, name in enumerate(names):
        mirrored = _mirrored(name)
        if mirrored != name and mirrored in names and partner.get(index) != mirrored:
            return (
                f"skeleton {skeleton.name!r}: flip_pairs joins {name} with {partner[index]}, "
                f"not with {mirrored}"
            )
    return ""


def _has_side(name: str, names: Sequence[str]) -> bool:
    """Whether a name says left or right; l and r count if the other side is among the names."""
    mirrored = _mirrored(name)
    return mirrored != name and (
        mirrored in names or any(word.startswith(_SIDES) for word in _words(name))
    )


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _mirrored(name: str) -> str:
    """A name with left and right, or l and r, exchanged; the name itself if it has no side."""

    def swap(match: re.Match[str]) -> str:
        word = match[0]
        for side, other in _EXCHANGED.items():
            if word == side or (len(side) > 1 and word.startswith(side)):
                return other + word[len(side) :]
        return word

    return _WORD.sub(swap, name)
