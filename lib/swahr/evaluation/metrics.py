"""Average precision and recall over object keypoint similarity (OKS), by the COCO and the CrowdPose protocol.

COCO: the ten figures of pycocotools, areas from the annotations (Lin et al., Microsoft COCO, ECCV 2014, and the keypoint challenge).
CrowdPose: a person's area is 0.53 of its box, and AP is also given for images with a crowd index below 0.2 (easy), below 0.8
(medium) and the rest (hard), rounded to four digits as the published tool gives it (Li et al., CrowdPose, CVPR 2019).
A figure is -1 where the labels hold nobody whom it could count.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from swahr.skeleton import Skeleton

logger = logging.getLogger(__name__)

BOX_TO_AREA = 0.53   # CrowdPose's stand-in for the area of a person without a segmentation
EASY, MEDIUM = 0.2, 0.8
_OVERALL = ("", " .5", " .75")                   # mean over OKS 0.5 .. 0.95, at 0.5, at 0.75
_THRESHOLDS = (slice(None), slice(0, 1), slice(5, 6))
_AREAS = {"(M)": 1, "(L)": 2}                    # 32^2 .. 96^2 square pixels, and above
NAMES = {
    "coco": ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)"),
    "crowd_pose": ("AP", "AP .5", "AP .75", "AR", "AR .5", "AR .75", "AP (easy)", "AP (medium)", "AP (hard)"),
}


class EvaluationError(ValueError):
    """Results that cannot be scored; the message says why and what would be right."""


def evaluate(ground_truth: str | Path | Mapping[str, Any], records: str | Path | Sequence[Mapping[str, Any]],
             skeleton: Skeleton, protocol: str = "coco") -> dict[str, float]:
    """Score result records against a COCO-format annotation file (or its contents).

    protocol: "coco" or "crowd_pose"; the skeleton gives the sigmas of the similarity. Returns the figures of NAMES[protocol] in
    that order, all 0 where there are no records. Raises EvaluationError for files and records that do not fit.
    """
    if protocol not in NAMES:
        raise EvaluationError(f"unknown scoring protocol {protocol!r}: it is one of {', '.join(NAMES)}")
    truth, found = _load(ground_truth, "annotations"), _load(records, "results")
    if not found:
        logger.warning("no results: nobody was found in any image, so every figure is 0")
        return dict.fromkeys(NAMES[protocol], 0.0)
    labelled = COCO(_labels(truth, skeleton))
    _check_records(found, labelled, skeleton)
    scorer = _Scorer(labelled, labelled.loadRes([dict(record) for record in found]), skeleton.sigmas, protocol == "crowd_pose")
    precision, recall = scorer()
    stats = {"AP" + name: _mean(precision[at, ..., 0, -1]) for name, at in zip(_OVERALL, _THRESHOLDS)}
    stats |= {"AR" + name: _mean(recall[at, ..., 0, -1]) for name, at in zip(_OVERALL, _THRESHOLDS)}
    for name, area in _AREAS.items():
        stats |= {f"AP {name}": _mean(precision[..., area, -1]), f"AR {name}": _mean(recall[..., area, -1])}
    if protocol == "crowd_pose":
        stats |= {f"AP ({name})": scorer.mean_precision(ids) for name, ids in _by_crowding(truth["images"]).items()}
    return {name: stats[name] for name in NAMES[protocol]}


def format_table(name: str, stats: Mapping[str, float]) -> str:
    """The figures as a Markdown table of one line, in percent of one with three decimals as papers print them."""
    head = f"| Arch | {' | '.join(stats)} |"
    rule = "|---" * (len(stats) + 1) + "|"
    values = " | ".join("-" if value < 0 else f"{value:.3f}" for value in stats.values())
    return f"{head}\n{rule}\n| {name} | {values} |"


class _Scorer:
    """faster-coco-eval's scorer without its summary, which overwrites what it sums up."""

    def __init__(self, labelled: COCO, found: COCO, sigmas: Sequence[float], crowd: bool) -> None:
        self._sets, self._sigmas, self._crowd = (labelled, found), list(sigmas), crowd

    def __call__(self, image_ids: Sequence[int] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (threshold, recall, category, area, 1) and recall (threshold, category, area, 1); -1 where undefined."""
        scorer = COCOeval_faster(*self._sets, iouType="keypoints_crowd" if self._crowd else "keypoints",
                                 kpt_oks_sigmas=self._sigmas, use_area=not self._crowd, print_function=logger.debug)
        if image_ids is not None:
            scorer.params.imgIds = list(image_ids)
        scorer.evaluate()
        scorer.accumulate()
        return np.asarray(scorer.eval["precision"]), np.asarray(scorer.eval["recall"])

    def mean_precision(self, image_ids: Sequence[int]) -> float:
        return round(float(self(image_ids)[0][:, :, :, 0, :].mean()), 4) if image_ids else -1.0


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _load(source: Any, what: str) -> Any:
    if not isinstance(source, str | Path):
        return source
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{what} file {source}: cannot be read as JSON ({str(error).splitlines()[0]})") from None


def _labels(truth: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """The annotations as the scorer needs them: numbered from 1, since it takes the id 0 for "not matched", and no field missing."""
    if not truth.get("annotations"):
        raise EvaluationError("the annotation file holds no annotations, so there is nothing to score against")
    people = [annotation for annotation in truth["annotations"] if "keypoints" in annotation]
    if any(len(person["keypoints"]) != 3 * skeleton.num_keypoints for person in people):
        raise EvaluationError(f"the annotation file's people do not have the {skeleton.num_keypoints} keypoints of {skeleton.name!r}")
    annotations = []
    for number, person in enumerate(people, 1):
        _, _, width, height = person["bbox"]
        given = {"area": BOX_TO_AREA * width * height, "iscrowd": 0,
                 "num_keypoints": sum(v > 0 for v in person["keypoints"][2::3]), **person, "id": number}
        annotations.append({key: value for key, value in given.items() if key != "segmentation"})
    return {"images": [dict(image) for image in truth["images"]], "annotations": annotations, "categories": truth["categories"]}


def _check_records(records: Sequence[Mapping[str, Any]], labelled: COCO, skeleton: Skeleton) -> None:
    for number, record in enumerate(records):
        missing = [key for key in ("image_id", "category_id", "keypoints", "score") if key not in record]
        if missing:
            raise EvaluationError(f"result {number} has no {missing[0]}")
        if len(record["keypoints"]) != 3 * skeleton.num_keypoints:
            raise EvaluationError(f"result {number} has {len(record['keypoints'])} keypoint numbers; "
                                  f"{skeleton.name!r} needs 3 x {skeleton.num_keypoints}")
        if record["image_id"] not in labelled.imgs:
            raise EvaluationError(f"result {number} is of image {record['image_id']}, which is not in the annotation file")


def _by_crowding(images: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Image ids by crowd index; images without one are in none of the three."""
    levels: dict[str, list[int]] = {"easy": [], "medium": [], "hard": []}
    for image in images:
        if "crowdIndex" in image:
            index = image["crowdIndex"]
            levels["easy" if index < EASY else "medium" if index < MEDIUM else "hard"].append(image["id"])
    return levels
