"""The fields of one annotation: which contradict its keypoints, and what replaces them.

A box is made of the labelled joints: their extent, grown on every side by a tenth of its longer
side, and by at least 8 px, within the image. So one joint, or joints in a line, get a box with an
area too. A missing area is computed from the box where it is needed (swahr.evaluation.records).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from swahr.data.outlines import are_coordinates, is_outline
from swahr.data.values import is_amount, whole_number
from swahr.files import shorten
from swahr.skeleton import CROWD_POSE, Skeleton

BOX_SLACK = 8  # px by which a box may leave its image; COCO's outlines do
BOX_MARGIN = 0.1  # of a box made of joints, as a fraction of their longer extent
MIN_BOX_MARGIN = 8  # px
MIN_SIDE = 1  # px of the box of a labelled person, and px^2 of its area
# CrowdPose's own num_keypoints does not count the head and the neck. Its scores depend on that:
# people of whom only these two are labelled are not scored.
NOT_COUNTED = (CROWD_POSE.keypoints.index("head"), CROWD_POSE.keypoints.index("neck"))

NEW_BOX = "box put around the keypoints"
NEW_COUNT = "keypoints counted"
CLIPPED = "box clipped"


def complete_keypoints(keypoints: list[Any]) -> bool:
    """Whether the list x, y, visibility, ... has finite numbers only. A joint whose visibility is 0
    needs none: it is set to zero in place.
    """
    if are_coordinates(keypoints):
        return True
    for start in range(0, len(keypoints), 3):
        visibility = keypoints[start + 2]
        if isinstance(visibility, int | float) and visibility == 0:
            joint = keypoints[start : start + 2]
            if not are_coordinates(joint) and all(_may_be_missing(value) for value in joint):
                keypoints[start : start + 3] = [0, 0, 0]
    return are_coordinates(keypoints)


def _may_be_missing(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def repair_fields(
    annotation: dict[str, Any], size: tuple[int, int], skeleton: Skeleton
) -> Iterator[tuple[str, str, bool]]:
    """Repair the fields of an annotation beside its keypoints, in an image of `size` (w, h) px.

    Yields each problem, its repair, and whether it is harmless: without effect on any result.
    """
    keypoints = annotation["keypoints"]
    labelled = sum(visibility > 0 for visibility in keypoints[2::3])
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        annotation["iscrowd"] = 0
        problem = f"iscrowd {shorten(crowd)} is neither 0 nor 1"
        yield f"{describe(annotation)}: {problem}", "taken for no crowd", False
    is_scored = labelled > 0 and not annotation.get("iscrowd")
    for problem, repair in _repair_box(annotation, size, is_scored):
        yield f"{describe(annotation)}: {problem}", repair, False
    area = annotation.get("area", MIN_SIDE)
    if not is_amount(area):
        del annotation["area"]
        problem = f"area {shorten(area)} is not a number of pixels"
        yield f"{describe(annotation)}: {problem}", "area of the box", False
    elif is_scored and area < MIN_SIDE:
        del annotation["area"]
        problem = f"area {shorten(area)} of a person with labelled keypoints is below a pixel"
        yield f"{describe(annotation)}: {problem}", "area of the box", False
    yield from _repair_count(annotation, labelled, skeleton)
    outline = annotation.get("segmentation", [])
    is_drawn = annotation.get("iscrowd") or not annotation.get("num_keypoints", labelled)
    if is_drawn and not is_outline(outline, size):
        del annotation["segmentation"]
        problem = (
            f"segmentation {shorten(outline)} is neither polygons nor run lengths "
            "of the image's size"
        )
        yield f"{describe(annotation)}: {problem}", "segmentation removed", False


def is_background(annotation: Mapping[str, Any]) -> bool:
    """Whether training learns nothing of a repaired annotation: a crowd or a person without
    keypoints. It masks the outline, if there is one.
    """
    if annotation["num_keypoints"]:
        return False
    return bool(annotation.get("iscrowd")) or not any(v > 0 for v in annotation["keypoints"][2::3])


def _repair_box(
    annotation: dict[str, Any], size: tuple[int, int], is_scored: bool
) -> Iterator[tuple[str, str]]:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not are_coordinates(box) or min(box[2:]) < 0:
        problem = f"bbox {shorten(box)} is not x, y, width, height"
    elif is_scored and min(box[2:]) < MIN_SIDE:
        problem = f"bbox {shorten(box)} has no width or no height"
    elif min(box[:2]) < -BOX_SLACK or any(
        box[i] + box[i + 2] > size[i] + BOX_SLACK for i in (0, 1)
    ):
        clipped = _clip(box, size)
        if not is_scored or min(clipped[2:]) >= MIN_SIDE:
            annotation["bbox"] = clipped
            yield (
                f"bbox {shorten(box)} leaves its image of {size[0]} x {size[1]}",
                CLIPPED,
            )
            return
        problem = f"bbox {shorten(box)} lies outside its image of {size[0]} x {size[1]}"
    else:
        return
    annotation["bbox"] = box_of_joints(annotation["keypoints"], size)
    yield problem, NEW_BOX


def may_be_corners(box: Any, size: tuple[int, int]) -> bool:
    """Whether a box lies in its image of `size` (w, h) px if it is x1, y1, x2, y2. One that is
    missing, or all zeros, may.
    """
    if not isinstance(box, list) or len(box) != 4 or not are_coordinates(box):
        return box is None
    return not any(box) or all(
        -BOX_SLACK <= box[i] < box[i + 2] <= size[i] + BOX_SLACK for i in (0, 1)
    )


def _repair_count(
    annotation: dict[str, Any], labelled: int, skeleton: Skeleton
) -> Iterator[tuple[str, str, bool]]:
    """What is wrong with num_keypoints. Only whether it is 0 has an effect: then the person is not
    scored, and its outline is masked in training.
    """
    right = labelled
    is_crowd_pose = skeleton.keypoints == CROWD_POSE.keypoints
    if is_crowd_pose:
        right -= sum(annotation["keypoints"][3 * joint + 2] > 0 for joint in NOT_COUNTED)
    given = annotation.setdefault("num_keypoints", right)
    count = whole_number(given)
    if count is None or count < 0:
        problem = f"num_keypoints {shorten(given)} is not a number of keypoints"
        annotation["num_keypoints"] = right
        yield f"{describe(annotation)}: {problem}", NEW_COUNT, False
    elif count not in (right, labelled):
        problem = f"num_keypoints is {count}, but {right} are labelled"
        annotation["num_keypoints"] = count if is_crowd_pose else right
        is_harmless = is_crowd_pose or (count > 0) == (right > 0)
        yield f"{describe(annotation)}: {problem}", NEW_COUNT, is_harmless
    else:
        annotation["num_keypoints"] = count


def describe(annotation: Mapping[str, Any]) -> str:
    """An annotation's and its image's id, for messages."""
    return (
        f"annotation {shorten(annotation.get('id'))} (image {shorten(annotation.get('image_id'))})"
    )


def box_of_joints(keypoints: list[float], size: tuple[int, int]) -> list[float]:
    """A box x, y, width, height around the labelled joints x, y, visibility, ... in an image of
    `size` (w, h) px; see the head of this file. Zeros if no joint is labelled.
    """
    xs = [x for x, visibility in zip(keypoints[::3], keypoints[2::3]) if visibility > 0]
    ys = [y for y, visibility in zip(keypoints[1::3], keypoints[2::3]) if visibility > 0]
    if not xs:
        return [0, 0, 0, 0]
    margin = max(BOX_MARGIN * max(max(xs) - min(xs), max(ys) - min(ys)), MIN_BOX_MARGIN)
    left = min(xs) - margin
    top = min(ys) - margin
    box = [left, top, max(xs) + margin - left, max(ys) + margin - top]
    clipped = _clip(box, size)
    return clipped if min(clipped[2:]) >= MIN_SIDE else box  # joints outside the image keep theirs


def _clip(box: list[float], size: tuple[int, int]) -> list[float]:
    left, top = (min(max(box[i], 0), size[i]) for i in (0, 1))
    right, bottom = (min(max(box[i] + box[i + 2], 0), size[i]) for i in (0, 1))
    return [left, top, right - left, bottom - top]
