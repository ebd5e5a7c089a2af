"""Average precision (AP) and recall (AR) over object keypoint similarity (OKS), by the protocols of
COCO and CrowdPose.

COCO: the ten figures of pycocotools, with the areas of the annotations (COCO keypoint challenge;
Lin et al., ECCV 2014). CrowdPose: a person's area is 0.53 of its box. AP is also given for images
with a crowd index below 0.2 (easy), below 0.8 (medium) and the rest (hard), rounded to four digits
like that of the published tool (Li et al., CVPR 2019).
A figure is UNDEFINED (-1) if the annotations have nobody who counts for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from swahr.evaluation.figures import UNDEFINED, is_defined
from swahr.evaluation.pixels import PIXEL_NAMES
from swahr.evaluation.records import (
    EvaluationError,
    Record,
    checked_records,
    labelled_people,
    read_json,
)
from swahr.skeleton import Skeleton

logger = logging.getLogger(__name__)

__all__ = ["NAMES", "EvaluationError", "evaluate", "format_table"]

EASY = 0.2  # images with a crowd index below this are easy
MEDIUM = 0.8  # those below this are medium
NAMES = {
    "coco": (
        "AP",
        "AP .5",
        "AP .75",
        "AP (M)",
        "AP (L)",
        "AR",
        "AR .5",
        "AR .75",
        "AR (M)",
        "AR (L)",
    ),
    "crowd_pose": (
        "AP",
        "AP .5",
        "AP .75",
        "AR",
        "AR .5",
        "AR .75",
        "AP (easy)",
        "AP (medium)",
        "AP (hard)",
    ),
}
# Further figures of a validation: name -> function(dataset, records), called on the main process. A
# module of yours adds to it; TRAIN.BEST_METRIC may name such a figure.
METRICS: dict[str, Callable[[Any, list[dict[str, Any]]], float]] = {}
# The figures of which less is better, here the distances. A module of yours adds names to it.
LOWER_IS_BETTER: set[str] = set(PIXEL_NAMES[:2])
# Rows of the scorer's tables. OKS thresholds: 0.5, 0.55 .. 0.95. Areas: 0 = all, 1 = 32^2 .. 96^2
# px, 2 = larger.
_THRESHOLDS = {"": slice(None), " .5": slice(0, 1), " .75": slice(5, 6)}
_AREAS = {" (M)": 1, " (L)": 2}


def evaluate(
    ground_truth: str | Path | Mapping[str, Any],
    records: str | Path | Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
    protocol: str = "coco",
) -> dict[str, float]:
    """Score result records against annotations in COCO's format.

    ground_truth: the annotations; where a KeypointDataset is at work these are its `coco`, so that
    what was repaired or skipped there is scored that way. records: the results. Both may be files
    or their contents. skeleton: gives the sigmas of OKS. protocol: "coco" or "crowd_pose".

    Returns the figures of NAMES[protocol]; those that nobody labelled counts for are UNDEFINED.
    Raises EvaluationError for files, annotations and records that do not fit.
    """
    if protocol not in NAMES:
        raise EvaluationError(
            f"unknown scoring protocol {protocol!r}: it is one of {', '.join(NAMES)}"
        )
    truth = read_json(ground_truth, "annotations", dict)
    people = labelled_people(truth, skeleton)
    labelled = COCO(people, print_function=logger.debug)
    found = checked_records(
        read_json(records, "results", list),
        labelled.imgs,
        {category["id"] for category in people["categories"]},
        3 * skeleton.num_keypoints,
    )
    if not labelled.anns:
        logger.warning("nobody is labelled in any image: there are no figures")
        return dict.fromkeys(NAMES[protocol], UNDEFINED)
    if not found:
        logger.warning("nobody was found in any image: the figures are 0")
    scorer = _Scorer(labelled, found, skeleton.sigmas, protocol == "crowd_pose")
    precision, recall = scorer.tables()
    stats: dict[str, float] = {}
    for name, rows in _THRESHOLDS.items():
        stats |= {
            f"AP{name}": _mean(precision[rows, ..., 0, -1]),
            f"AR{name}": _mean(recall[rows, ..., 0, -1]),
        }
    for name, area in _AREAS.items():
        stats |= {
            f"AP{name}": _mean(precision[..., area, -1]),
            f"AR{name}": _mean(recall[..., area, -1]),
        }
    if protocol == "crowd_pose":
        stats |= {
            f"AP ({level})": scorer.rounded_ap(ids)
            for level, ids in _by_crowding(people["images"]).items()
        }
    return {name: stats[name] for name in NAMES[protocol]}


def format_table(name: str, stats: Mapping[str, float]) -> str:
    """The figures as a Markdown table of one row, with three decimals as in papers; undefined
    figures are "-".
    """
    head = f"| Arch | {' | '.join(stats)} |"
    values = " | ".join(f"{value:.3f}" if is_defined(value) else "-" for value in stats.values())
    return "\n".join([head, "|---" * (len(stats) + 1) + "|", f"| {name} | {values} |"])


class _Scorer:
    """faster-coco-eval's scorer without its summary, which overwrites the tables it sums up."""

    def __init__(
        self, labelled: COCO, found: list[Record], sigmas: Sequence[float], crowd: bool
    ) -> None:
        self._sets = (labelled, labelled.loadRes(found))
        self._settings: dict[str, Any] = {
            "iouType": "keypoints_crowd" if crowd else "keypoints",
            "use_area": not crowd,
            "kpt_oks_sigmas": list(sigmas),
            "print_function": logger.debug,
        }

    def tables(
        self, image_ids: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (threshold, recall, category, area, 1) and recall (threshold, category, area,
        1); undefined entries are -1.

        image_ids: the images that count; None means all.
        """
        scorer = COCOeval_faster(*self._sets, **self._settings)
        if image_ids is not None:
            scorer.params.imgIds = list(image_ids)
        scorer.evaluate()
        scorer.accumulate()
        return np.asarray(scorer.eval["precision"]), np.asarray(scorer.eval["recall"])

    def rounded_ap(self, image_ids: Sequence[int]) -> float:
        """AP over some of the images, rounded to four digits; UNDEFINED without images."""
        return (
            round(_mean(self.tables(image_ids)[0][:, :, :, 0, -1]), 4) if image_ids else UNDEFINED
        )


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else UNDEFINED


def _by_crowding(images: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Image ids by level of crowding; images without a crowd index have no level."""
    levels: dict[str, list[int]] = {"easy": [], "medium": [], "hard": []}
    for image in images:
        if "crowdIndex" in image:
            index = image["crowdIndex"]
            levels["easy" if index < EASY else "medium" if index < MEDIUM else "hard"].append(
                image["id"]
            )
    return levels
