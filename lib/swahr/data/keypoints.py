"""Data sets of people with labelled keypoints: one class for every COCO-format file, and the table
of the sets'
trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from yacs.config import CfgNode

from swahr.data.annotation_arrays import AnnotationArrays, ImageInfo
from swahr.data.annotation_check import person_category, read_annotations, repair
from swahr.data.annotation_report import AnnotationError, Report
from swahr.data.images import Image, ImageError, ImageStore
from swahr.data.outlines import draw_mask
from swahr.skeleton import SKELETON_OF, Skeleton, get_skeleton


@dataclass(frozen=True)
class ScaleSigma:
    """The sigma of a person's target Gaussians, in map pixels: longer side of its box / base_size x
    base_sigma.

    whole: rounded up to whole numbers. (DATASET.SCALE_AWARE_SIGMA, BASE_SIZE, BASE_SIGMA,
    INT_SIGMA)
    """

    base_size: float = 256.0
    base_sigma: float = 2.0
    whole: bool = False

    def __call__(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) as x, y, width, height -> (N,)."""
        sigma = boxes[:, 2:].max(1) / self.base_size * self.base_sigma
        return (np.round(sigma + 0.5) if self.whole else sigma).astype(np.float32)


class KeypointDataset:
    """The images and people of one annotation file in COCO's format; quickly pickled, and shared by
    forked workers.

    Raises AnnotationError where the file is not sound or image files are missing; with strict=False
    what can be repaired is repaired and logged. See swahr.data.annotation_check.
    """

    def __init__(
        self,
        annotation_file: str | Path,
        images: ImageStore | str | Path,
        skeleton: Skeleton,
        *,
        require_people: bool = False,
        min_keypoints: int = 0,
        strict: bool = True,
        with_center: bool = False,
        sigma: ScaleSigma | None = None,
    ) -> None:
        """images: their folder or zip file. require_people: leave out images without annotations;
        min_keypoints: and those where nobody has that many labelled keypoints. with_center: the
        mean of a person's labelled joints is one more, last joint, which the skeleton does not have
        yet. sigma: joints get a fourth column.
        """
        self.annotation_file = Path(annotation_file)
        self.images = images if isinstance(images, ImageStore) else ImageStore(images)
        self.skeleton = skeleton
        self.with_center = with_center
        self.sigma = sigma
        data, report, self.category_id = _load(self.annotation_file, skeleton)
        self.has_annotations = "annotations" in data
        self.arrays = arrays = AnnotationArrays(data, skeleton.num_keypoints)
        useful = arrays.most_labelled() >= min_keypoints
        if require_people:
            useful &= np.diff(arrays.starts) > 0
        names = {int(arrays.ids[row]): arrays.name(row) for row in np.flatnonzero(useful).tolist()}
        missing = self.images.missing(names.values())
        for name in sorted(missing):
            report.add(f"no image file {self.images.path(name)}", "image skipped")
        self.report = report
        report.raise_or_warn(strict)
        self.image_ids = [image_id for image_id, name in names.items() if name not in missing]
        if not self.image_ids:
            kind = (
                f"{min_keypoints} labelled keypoints"
                if min_keypoints
                else "people"
                if require_people
                else "a file"
            )
            raise AnnotationError(f"{annotation_file}: no image with {kind} is left to work with")

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_info(self, image_id: int) -> ImageInfo:
        return self.arrays.info(image_id)

    def where(self, image_id: int) -> str:
        """An image's id and path, for messages."""
        return f"image {image_id}: {self.images.path(self.image_info(image_id).file_name)}"

    def read(self, image_id: int) -> Image:
        """The image (H, W, 3) uint8 RGB. ImageError, with id and path, where it cannot be read or
        has another
        size.
        """
        info = self.image_info(image_id)
        try:
            image = self.images.read(info.file_name)
        except ImageError as error:
            raise ImageError(f"image {image_id}: {error}") from None
        height, width = image.shape[:2]
        if (width, height) != (info.width, info.height):
            raise ImageError(
                f"{self.where(image_id)}: the file has {width} x {height} pixels, "
                f"the annotation file says {info.width} x {info.height}"
            )
        return image

    def joints(self, image_id: int) -> NDArray[np.float32]:
        """(N, K, 3) x, y in px and visibility (> 0: labelled), with sigma (N, K, 4). Crowds without
        keypoints are left out.
        """
        people = self.arrays.rows(image_id, self.arrays.is_person)
        joints = self.arrays.keypoints[people]
        if self.with_center:
            joints = np.concatenate([joints, _centers(joints)], 1)
        if self.sigma is not None:
            sigma = np.broadcast_to(
                self.sigma(self.arrays.boxes[people])[:, None, None], (*joints.shape[:2], 1)
            )
            joints = np.concatenate([joints, sigma], 2)
        return joints

    def mask(self, image_id: int) -> NDArray[np.uint8]:
        """(H, W): 0 on crowds and on people without keypoints, as far as they have outlines, 1
        elsewhere.
        """
        info = self.image_info(image_id)
        outlines = self.arrays.outlines(image_id)
        if not outlines:
            return np.ones((info.height, info.width), np.uint8)
        try:
            return draw_mask(outlines, info.height, info.width)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise ImageError(
                f"{self.where(image_id)}: a segmentation of its annotations is broken ({error})"
            ) from None

    @property
    def coco(self) -> Path | dict[str, Any]:
        """What results are scored against: the annotation file or, where it was repaired, its
        repaired contents.
        """
        if not self.report.count:
            return self.annotation_file
        data = _load(self.annotation_file, self.skeleton)[0]
        used = set(self.image_ids)
        data["images"] = [image for image in data["images"] if image["id"] in used]
        data["annotations"] = [a for a in data.get("annotations", []) if a["image_id"] in used]
        return data


def _load(path: Path, skeleton: Skeleton) -> tuple[dict[str, Any], Report, int]:
    data = read_annotations(path)
    report = Report(path)
    category_id = person_category(data, skeleton, path)
    repair(data, category_id, skeleton, report)
    return data, report, category_id


def _centers(joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, K, 3) -> (N, 1, 3): the mean of each person's labelled joints, labelled where there is
    one.
    """
    labelled = joints[..., 2:] > 0
    count = labelled.sum(1, keepdims=True)
    mean = (joints[..., :2] * labelled).sum(1, keepdims=True) / np.maximum(count, 1)
    return np.concatenate([mean, count > 0], 2, dtype=np.float32)


@dataclass(frozen=True)
class DatasetSpec:
    """Where the files of a data set are below its root, as patterns of the split's name; of
    several, the first that exists.
    """

    protocol: str  # of scoring, see swahr.evaluation.metrics
    annotations: tuple[str, ...]
    images: tuple[str, ...]
    test_images: tuple[str, ...] = ()  # the same for splits called test-something


_COCO = DatasetSpec(
    protocol="coco",
    annotations=(
        "annotations/person_keypoints_{split}.json",
        "annotations/image_info_{split}.json",
    ),
    images=("images/{split}",),
    test_images=("images/{split}", "images/test2017"),
)
_CROWD_POSE = DatasetSpec(
    protocol="crowd_pose", annotations=("json/crowdpose_{split}.json",), images=("images",)
)
DATASETS = {
    "coco": _COCO,
    "coco_kpt": _COCO,
    "crowd_pose": _CROWD_POSE,
    "crowd_pose_kpt": _CROWD_POSE,
}


def dataset_spec(cfg: CfgNode, train: bool) -> DatasetSpec:
    """The tree and scoring protocol of DATASET.DATASET or DATASET.DATASET_TEST; sets of your own
    have COCO's.
    """
    name = cfg.DATASET.DATASET if train else cfg.DATASET.DATASET_TEST
    if name not in DATASETS and not cfg.DATASET.SKELETON:
        known = ", ".join(DATASETS)
        raise AnnotationError(
            f"unknown data set {name!r}: it is one of {known}, or any name with DATASET.SKELETON"
        )
    return DATASETS.get(name, _COCO)


def build_dataset(
    cfg: CfgNode,
    split: str,
    train: bool,
    *,
    root: str | Path | None = None,
    skeleton: Skeleton | None = None,
) -> KeypointDataset:
    """The split of the configured data set, for training (images with people) or testing (all).

    root, skeleton: what the paths DATASET.ROOT and DATASET.SKELETON stand for, where they were
    looked up already; the skeleton is that of the annotations, without centre. Raises
    AnnotationError, ImageError, SkeletonError.
    """
    data = cfg.DATASET
    spec = dataset_spec(cfg, train)
    name = data.DATASET if train else data.DATASET_TEST
    root = Path(data.ROOT if root is None else root)
    suffix = ".zip" if data.DATA_FORMAT == "zip" else ""
    folders = spec.test_images if spec.test_images and "test" in split else spec.images
    sigma = (
        ScaleSigma(data.BASE_SIZE, data.BASE_SIGMA, data.INT_SIGMA)
        if data.SCALE_AWARE_SIGMA
        else None
    )
    return KeypointDataset(
        _first(root, spec.annotations, split),
        _first(root, [folder + suffix for folder in folders], split),
        skeleton or get_skeleton(data.SKELETON or SKELETON_OF[name]),
        require_people=train,
        strict=data.STRICT,
        min_keypoints=data.MIN_KEYPOINTS if train else 0,
        with_center=data.WITH_CENTER,
        sigma=sigma,
    )


def _first(root: Path, patterns: Sequence[str], split: str) -> Path:
    paths = [root / pattern.format(split=split) for pattern in patterns]
    return next((path for path in paths if path.exists()), paths[0])
