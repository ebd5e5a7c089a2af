"""Average precision and recall over object keypoint similarity (OKS), by the protocols of COCO and
CrowdPose.

COCO: the ten figures of pycocotools, with the annotations' areas (the COCO keypoint challenge; Lin
et al., ECCV 2014). CrowdPose: a person's area is 0.53 of its box, and AP is also given for images
with a crowd index below 0.2 (easy), below 0.8 (medium) and the rest (hard), rounded to four digits
like the published tool's (Li et al., CVPR 2019).
A figure is -1 where the annotations hold nobody whom it could count.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from swahr.skeleton import Skeleton

logger = logging.getLogger(__name__)

BOX_TO_AREA = 0.53  # of a person without a segmentation
EASY = 0.2
MEDIUM = 0.8  # crowd indices that the levels stay below
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
# Rows of the scorer's tables: OKS thresholds 0.5, 0.55 .. 0.95, and areas of all sizes, 32^2 ..
# 96^2 px, and above.
_THRESHOLDS = {"": slice(None), " .5": slice(0, 1), " .75": slice(5, 6)}
_AREAS = {" (M)": 1, " (L)": 2}


class EvaluationError(ValueError):
    """Results that cannot be scored; the message says why and what would be right."""


def evaluate(
    ground_truth: str | Path | Mapping[str, Any],
    records: str | Path | Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
    protocol: str = "coco",
) -> dict[str, float]:
    """Score result records against annotations in COCO's format; either may be a file or its
    contents.

    protocol: "coco" or "crowd_pose"; the skeleton gives the sigmas of the similarity. Returns the
    figures of NAMES[protocol], all 0 where there are no records. Raises EvaluationError for files
    and records that do not fit.
    """
    if protocol not in NAMES:
        raise EvaluationError(
            f"unknown scoring protocol {protocol!r}: it is one of {', '.join(NAMES)}"
        )
    truth = _load(ground_truth, "annotations", dict)
    found = _load(records, "results", list)
    labelled = COCO(_labels(truth, skeleton), print_function=logger.debug)
    _check_records(found, labelled, skeleton)
    if not found:
        logger.warning("nobody was found in any image: every figure is 0")
        return dict.fromkeys(NAMES[protocol], 0.0)
    if not labelled.anns:
        logger.warning("nobody is labelled in any image: there are no figures")
        return dict.fromkeys(NAMES[protocol], -1.0)
    scorer = _Scorer(
        labelled, [dict(record) for record in found], skeleton.sigmas, protocol == "crowd_pose"
    )
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
            for level, ids in _by_crowding(truth["images"]).items()
        }
    return {name: stats[name] for name in NAMES[protocol]}


def format_table(name: str, stats: Mapping[str, float]) -> str:
    """The figures as a Markdown table of one line, with the three decimals that papers print; -
    where undefined.
    """
    head = f"| Arch | {' | '.join(stats)} |"
    values = " | ".join("-" if value < 0 else f"{value:.3f}" for value in stats.values())
    return "\n".join([head, "|---" * (len(stats) + 1) + "|", f"| {name} | {values} |"])


class _Scorer:
    """faster-coco-eval's scorer without its summary, which overwrites what it sums up."""

    def __init__(
        self, labelled: COCO, found: list[dict[str, Any]], sigmas: Sequence[float], crowd: bool
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
        """Precision (threshold, recall, category, area, 1), recall (threshold, category, area, 1);
        -1 where undefined.

        image_ids: the images that count; None is all.
        """
        scorer = COCOeval_faster(*self._sets, **self._settings)
        if image_ids is not None:
            scorer.params.imgIds = list(image_ids)
        scorer.evaluate()
        scorer.accumulate()
        return np.asarray(scorer.eval["precision"]), np.asarray(scorer.eval["recall"])

    def rounded_ap(self, image_ids: Sequence[int]) -> float:
        return round(_mean(self.tables(image_ids)[0][:, :, :, 0, -1]), 4) if image_ids else -1.0


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _load(source: Any, what: str, kind: type) -> Any:
    if isinstance(source, str | Path):
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvaluationError(
                f"{what} {source}: cannot be read ({str(error).splitlines()[0]})"
            ) from None
    if not isinstance(source, kind):
        raise EvaluationError(
            f"{what} must be a JSON {'object' if kind is dict else 'list'}, "
            f"not a {type(source).__name__}"
        )
    return source


def _labels(truth: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """The annotations with every field the scorer reads, numbered from 1, since it takes an id of 0
    for "not matched".

    Those without keypoints are not this scorer's affair and left out; so are segmentations.
    """
    for key in ("images", "annotations", "categories"):
        if key not in truth:
            raise EvaluationError(
                f"the annotations have no {key}, so there is nothing to score against"
            )
    people = [annotation for annotation in truth["annotations"] if "keypoints" in annotation]
    annotations = []
    for number, person in enumerate(people, 1):
        if len(person["keypoints"]) != 3 * skeleton.num_keypoints:
            raise EvaluationError(
                f"annotation {person.get('id')} has {len(person['keypoints'])} keypoint numbers; "
                f"the skeleton {skeleton.name} needs 3 x {skeleton.num_keypoints}"
            )
        _, _, width, height = person["bbox"]
        full = {
            "area": BOX_TO_AREA * width * height,
            "iscrowd": 0,
            "num_keypoints": sum(flag > 0 for flag in person["keypoints"][2::3]),
            **person,
            "id": number,
        }
        annotations.append({key: value for key, value in full.items() if key != "segmentation"})
    images = [dict(image) for image in truth["images"]]
    return {"images": images, "annotations": annotations, "categories": truth["categories"]}


def _check_records(
    records: Sequence[Mapping[str, Any]], labelled: COCO, skeleton: Skeleton
) -> None:
    for number, record in enumerate(records):
        missing = [
            key for key in ("image_id", "category_id", "keypoints", "score") if key not in record
        ]
        if missing:
            raise EvaluationError(f"result {number} has no {missing[0]}")
        if len(record["keypoints"]) != 3 * skeleton.num_keypoints:
            raise EvaluationError(
                f"result {number} has {len(record['keypoints'])} keypoint numbers; "
                f"the skeleton {skeleton.name} needs 3 x {skeleton.num_keypoints}"
            )
        if record["image_id"] not in labelled.imgs:
            raise EvaluationError(
                f"result {number} is of image {record['image_id']}, which is not among the annotated"
            )


def _by_crowding(images: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Image ids by crowd index; images without one are on no level."""
    levels: dict[str, list[int]] = {"easy": [], "medium": [], "hard": []}
    for image in images:
        if "crowdIndex" in image:
            index = image["crowdIndex"]
            levels["easy" if index < EASY else "medium" if index < MEDIUM else "hard"].append(
                image["id"]
            )
    return levels
