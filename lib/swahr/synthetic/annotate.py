"""Labels of synthetic people as COCO and CrowdPose annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from swahr.skeleton import Skeleton
from swahr.synthetic.scene import Person

Record = dict[str, Any]


def category(skeleton: Skeleton) -> Record:
    """The entry of "categories"; limbs are numbered from 1, as COCO does."""
    return {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }


def coco_annotation(person: Person) -> Record:
    """Segmentation (polygons; uncompressed run lengths for a crowd), and the area and box that it
    has.
    """
    height, width = person.mask.shape
    segmentation = _run_lengths(person.mask) if person.crowd else _polygons(person.mask)
    coded = rle.frPyObjects(segmentation, height, width)
    coded = coded if person.crowd else rle.merge(coded)
    return {
        "segmentation": segmentation,
        "area": int(rle.area(coded)),
        "bbox": rle.toBbox(coded).tolist(),
        "iscrowd": int(person.crowd),
        **_keypoints(person),
    }


def crowd_pose_annotation(person: Person) -> Record:
    """Box and keypoints only; the box goes around the whole person, as far as it lies in the
    image.
    """
    return {"bbox": list(person.box), "iscrowd": 0, **_keypoints(person)}


def crowd_index(people: Sequence[Person]) -> float:
    """How crowded an image is (CrowdPose, Li et al., CVPR 2019): the number of others' joints in a
    person's box over the number of its own, as the mean over people, 1 at most. People without
    keypoints do not count.
    """
    labelled = [person for person in people if (person.keypoints[:, 2] > 0).any()]
    if not labelled:
        return 0.0
    joints = np.stack([person.keypoints for person in labelled])  # (P, K, 3)
    x, y, w, h = np.array([person.box for person in labelled], np.float64).T[:, :, None, None]
    inside = (
        (joints[..., 0] >= x)
        & (joints[..., 0] <= x + w)
        & (joints[..., 1] >= y)
        & (joints[..., 1] <= y + h)
        & (joints[..., 2] > 0)
    ).sum(axis=2)  # (boxes, people)
    own = np.diagonal(inside)
    ratios = (inside.sum(axis=1) - own) / np.maximum(own, 1)
    return round(min(1.0, float(ratios.mean())), 4)


def _keypoints(person: Person) -> Record:
    flat = [value for x, y, flag in person.keypoints.tolist() for value in (x, y, int(flag))]
    return {"num_keypoints": int((person.keypoints[:, 2] > 0).sum()), "keypoints": flat}


def _run_lengths(mask: NDArray[np.bool_]) -> Record:
    """COCO's uncompressed form: lengths of runs of 0 and 1 in turn, down the columns, the first of
    0.
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"counts": np.diff(edges, prepend=0).tolist(), "size": list(mask.shape)}


def _polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Outlines [x, y, x, y, ...] of a mask that is not empty. They are traced at twice its size, so
    that a line of one pixel has an area, and run a quarter of a pixel inside the pixels' edges.
    """
    x0, y0, w, h = cv2.boundingRect(mask.view(np.uint8))
    doubled = cv2.resize(
        mask[y0 : y0 + h, x0 : x0 + w].view(np.uint8),
        (2 * w, 2 * h),
        interpolation=cv2.INTER_NEAREST,
    )
    outlines, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    simple = [cv2.approxPolyDP(outline, 1.0, True).reshape(-1, 2) for outline in outlines]
    kept = [points for points in simple if len(points) >= 3]
    if not kept:
        kept = [np.array([(0, 0), (2 * w - 1, 0), (2 * w - 1, 2 * h - 1), (0, 2 * h - 1)])]
    return [((points * 2 + 1) / 4 + [x0, y0]).ravel().tolist() for points in kept]
