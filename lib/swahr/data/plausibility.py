"""What can only be seen of a whole annotation file: coordinates in other units, joints outside
their images, unusual visibilities, people labelled twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swahr.data.annotation_arrays import AnnotationArrays
from swahr.data.annotation_report import Report
from swahr.data.sides import SIDES, mirrored_names, words
from swahr.skeleton import Skeleton
from swahr.words import counted

MIN_JOINTS = 20  # from which coordinates that are all small mean percentages, not a small corner
PERCENT_SIDE = 200  # px; only images whose sides are all longer can show that
# Part of the labelled joints outside their image from which its sides may be exchanged; of people
# who are anywhere in images of 4:3, more are outside then.
MANY_OUTSIDE = 0.05


def check_plausibility(arrays: AnnotationArrays, skeleton: Skeleton, report: Report) -> None:
    """Add to the report what is implausible in the labelled joints of all people together.

    Coordinates between 0 and 1 are a problem, as every result would be wrong. The rest are notes.
    """
    visibility = arrays.keypoints[..., 2]
    labelled = visibility > 0
    count = int(labelled.sum())
    placed = int(arrays.keypoints[..., :2].any(-1).sum())
    if not count:
        lie = "1 joint lies" if placed == 1 else f"{placed:,} joints lie"
        if not len(labelled):
            report.note("nobody is labelled: there is no annotation to use")
        elif placed:
            report.note(
                f"no joint is labelled: no visibility is above 0, but {lie} at other places than "
                "0, 0"
            )
        else:
            given = counted(len(labelled), "annotation")
            report.note(f"nobody is labelled: no visibility is above 0 in {given}")
        return
    if not labelled[~arrays.is_crowd].any():
        report.note(
            "all people with labelled joints are crowds (iscrowd is 1): they are trained on, but "
            "not scored"
        )
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
    _note_twice(arrays, report)
    unusual = visibility[~np.isin(visibility, (0, 1, 2))]
    if unusual.size:
        are = "1 visibility is" if unusual.size == 1 else f"{unusual.size:,} visibilities are"
        report.note(
            f"{are} none of 0, 1, 2, like {unusual[0]:g}; joints with a visibility above 0 are "
            "taken as labelled"
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
    image_id = arrays.ids[arrays.image_rows()[row]]
    beyond_swapped = ((points < 0) | (points > sizes[..., ::-1])).any(-1) & labelled
    fit_swapped = not beyond_swapped[outside.any(1)].any()
    is_many = outside.sum() > max(MANY_OUTSIDE * labelled.sum(), MIN_JOINTS)
    hint = "; are width and height of the images exchanged?" if fit_swapped and is_many else ""
    report.note(
        f"{int(outside.sum())} of {int(labelled.sum())} labelled joints lie outside their image, "
        f"like {skeleton.keypoints[joint]} at {x:g}, {y:g} in image {image_id} of "
        f"{width} x {height}{hint}"
    )


def _note_twice(arrays: AnnotationArrays, report: Report) -> None:
    """People with labelled joints whose keypoints are those of another person of their image.
    Crowds are not scored.
    """
    rows = np.flatnonzero((arrays.labelled > 0) & ~arrays.is_crowd)
    images = arrays.image_rows()[rows]
    keypoints = arrays.keypoints.reshape(len(arrays.labelled), -1)[rows]
    size = keypoints.itemsize * keypoints.shape[1]
    whole = keypoints.view(np.dtype((np.void, size))).ravel()  # each person's as bytes
    order = np.argsort(whole, kind="stable")  # equal ones stay in the order of their images
    before = order[:-1]
    after = order[1:]
    is_equal = (images[before] == images[after]) & (whole[before] == whole[after])
    count = int(is_equal.sum())
    if not count:
        return
    one = before[is_equal][0]
    other = after[is_equal][0]
    have = "1 person has" if count == 1 else f"{count:,} people have"
    report.note(
        f"{have} exactly the keypoints of another person of the image, like annotations "
        f"{arrays.annotation_ids[rows[one]]} and {arrays.annotation_ids[rows[other]]} of image "
        f"{arrays.ids[images[one]]}: when scored, one of the two is always missed"
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
        mirrored = [other for other in mirrored_names(name) if other in names]
        if mirrored and partner[index] not in mirrored:
            return (
                f"skeleton {skeleton.name!r}: flip_pairs joins {name} with {partner[index]}, "
                f"not with {mirrored[0]}"
            )
    return ""


def _has_side(name: str, names: Sequence[str]) -> bool:
    """Whether a name says left or right; l and r count if the other side is among the names."""
    says_so = any(word.startswith(SIDES) for word in words(name))
    return says_so or any(other in names for other in mirrored_names(name))
