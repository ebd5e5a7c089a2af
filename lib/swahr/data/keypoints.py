"""Data sets of people with labelled keypoints: one class for every file in COCO's format, and the table of the sets' file trees."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as run_lengths
from yacs.config import CfgNode

from swahr.data.check import AnnotationError, Report, person_category, read_annotations, repair, shorten
from swahr.data.images import Image, ImageError, ImageStore
from swahr.skeleton import Skeleton, get_skeleton

logger = logging.getLogger(__name__)


class ImageInfo(NamedTuple):
    """What an annotation file says of an image: id, file name, and size in pixels."""

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class ScaleSigma:
    """The sigma of a person's target Gaussians from the longer side of its box: side / base_size x base_sigma, in map pixels.

    whole: rounded up to whole numbers. (DATASET.SCALE_AWARE_SIGMA, BASE_SIZE, BASE_SIGMA, INT_SIGMA)
    """

    base_size: float = 256.0
    base_sigma: float = 2.0
    whole: bool = False

    def __call__(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) as x, y, width, height -> (N,)."""
        sigma = boxes[:, 2:].max(1) / self.base_size * self.base_sigma
        return (np.round(sigma + 0.5) if self.whole else sigma).astype(np.float32)


class Texts:
    """A list of texts in two arrays: worker processes share them, while a list of strings is copied page by page as it is read."""

    def __init__(self, texts: Iterable[str]) -> None:
        pieces = [text.encode() for text in texts]
        self._ends = np.cumsum([0, *map(len, pieces)])
        self._bytes = np.frombuffer(b"".join(pieces), np.uint8)

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index]:self._ends[index + 1]].tobytes().decode()


class KeypointDataset:
    """The images and people of one annotation file in COCO's format.

    What the file holds is kept in a few flat arrays, the annotations of image i in rows starts[i] to starts[i + 1], so that the
    data set is quickly pickled and forked workers share it. Raises AnnotationError when the file, or the set of image files,
    is not sound (strict), or repairs it and says so; see swahr.data.check.
    """

    def __init__(self, annotation_file: str | Path, images: ImageStore | str | Path, skeleton: Skeleton, *,
                 require_people: bool = False, min_keypoints: int = 0, strict: bool = True, with_center: bool = False,
                 sigma: ScaleSigma | None = None) -> None:
        """require_people: leave out images without annotations; min_keypoints: and those where nobody has that many labelled
        keypoints. with_center: the mean of a person's labelled joints is one more, last joint; sigma: joints get a fourth column.
        """
        self.annotation_file = Path(annotation_file)
        self.images = images if isinstance(images, ImageStore) else ImageStore(images)
        self.skeleton, self.with_center, self.sigma = skeleton, with_center, sigma
        data, report, self.category_id = _load(self.annotation_file, skeleton)
        self.has_annotations = "annotations" in data
        self._pack(data, skeleton.num_keypoints)
        keep = self._useful(require_people, min_keypoints)
        missing = self.images.missing(self._names[row] for row in keep)
        self._rows = np.array([row for row in keep if self._names[row] not in missing], np.intp) if missing else keep
        self.image_ids: list[int] = self._ids[self._rows].tolist()
        for name in sorted(missing):
            report.add(f"no image file {self.images.path(name)}", "image left out")
        self._repaired = report.count > 0
        report.settle(strict)
        if not self.image_ids:
            wanted = f" in which somebody has {max(min_keypoints, 1)} labelled keypoints" if min_keypoints else " with people"
            raise AnnotationError(f"{annotation_file}: no image{wanted if require_people or min_keypoints else ''} is left to work with")

    def _pack(self, data: dict[str, Any], num_keypoints: int) -> None:
        images, annotations = data["images"], data.get("annotations", [])
        self._ids = np.array([image["id"] for image in images], np.int64)
        self._sorted = np.argsort(self._ids)
        self._names = Texts(image["file_name"] for image in images)
        self._sizes = np.array([(image["width"], image["height"]) for image in images], np.int32)
        rows = self._find(np.array([a["image_id"] for a in annotations], np.int64))
        annotations = [annotations[i] for i in np.argsort(rows, kind="stable")]
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(images)))])
        shape = (len(annotations), num_keypoints, 3)
        self._keypoints = np.array([a["keypoints"] for a in annotations], np.float32).reshape(shape)
        self._boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
        labelled = (self._keypoints[..., 2] > 0).sum(1)
        counts = [a.get("num_keypoints", count) for a, count in zip(annotations, labelled.tolist())]
        crowd = [bool(a.get("iscrowd")) for a in annotations]
        self._is_person = np.array([not c or n > 0 for c, n in zip(crowd, counts)], bool)
        self._labelled = labelled.astype(np.int32)
        # Only crowds and people without keypoints are masked, so only their outlines are kept.
        outlines = [json.dumps(a["segmentation"]) if (c or not n) and a.get("segmentation") else ""
                    for a, c, n in zip(annotations, crowd, counts)]
        self._outlines, self._is_masked = Texts(outlines), np.array([bool(text) for text in outlines], bool)

    def _find(self, image_ids: NDArray[np.int64]) -> NDArray[np.intp]:
        """Rows of images by id; the ids must be there."""
        return self._sorted[np.searchsorted(self._ids, image_ids, sorter=self._sorted)]

    def _useful(self, require_people: bool, min_keypoints: int) -> NDArray[np.intp]:
        useful = np.ones(len(self._ids), bool)
        if require_people:
            useful &= np.diff(self._starts) > 0
        if min_keypoints > 0:
            owner = np.repeat(np.arange(len(self._ids)), np.diff(self._starts))
            most = np.zeros(len(self._ids), np.int32)
            np.maximum.at(most, owner, self._labelled)
            useful &= most >= min_keypoints
        return np.flatnonzero(useful)

    def __len__(self) -> int:
        return len(self.image_ids)

    def _row(self, image_id: int) -> int:
        place = np.searchsorted(self._ids, image_id, sorter=self._sorted)
        row = int(self._sorted[place]) if place < len(self._ids) else -1
        if row < 0 or self._ids[row] != image_id:
            raise KeyError(f"{self.annotation_file}: there is no image {image_id}")
        return row

    def _span(self, image_id: int) -> slice:
        row = self._row(image_id)
        return slice(int(self._starts[row]), int(self._starts[row + 1]))

    def image_info(self, image_id: int) -> ImageInfo:
        row = self._row(image_id)
        return ImageInfo(int(image_id), self._names[row], *self._sizes[row].tolist())

    def read(self, image_id: int) -> Image:
        """The picture, (H, W, 3) uint8 RGB. ImageError, naming id and path, where it cannot be read or has not the size given."""
        info = self.image_info(image_id)
        try:
            image = self.images.read(info.file_name)
        except ImageError as error:
            raise ImageError(f"image {image_id}: {error}") from None
        if image.shape[:2] != (info.height, info.width):
            raise ImageError(f"image {image_id}: {self.images.path(info.file_name)}: the file has {image.shape[1]} x {image.shape[0]} "
                             f"pixels, the annotation file says {info.width} x {info.height}")
        return image

    def joints(self, image_id: int) -> NDArray[np.float32]:
        """(N, K, 3) x, y in px and visibility, > 0 where labelled; (N, K, 4) with sigma. Crowds without keypoints are left out."""
        span = self._span(image_id)
        people = np.flatnonzero(self._is_person[span]) + span.start
        joints = self._keypoints[people]
        if self.with_center:
            joints = np.concatenate([joints, _centers(joints)], 1)
        if self.sigma is not None:
            sigma = np.broadcast_to(self.sigma(self._boxes[people])[:, None, None], (*joints.shape[:2], 1))
            joints = np.concatenate([joints, sigma], 2)
        return joints

    def mask(self, image_id: int) -> NDArray[np.uint8]:
        """(H, W): 0 on crowds and on people without keypoints, as far as they have outlines, 1 elsewhere."""
        span, info = self._span(image_id), self.image_info(image_id)
        mask = np.ones((info.height, info.width), np.uint8)
        for row in np.flatnonzero(self._is_masked[span]) + span.start:
            try:
                mask[_draw(json.loads(self._outlines[row]), info.height, info.width) > 0] = 0
            except (TypeError, ValueError, IndexError, KeyError):
                raise ImageError(f"image {image_id}: {self.images.path(info.file_name)}: the segmentation of one of its annotations "
                                 f"cannot be drawn: {shorten(self._outlines[row])}") from None
        return mask

    @property
    def coco(self) -> Path | dict[str, Any]:
        """What results are scored against: the annotation file or, where it was repaired, its repaired contents."""
        if not self._repaired:
            return self.annotation_file
        data, _, _ = _load(self.annotation_file, self.skeleton)
        used = set(self.image_ids)
        data["images"] = [image for image in data["images"] if image["id"] in used]
        data["annotations"] = [a for a in data.get("annotations", []) if a["image_id"] in used]
        return data


def _load(path: Path, skeleton: Skeleton) -> tuple[dict[str, Any], Report, int]:
    data, report = read_annotations(path), Report(path)
    category_id = person_category(data, skeleton, path)
    repair(data, category_id, skeleton, report)
    return data, report, category_id


def _centers(joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, K, 3) -> (N, 1, 3): the mean of each person's labelled joints, labelled where there is one."""
    labelled = (joints[..., 2:] > 0).astype(np.float32)
    count = labelled.sum(1, keepdims=True)
    return np.concatenate([(joints[..., :2] * labelled).sum(1, keepdims=True) / np.maximum(count, 1), count > 0], 2, dtype=np.float32)


def _draw(outline: Any, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W), 1 inside: an outline is a list of polygons, or run lengths, packed into text or not (COCO's formats)."""
    if isinstance(outline, list):
        outline = run_lengths.merge(run_lengths.frPyObjects(outline, height, width))
    elif isinstance(outline["counts"], list):
        outline = run_lengths.frPyObjects(outline, height, width)
    return run_lengths.decode(outline)


@dataclass(frozen=True)
class DatasetSpec:
    """Where the files of a data set are below its root, as patterns of the split's name; of several, the first that exists."""

    skeleton: str
    annotations: tuple[str, ...]
    images: tuple[str, ...]
    protocol: str  # of scoring, see swahr.evaluation.metrics
    test_images: tuple[str, ...] = ()  # the same for splits called test-something


_COCO = DatasetSpec("coco", ("annotations/person_keypoints_{split}.json", "annotations/image_info_{split}.json"), ("images/{split}",),
                    "coco", ("images/{split}", "images/test2017"))
_CROWD_POSE = DatasetSpec("crowd_pose", ("json/crowdpose_{split}.json",), ("images",), "crowd_pose")
DATASETS = {"coco": _COCO, "coco_kpt": _COCO, "crowd_pose": _CROWD_POSE, "crowd_pose_kpt": _CROWD_POSE}


def dataset_spec(cfg: CfgNode, train: bool) -> DatasetSpec:
    """The tree and scoring protocol of DATASET.DATASET or DATASET.DATASET_TEST; sets of your own have COCO's."""
    name = cfg.DATASET.DATASET if train else cfg.DATASET.DATASET_TEST
    if name not in DATASETS and not cfg.DATASET.SKELETON:
        raise AnnotationError(f"unknown data set {name!r}: it is one of {', '.join(DATASETS)}, or any name with DATASET.SKELETON")
    return DATASETS.get(name, _COCO)


def build_dataset(cfg: CfgNode, split: str, train: bool, *, root: str | Path | None = None,
                  skeleton: Skeleton | None = None) -> KeypointDataset:
    """The split of the configured data set, for training (images with people) or testing (all).

    root, skeleton: what DATASET.ROOT and the data set's or DATASET.SKELETON's name stand for, where they were looked up already;
    the skeleton is that of the annotations, without centre. Raises AnnotationError, ImageError, SkeletonError.
    """
    data, spec = cfg.DATASET, dataset_spec(cfg, train)
    root = Path(data.ROOT if root is None else root)
    suffix = ".zip" if data.DATA_FORMAT == "zip" else ""
    patterns = spec.test_images if "test" in split and spec.test_images else spec.images
    sigma = ScaleSigma(data.BASE_SIZE, data.BASE_SIGMA, data.INT_SIGMA) if data.SCALE_AWARE_SIGMA else None
    return KeypointDataset(
        _first(root, spec.annotations, split, ""), _first(root, patterns, split, suffix),
        skeleton or get_skeleton(data.SKELETON or spec.skeleton), require_people=train, strict=data.STRICT,
        min_keypoints=data.MIN_KEYPOINTS if train else 0, with_center=data.WITH_CENTER, sigma=sigma)


def _first(root: Path, patterns: Sequence[str], split: str, suffix: str) -> Path:
    paths = [root / (pattern.format(split=split) + suffix) for pattern in patterns]
    return next((path for path in paths if path.exists()), paths[0])
