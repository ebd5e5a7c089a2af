"""Data sets of people with labelled keypoints: one class for every file in COCO's format."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from yacs.config import CfgNode

from swahr.data.annotation_arrays import AnnotationArrays, ImageInfo
from swahr.data.annotation_check import load_annotations
from swahr.data.annotation_report import AnnotationError
from swahr.data.image_header import UPRIGHT, image_header
from swahr.data.images import AbsentImages, Image, ImageError, ImageStore, read_image
from swahr.data.joints import ScaleSigma, joint_centers
from swahr.data.outlines import draw_mask
from swahr.data.plausibility import check_plausibility, flip_problem
from swahr.data.trees import DatasetSpec, dataset_spec
from swahr.skeleton import SKELETON_OF, Skeleton, get_skeleton
from swahr.words import counted

logger = logging.getLogger(__name__)


class KeypointDataset:
    """The images and people of one annotation file in COCO's format. It pickles quickly, and forked
    workers share it.

    Raises AnnotationError if the file has problems, or if image files are missing. With
    strict=False, what can be repaired is repaired, the rest is skipped, and both are logged; see
    swahr.data.annotation_check.
    """

    def __init__(
        self,
        annotation_file: str | Path,
        images: ImageStore | str | Path,
        skeleton: Skeleton,
        *,
        categories: Sequence[str] = (),
        require_people: bool = False,
        negatives: bool = False,
        min_keypoints: int = 0,
        strict: bool = True,
        with_center: bool = False,
        sigma: ScaleSigma | None = None,
    ) -> None:
        """images: their folder or zip file. categories: names of those that are used, taken as one;
        by default all whose keypoints are the skeleton's.

        require_people: skip images without annotations. min_keypoints: skip images in which nobody
        has that many labelled keypoints. negatives: keep images without annotations all the same.
        with_center: add a joint that the skeleton does not have yet, the mean of a person's
        labelled joints. sigma: joints get a fourth column.
        """
        self.annotation_file = Path(annotation_file)
        self.images = images if isinstance(images, ImageStore) else ImageStore(images)
        self.skeleton = skeleton
        self.categories = tuple(categories)
        self.with_center = with_center
        self.sigma = sigma
        loaded = load_annotations(self.annotation_file, skeleton, self.categories)
        self.report = loaded.report
        self.category_id = loaded.category_id
        self.has_annotations = "annotations" in loaded.data
        self.arrays = AnnotationArrays(loaded.data, skeleton.num_keypoints)
        self.category_ids = loaded.category_ids
        del loaded  # a gigabyte for COCO
        if self.has_annotations or require_people:  # images to be tested need none
            check_plausibility(self.arrays, skeleton, self.report)
        self.image_ids = self._with_files(self._useful(require_people, negatives, min_keypoints))
        self.report.raise_or_warn(strict)
        if not self.image_ids:
            kind = "a file"
            if min_keypoints:
                kind = f"{counted(min_keypoints, 'labelled keypoint')} and a file"
            elif require_people:
                kind = "people and a file"
            raise AnnotationError(self.report.failure(f"no image with {kind} is left to work with"))
        self._orientation_named = False

    def _useful(self, require_people: bool, negatives: bool, min_keypoints: int) -> list[int]:
        """The rows of the images that are used, whether or not their files exist."""
        useful = self.arrays.most_labelled() >= min_keypoints
        has_people = np.diff(self.arrays.starts) > 0
        if require_people:
            useful &= has_people
        if negatives:
            useful |= ~has_people
        return np.flatnonzero(useful).tolist()

    def _with_files(self, rows: Sequence[int]) -> list[int]:
        """The ids of the images of some rows, less those without a file, which are reported."""
        names = {int(self.arrays.ids[row]): self.arrays.name(row) for row in rows}
        missing = self.images.missing(names.values())
        for name in sorted(missing):
            hint = "; only / separates folders in file_name" if "\\" in name else ""
            self.report.add(f"no image file {self.images.path(name)}{hint}", "image skipped")
        self.report.skipped_images |= {i for i, name in names.items() if name in missing}
        return [image_id for image_id, name in names.items() if name not in missing]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def trained_skeleton(self) -> Skeleton:
        """The skeleton of `joints`, with the centre if there is one."""
        return self.skeleton.trained(self.with_center)

    def examples(self, count: int) -> list[int]:
        """The ids of at most `count` images with labelled people, spread evenly over the set; of
        any images where nobody is labelled. Always the same ones.
        """
        rows = np.flatnonzero(self.arrays.most_labelled() > 0)
        labelled = np.intersect1d(self.arrays.ids[rows], self.image_ids)
        ids = labelled if len(labelled) else np.array(self.image_ids)
        chosen = np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int)
        return ids[chosen].tolist()

    def image_info(self, image_id: int) -> ImageInfo:
        """What the annotation file says of the image with this id."""
        return self.arrays.info(image_id)

    def describe_image(self, image_id: int) -> str:
        """An image's id and path, for messages."""
        return f"image {image_id}: {self.images.path(self.image_info(image_id).file_name)}"

    def read(self, image_id: int) -> Image:
        """The image (H, W, 3) uint8 RGB, in the pixels that its annotations refer to.

        These are the stored pixels, as in COCO, whatever the EXIF orientation says; the first such
        image is logged. If the annotation file gives the size of the turned image, it is turned.
        ImageError, with id and path, if the image cannot be read or has another size; a wrong size
        is found before the image is decoded.
        """
        image, orientation_problem = self.read_and_check(image_id)
        if orientation_problem and not self._orientation_named:
            self._orientation_named = True  # in each process once; a set may have thousands
            logger.warning(
                "%s (the first such image; tools/check_dataset.py --read-images names all)",
                orientation_problem,
            )
        return image

    def read_and_check(self, image_id: int) -> tuple[Image, str]:
        """The image as `read` gives it, and a line on its EXIF orientation if that is ignored."""
        info = self.image_info(image_id)
        name = self.images.path(info.file_name)
        try:
            data = self.images.read_bytes(info.file_name)
            header = image_header(data)
            upright = header is not None and header.is_turned_to((info.width, info.height))
            if header is not None and not upright:
                self._check_size(image_id, header.width, header.height)
            image = read_image(data, name, honour_exif=upright)
        except ImageError as error:
            text = str(error)
            line = text if text.startswith(f"image {image_id}: ") else f"image {image_id}: {text}"
            raise ImageError(line) from None
        self._check_size(image_id, image.shape[1], image.shape[0])
        if header is None or header.orientation == UPRIGHT or upright:
            return image, ""
        return image, (
            f"image {image_id}: {name}: its EXIF orientation {header.orientation} is ignored, "
            "because annotations refer to the stored pixels, as in COCO"
        )

    def _check_size(self, image_id: int, width: int, height: int) -> None:
        info = self.image_info(image_id)
        if (width, height) != (info.width, info.height):
            raise ImageError(
                f"{self.describe_image(image_id)}: the file has {width} x {height} pixels, "
                f"the annotation file says {info.width} x {info.height}"
            )

    def joints(self, image_id: int) -> NDArray[np.float32]:
        """(N, K, 3): x, y in px and visibility (> 0: labelled) of the people; with sigma (N, K, 4).
        Crowds without keypoints are not among them.
        """
        people = self.arrays.rows(image_id, self.arrays.is_person)
        joints = self.arrays.keypoints[people]
        if self.with_center:
            joints = np.concatenate([joints, joint_centers(joints)], 1)
        if self.sigma is not None:
            sigma = np.broadcast_to(
                self.sigma(self.arrays.boxes[people])[:, None, None], (*joints.shape[:2], 1)
            )
            joints = np.concatenate([joints, sigma], 2)
        return joints

    def mask(self, image_id: int) -> NDArray[np.uint8]:
        """(H, W): 0 on crowds and on people without keypoints, as far as they have outlines; 1
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
                f"{self.describe_image(image_id)}: a segmentation of its annotations is broken "
                f"({error})"
            ) from None

    @property
    def coco(self) -> dict[str, Any]:
        """The annotations that results are scored against, in COCO's format: those that this data
        set uses, repaired as it repaired them. The file is read again, so that they take no memory
        in the meantime.
        """
        data = load_annotations(self.annotation_file, self.skeleton, self.categories).data
        used = set(self.image_ids)
        data["images"] = [image for image in data["images"] if image["id"] in used]
        data["annotations"] = [a for a in data.get("annotations", []) if a["image_id"] in used]
        return data


def _open_images(
    spec: DatasetSpec, root: Path, split: str, data_format: str, need_images: bool
) -> ImageStore:
    """The images of a split; ImageError, which names the other DATA_FORMAT if that is there, where
    they are needed and missing.
    """
    paths = {
        "jpg": spec.image_folder(root, split),
        "zip": spec.image_folder(root, split, ".zip"),
    }
    images = paths.pop(data_format)
    if images.exists():
        return ImageStore(images)
    if not need_images:
        return AbsentImages(images)
    for other_format, other in paths.items():
        if other.exists():
            raise ImageError(
                f"{images}: is not there, but {other} is; set DATASET.DATA_FORMAT {other_format}"
            )
    return ImageStore(images)


def build_dataset(
    cfg: CfgNode,
    split: str,
    train: bool,
    *,
    root: str | Path | None = None,
    skeleton: Skeleton | None = None,
    need_images: bool = True,
) -> KeypointDataset:
    """The split of the configured data set, for training (images with people, unless
    DATASET.NEGATIVES) or testing (all).

    root, skeleton: what the paths DATASET.ROOT and DATASET.SKELETON stand for, if they were
    resolved already; the skeleton is that of the annotations, without centre. need_images: False
    allows that the images are not there at all, for scoring. Raises AnnotationError, ImageError,
    SkeletonError.
    """
    data = cfg.DATASET
    spec = dataset_spec(cfg, train)
    root = Path(data.ROOT if root is None else root)
    name = data.DATASET if train else data.DATASET_TEST
    skeleton = skeleton or get_skeleton(data.SKELETON or SKELETON_OF[name])
    mirrors = train and data.FLIP > 0 and "flip" in data.TRANSFORMS
    if mirrors and (problem := flip_problem(skeleton)):
        logger.warning("%s (DATASET.FLIP is %g)", problem, data.FLIP)
    sigma = None
    if data.SCALE_AWARE_SIGMA:
        sigma = ScaleSigma(data.BASE_SIZE, data.BASE_SIGMA, data.INT_SIGMA)
    return KeypointDataset(
        spec.annotation_file(root, split),
        _open_images(spec, root, split, data.DATA_FORMAT, need_images),
        skeleton,
        categories=[category for category in data.CATEGORIES if category],
        require_people=train,
        negatives=train and data.NEGATIVES,
        strict=data.STRICT,
        min_keypoints=data.MIN_KEYPOINTS if train else 0,
        with_center=data.WITH_CENTER,
        sigma=sigma,
    )
