"""The images and people of an annotation file in a few flat arrays.

COCO's training set has 118,287 images and 262,465 people. As the dictionaries of the file they take
2 GB, and each data loading worker comes to own a copy, because reading a Python object writes to
its page; arrays take 100 MB and are shared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class ImageInfo(NamedTuple):
    """What an annotation file says of an image: id, file name, and size in pixels."""

    id: int
    file_name: str
    width: int
    height: int


class PackedStrings:
    """A list of texts, kept as their bytes one after another."""

    def __init__(self, texts: Iterable[str]) -> None:
        pieces = [text.encode() for text in texts]
        self._ends = np.cumsum([0, *map(len, pieces)])
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].tobytes().decode()


class AnnotationArrays:
    """I images and A annotations (sorted by image) of a sound annotation file, see
    swahr.data.annotation_check.

    ids (I,); starts (I + 1,): the annotations of image i are rows starts[i] to starts[i + 1];
    keypoints (A, K, 3) float32; boxes (A, 4) float32 x, y, width, height; labelled (A,): number of
    keypoints with a visibility above 0; is_person (A,): not a crowd, or one with keypoints;
    is_masked (A,): a crowd, or without keypoints, and with an outline.
    """

    def __init__(self, data: dict[str, Any], num_keypoints: int) -> None:
        """data: contents of the annotation file, with people only; K = num_keypoints."""
        images = data["images"]
        annotations = data.get("annotations", [])
        self.ids = np.array([image["id"] for image in images], np.int64)
        self._by_id = np.argsort(self.ids)
        self._names = PackedStrings(image["file_name"] for image in images)
        self._sizes = np.array([(image["width"], image["height"]) for image in images], np.int32)
        owner = self._nearest(np.array([a["image_id"] for a in annotations], np.int64))
        annotations = [annotations[i] for i in np.argsort(owner, kind="stable")]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(images)))])
        shape = (len(annotations), num_keypoints, 3)
        self.keypoints = np.array([a["keypoints"] for a in annotations], np.float32).reshape(shape)
        self.boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
        self.labelled = (self.keypoints[..., 2] > 0).sum(1)
        counts = [
            a.get("num_keypoints", count) for a, count in zip(annotations, self.labelled.tolist())
        ]
        crowd = [bool(a.get("iscrowd")) for a in annotations]
        self.is_person = np.array([not c or n > 0 for c, n in zip(crowd, counts)], bool)
        outlines = [
            json.dumps(a["segmentation"]) if (c or not n) and a.get("segmentation") else ""
            for a, c, n in zip(annotations, crowd, counts)
        ]
        self._outlines = PackedStrings(outlines)
        self.is_masked = np.array([bool(text) for text in outlines], bool)

    def _nearest(self, image_ids: Any) -> Any:
        place = np.searchsorted(self.ids, image_ids, sorter=self._by_id)
        return self._by_id[np.minimum(place, len(self.ids) - 1)]

    def row(self, image_id: int) -> int:
        """The row of an image; KeyError where there is none."""
        row = int(self._nearest(image_id))
        if self.ids[row] != image_id:
            raise KeyError(f"there is no image {image_id}")
        return row

    def rows(self, image_id: int, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Rows of those of an image's annotations for which `chosen` (A,) is true."""
        row = self.row(image_id)
        start = self.starts[row]
        stop = self.starts[row + 1]
        return np.flatnonzero(chosen[start:stop]) + start

    def name(self, row: int) -> str:
        return self._names[row]

    def info(self, image_id: int) -> ImageInfo:
        row = self.row(image_id)
        return ImageInfo(int(image_id), self._names[row], *self._sizes[row].tolist())

    def outlines(self, image_id: int) -> list[Any]:
        """Segmentations of the image's masked annotations: polygons or run lengths."""
        return [json.loads(self._outlines[row]) for row in self.rows(image_id, self.is_masked)]

    def most_labelled(self) -> NDArray[np.int64]:
        """(I,): the number of labelled keypoints of each image's best labelled person; 0 where
        there is nobody.
        """
        most = np.zeros(len(self.ids), np.int64)
        np.maximum.at(
            most, np.repeat(np.arange(len(self.ids)), np.diff(self.starts)), self.labelled
        )
        return most
