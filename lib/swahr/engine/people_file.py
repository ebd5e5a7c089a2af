"""people.json: the people of a user's images in COCO's format, kept safe while they are found."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swahr.distributed import comm
from swahr.distributed.signals import StopRequest
from swahr.evaluation.results import DECIMALS, PartFiles, Record
from swahr.files import write_text
from swahr.inference.predictor import Prediction
from swahr.skeleton import Skeleton

JSON_NAME = "people.json"
PARTS = ".people_parts"  # folder of the results so far
CATEGORY = 1
NOT_FOUND, UNSURE, FOUND = 0, 1, 2  # visibility of a joint


class PeopleFile:
    """The file people.json of a folder.

    Each process adds the images that are done, which are written to part files at once. Leaving the
    `with` block, at the end or by an error, merges them: nothing that was added is lost. After a
    kill -9 the part files remain in `.people_parts`, one line of JSON for each image.

    info: the entry "info" of the file. threshold: lowest score of the people in the file; -inf
    keeps all. joint_threshold: see `to_annotations`.
    """

    def __init__(
        self,
        folder: Path,
        skeleton: Skeleton,
        info: dict[str, Any],
        *,
        threshold: float,
        joint_threshold: float,
    ) -> None:
        self.path = folder / JSON_NAME
        self.skeleton = skeleton
        self.info = info
        self.threshold = threshold
        self.joint_threshold = joint_threshold
        self.skipped: dict[str, str] = {}  # names and reasons, known after the `with` block
        self.count = 0  # images in the file, known after the `with` block
        self._parts = PartFiles(folder / PARTS, "people")

    def __enter__(self) -> PeopleFile:
        if comm.is_main():
            self._parts.clear()
        return self

    def add(self, index: int, name: str, size: tuple[int, int], prediction: Prediction) -> None:
        """Keep the people of the image at this index. size: (w, h) of the image in pixels. Raises
        WriteError if the disk is full.
        """
        image = {"file_name": name, "width": size[0], "height": size[1]}
        people = to_annotations(prediction, size, self.threshold, self.joint_threshold)
        self._parts.append(comm.rank(), index, [image, *people])

    def skip(self, index: int, name: str, problem: str) -> None:
        """Note that the image at this index cannot be used. Raises WriteError as `add`."""
        self._parts.append(comm.rank(), index, [{"file_name": name, "problem": problem}])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if comm.is_main():
            with StopRequest():  # a signal does not stop it half-way
                self._close(complete=error is None)

    def _close(self, complete: bool) -> None:
        """Write people.json from the part files, and remove these. complete: whether all images are
        done; otherwise an earlier file is kept if no image is.
        """
        images: list[Record] = []
        annotations: list[Record] = []
        for _, (image, *people) in sorted(self._parts.read().items()):
            if "problem" in image:
                self.skipped[image["file_name"]] = image["problem"]
                continue
            images.append({"id": len(images) + 1, **image})
            for person in people:
                head = {"id": len(annotations) + 1, "image_id": len(images)}
                annotations.append(head | person)
        self.count = len(images)
        if complete or images:
            content = {
                "info": self.info,
                "licenses": [],
                "images": images,
                "annotations": annotations,
                "categories": [person_category(self.skeleton)],
            }
            write_text(self.path, json.dumps(content))
        self._parts.clear()
        with suppress(OSError):  # it does not exist if no image was done
            self._parts.folder.rmdir()


def person_category(skeleton: Skeleton) -> dict[str, Any]:
    """The entry of COCO's list of categories; joints of limbs are counted from 1 there."""
    return {
        "id": CATEGORY,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }


def to_annotations(
    prediction: Prediction, size: tuple[int, int], threshold: float, joint_threshold: float
) -> list[Record]:
    """COCO annotations, without ids, of the people of an image whose score is at least `threshold`.

    size: (w, h) of the image in pixels. Coordinates are in pixels of the image. The visibility of a
    joint is 2, or 1 if its score is at most joint_threshold, or 0 with x = y = 0 if it was not
    found or lies outside the image; joints less than a pixel outside are moved to the edge. The
    scores of all joints are in "keypoint_scores". bbox is the box around the joints with a
    visibility, at least a pixel wide and high, and area is its area. People without such a joint
    are dropped.
    """
    points = np.asarray(prediction.keypoints, np.float64)
    limit = np.asarray(size, np.float64)
    annotations = []
    for person, score in zip(points, np.asarray(prediction.scores, np.float64).tolist()):
        places, scores = person[:, :2], person[:, 2]
        inside = ((places > -1) & (places < limit)).all(1) & (scores > 0)
        if score < threshold or not inside.any():
            continue
        visibility = np.where(scores > joint_threshold, FOUND, UNSURE) * inside
        places = np.where(inside[:, None], places.clip(0, limit - 1), 0).round(DECIMALS)
        box = _box(places[inside], limit)
        annotations.append(
            {
                "category_id": CATEGORY,
                "iscrowd": 0,
                "keypoints": _interleave(places, visibility),
                "keypoint_scores": scores.round(DECIMALS).tolist(),
                "num_keypoints": int(inside.sum()),
                "score": score,
                "bbox": box,
                "area": round(box[2] * box[3], DECIMALS),
            }
        )
    return annotations


def _box(places: NDArray[np.float64], limit: NDArray[np.float64]) -> list[float]:
    """x, y, width, height of the box around points (n, 2), at least a pixel wide and high, inside
    an image of `limit` (w, h).
    """
    low = places.min(0)
    sides = np.maximum(places.max(0) - low, 1)
    return [
        *np.minimum(low, limit - sides).round(DECIMALS).tolist(),
        *sides.round(DECIMALS).tolist(),
    ]


def _interleave(places: NDArray[np.float64], visibility: NDArray[np.integer]) -> list[float]:
    """[x, y, v, x, y, v, ...] of K points (K, 2); v is a whole number, as COCO's readers want."""
    return [
        value
        for (x, y), flag in zip(places.tolist(), visibility.tolist())
        for value in (x, y, flag)
    ]
