"""Where the files of a data set are below its root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from swahr.data.annotation_report import AnnotationError


@dataclass(frozen=True)
class DatasetSpec:
    """The files of a data set below its root, as patterns of the split's name. Of several patterns,
    the first that exists is used.

    protocol: of scoring, see swahr.evaluation.metrics. test_images: patterns of the images of
    splits called test-something, if they differ.
    """

    protocol: str
    annotations: tuple[str, ...]
    images: tuple[str, ...]
    test_images: tuple[str, ...] = ()

    def annotation_file(self, root: Path, split: str) -> Path:
        """The annotation file of a split; the first pattern's if none exists."""
        return _first(root, self.annotations, split)

    def image_folder(self, root: Path, split: str, suffix: str = "") -> Path:
        """The folder of the images of a split; with the suffix ".zip", their zip file."""
        folders = self.test_images if self.test_images and "test" in split else self.images
        return _first(root, [folder + suffix for folder in folders], split)


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
    """The tree and scoring protocol of DATASET.DATASET or DATASET.DATASET_TEST. Sets with a
    skeleton file have COCO's.
    """
    name = cfg.DATASET.DATASET if train else cfg.DATASET.DATASET_TEST
    if name not in DATASETS and not cfg.DATASET.SKELETON:
        known = ", ".join(DATASETS)
        raise AnnotationError(
            f"unknown data set {name!r}: it is one of {known}, or any name with DATASET.SKELETON"
        )
    return DATASETS.get(name, _COCO)


def _first(root: Path, patterns: Sequence[str], split: str) -> Path:
    paths = [root / pattern.format(split=split) for pattern in patterns]
    return next((path for path in paths if path.exists()), paths[0])
