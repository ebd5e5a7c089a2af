"""The people of a user's images as files, kept safe while they are found: people.json in COCO's
format, and lines that are written as people are found, see people_lines.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swahr.distributed import comm
from swahr.distributed.signals import StopRequest
from swahr.engine.people_lines import LineFile
from swahr.evaluation.results import DECIMALS, PartFiles, Record
from swahr.files import write_text
from swahr.inference.predictor import Prediction
from swahr.skeleton import Skeleton

JSON_NAME = "people.json"
PARTS = ".people_parts"  # folder of the results so far
CATEGORY = 1
NOT_FOUND, UNSURE, FOUND = 0, 1, 2  # visibility of a joint
TIME_DECIMALS = 6  # of a frame's time in seconds


class Moment(NamedTuple):
    """A frame of a video: its index from 0, and its time in seconds from the start."""

    frame: int
    time: float


class Summary(NamedTuple):
    """What was found in all images together.

    images: number of those that are done. empty: number of those without people in the files.
    people: number of people in the files. best_score: highest score of a person, also of those who
    are not in the files; None if nobody was found. skipped: names of the files that cannot be used,
    with the reasons.
    """

    images: int
    empty: int
    people: int
    best_score: float | None
    skipped: dict[str, str]


class PeopleFile:
    """The file people.json of a folder, and files of lines beside it.

    Each process adds the images that are done, which are written to part files at once. Leaving the
    `with` block, at the end or by an error, merges them: nothing that was added is lost. After a
    kill -9 the part files remain in `.people_parts`, one line of JSON for each image.

    info: the entry "info" of the file. threshold: lowest score of the people in the file; -inf
    keeps all. joint_threshold: see `to_annotations`. lines: see people_lines. write_json: whether
    people.json is written; otherwise the lines are all that is kept.

    summary: of all images, known after the `with` block.
    """

    def __init__(
        self,
        folder: Path,
        skeleton: Skeleton,
        info: dict[str, Any],
        *,
        threshold: float,
        joint_threshold: float,
        lines: Sequence[LineFile] = (),
        write_json: bool = True,
    ) -> None:
        self.path = folder / JSON_NAME
        self.lines = tuple(lines)
        self.write_json = write_json
        self.skeleton = skeleton
        self.info = info
        self.threshold = threshold
        self.joint_threshold = joint_threshold
        self.summary = Summary(0, 0, 0, None, {})
        self._parts = PartFiles(folder / PARTS, "people")

    def __enter__(self) -> PeopleFile:
        if comm.is_main():
            self._parts.clear()
            for file in self.lines:
                file.begin()
        return self

    def add(
        self,
        index: int,
        name: str,
        size: tuple[int, int],
        prediction: Prediction,
        moment: Moment | None = None,
        ids: Sequence[int] | None = None,
    ) -> None:
        """Keep the people of the image at this index.

        size: (w, h) of the image in pixels. moment: of a video's frame. ids: of the people, see
        Tracker; each gets its id as "track_id", and those with -1 none. Raises WriteError if the
        disk is full.
        """
        image = {"file_name": name, "width": size[0], "height": size[1]}
        people = to_annotations(prediction, size, self.threshold, self.joint_threshold, ids)
        if moment is not None:
            place = {"frame": moment.frame, "time": round(moment.time, TIME_DECIMALS)}
            image |= place
            people = [place | person for person in people]
        for file in self.lines:
            file.add(image, people)
        best_score = max(map(float, prediction.scores), default=None)
        found = {"people": len(people), "best_score": best_score}
        kept = people if self.write_json else []
        self._parts.append(comm.rank(), index, [image, found, *kept])

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
        counts: list[int] = []
        best_scores: list[float] = []
        skipped: dict[str, str] = {}
        for _, (image, *rest) in sorted(self._parts.read().items()):
            if "problem" in image:
                skipped[image["file_name"]] = image["problem"]
                continue
            found, *people = rest
            counts.append(found["people"])
            if found["best_score"] is not None:
                best_scores.append(found["best_score"])
            images.append({"id": len(images) + 1, **image})
            for person in people:
                head = {"id": len(annotations) + 1, "image_id": len(images)}
                annotations.append(head | person)
        self.summary = Summary(
            images=len(images),
            empty=counts.count(0),
            people=sum(counts),
            best_score=max(best_scores, default=None),
            skipped=skipped,
        )
        if self.write_json and (complete or images):
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
    prediction: Prediction,
    size: tuple[int, int],
    threshold: float,
    joint_threshold: float,
    ids: Sequence[int] | None = None,
) -> list[Record]:
    """COCO annotations, without ids, of the people of an image whose score is at least `threshold`.

    size: (w, h) of the image in pixels. Coordinates are in pixels of the image. The visibility of a
    joint is 2, or 1 if its score is at most joint_threshold, or 0 with x = y = 0 if it was not
    found or lies outside the image; joints less than a pixel outside are moved to the edge. The
    scores of all joints are in "keypoint_scores". bbox is the box around the joints with a
    visibility, at least a pixel wide and high, and area is its area. People without such a joint
    are dropped. ids: of the people, written as "track_id"; -1 for none.
    """
    identities = [-1] * len(prediction.scores) if ids is None else [int(i) for i in ids]
    points = np.asarray(prediction.keypoints, np.float64)
    limit = np.asarray(size, np.float64)
    annotations = []
    scores_of_people = np.asarray(prediction.scores, np.float64).tolist()
    for person, score, identity in zip(points, scores_of_people, identities):
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
                **({"track_id": identity} if identity >= 0 else {}),
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
