"""The images and people of an annotation file in a few flat arrays.

COCO's training set has 118,287 images and 262,465 people. The dictionaries of the file take 2 GB,
and each data loading worker would get its own copy, because reading a Python object writes to its
memory page. Arrays take 100 MB, and workers share them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class ImageInfo(NamedTuple):
    """An image of an annotation file: id, file name, and size in pixels."""

    id: int
    file_name: str
    width: int
    height: int


class PackedStrings:
    """A list of texts, stored as their bytes one after another."""

    def __init__(self, texts: Iterable[str]) -> None:
        pieces = [text.encode() for text in texts]
        self._ends = np.cumsum([0, *map(len, pieces)])
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].tobytes().decode()


class AnnotationArrays:
    """I images and A annotations (sorted by image) of an annotation file that was checked, see
    swahr.data.annotation_check.

    ids (I,). starts (I + 1,): the annotations of image i are rows starts[i] to starts[i + 1].
    annotation_ids (A,).
    keypoints (A, K, 3) float32. boxes (A, 4) float32: x, y, width, height. labelled (A,): number of
    keypoints with a visibility above 0. is_crowd (A,). is_person (A,): not a crowd, or a crowd with
    keypoints.
    is_masked (A,): a crowd, or without keypoints, and with an outline.
    """

    def __init__(self, data: dict[str, Any], num_keypoints: int) -> None:
        """data: contents of the annotation file, people only. num_keypoints: K."""
        images = data["images"]
        annotations = data.get("annotations", [])
        self.ids = np.array([image["id"] for image in images], np.int64)
        self._by_id = np.argsort(self.ids)
        self._names = PackedStrings(image["file_name"] for image in images)
        self._sizes = np.array([(image["width"], image["height"]) for image in images], np.int32)
        owner = self._nearest(np.array([a["image_id"] for a in annotations], np.int64))
        annotations = [annotations[i] for i in np.argsort(owner, kind="stable")]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(images)))])
        self.annotation_ids = np.array([a["id"] for a in annotations], np.int64)
        shape = (len(annotations), num_keypoints, 3)
        self.keypoints = np.array([a["keypoints"] for a in annotations], np.float32).reshape(shape)
        self.boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
        self.labelled = (self.keypoints[..., 2] > 0).sum(1)
        counts = [
            a.get("num_keypoints", count) for a, count in zip(annotations, self.labelled.tolist())
        ]
        crowd = [bool(a.get("iscrowd")) for a in annotations]
        self.is_crowd = np.array(crowd, bool)
        self.is_person = np.array([not c or n > 0 for c, n in zip(crowd, counts)], bool)
        outlines = [
            json.dumps(a["segmentation"]) if (c or not n) and a.get("segmentation") else ""
            for a, c, n in zip(annotations, crowd, counts)
        ]
        self._outlines = PackedStrings(outlines)
        self.is_masked = np.array([bool(text) for text in outlines], bool)

    def _nearest(self, image_ids: Any) -> Any:
        """The rows of images by their ids; of an unknown id, that of some other image."""
        position = np.searchsorted(self.ids, image_ids, sorter=self._by_id)
        return self._by_id[np.minimum(position, len(self.ids) - 1)]

    def row(self, image_id: int) -> int:
        """The row of an image; KeyError if there is none."""
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

    def sizes_of_annotations(self) -> NDArray[np.int32]:
        """(A, 2): width and height of each annotation's image."""
        return self._sizes[self.image_rows()]

    def image_rows(self) -> NDArray[np.int64]:
        """(A,): the row of each annotation's image."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.starts))

    def outlines(self, image_id: int) -> list[Any]:
        """Segmentations of the image's masked annotations: polygons or run lengths."""
        return [json.loads(self._outlines[row]) for row in self.rows(image_id, self.is_masked)]

    def most_labelled(self) -> NDArray[np.int64]:
        """(I,): the labelled keypoints of the person with most of them in each image, 0 without
        people.
        """
        most = np.zeros(len(self.ids), np.int64)
        np.maximum.at(most, self.image_rows(), self.labelled)
        return most
