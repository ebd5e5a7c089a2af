"""Results and annotations from files, checked so that the scorer can rely on them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from swahr.files import shorten
from swahr.geometry import BOX_TO_AREA
from swahr.skeleton import Skeleton

MAX_NUMBER = 1e9  # larger coordinates and scores are mistakes

Record = dict[str, Any]


class EvaluationError(ValueError):
    """Results that cannot be scored. The message is one line that says why, and what is valid."""


def read_json(source: Any, what: str, kind: type) -> Any:
    """The contents of a JSON file (UTF-8, UTF-16 or UTF-32, with or without a byte order mark), or
    contents that are given already; EvaluationError if they are no `kind` (dict or list).
    """
    name = what
    if isinstance(source, str | Path):
        name = f"{what} {source}:"
        try:
            source = json.loads(Path(source).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise EvaluationError(f"{name} cannot be read ({reason})") from None
    if not isinstance(source, kind):
        expected = "object" if kind is dict else "list"
        raise EvaluationError(f"{name} must be a JSON {expected}, not a {type(source).__name__}")
    return source


def checked_records(
    records: Sequence[Any], image_ids: Collection[int], category_ids: Collection[int], length: int
) -> list[Record]:
    """Copies of the result records, with the fields that the scorer reads.

    image_ids, category_ids: those of the annotations. length: of the keypoints, 3 K. Ids such as
    7.0 become whole numbers. Boxes are kept only if every record has a valid one, because the
    scorer decides by the first record how it computes the area of all; without boxes it uses the
    extent of the keypoints. EvaluationError names the first record that cannot be scored.
    """
    checked = [
        _checked_record(index, record, image_ids, category_ids, length)
        for index, record in enumerate(records)
    ]
    if all("bbox" in record for record in checked):
        return checked
    return [{key: record[key] for key in record if key != "bbox"} for record in checked]


def _checked_record(
    index: int,
    record: Any,
    image_ids: Collection[int],
    category_ids: Collection[int],
    length: int,
) -> Record:
    if not isinstance(record, Mapping):
        raise EvaluationError(f"result {index} is {shorten(record)}, not an object")
    for key in ("image_id", "category_id", "keypoints", "score"):
        if key not in record:
            raise EvaluationError(f"result {index} has no {key}")
    image_id = _whole_number(index, "image_id", record["image_id"])
    category_id = _whole_number(index, "category_id", record["category_id"])
    keypoints = record["keypoints"]
    if not isinstance(keypoints, Sequence) or len(keypoints) != length:
        count = len(keypoints) if isinstance(keypoints, Sequence) else 0
        raise EvaluationError(
            f"result {index} has {count} keypoint numbers; the skeleton needs 3 x {length // 3}"
        )
    if not all(map(_is_number, keypoints)):
        wrong = next(value for value in keypoints if not _is_number(value))
        raise EvaluationError(f"result {index} has the keypoint coordinate {shorten(wrong)}")
    if not _is_number(record["score"]):
        raise EvaluationError(f"result {index} has the score {shorten(record['score'])}")
    if image_id not in image_ids:
        raise EvaluationError(
            f"result {index} is of image {image_id}, which is not among the annotated images"
        )
    if category_id not in category_ids:
        known = ", ".join(map(str, sorted(category_ids)))
        raise EvaluationError(
            f"result {index} has the category {category_id}; the annotations have {known}"
        )
    checked = {
        "image_id": image_id,
        "category_id": category_id,
        "keypoints": list(keypoints),
        "score": record["score"],
    }
    box = record.get("bbox")
    if isinstance(box, Sequence) and len(box) == 4 and all(map(_is_number, box)):
        checked["bbox"] = list(box)
    return checked


def labelled_people(truth: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """The annotations with every field that the scorer reads.

    They are numbered from 1, because the scorer takes the id 0 for "not matched". Annotations
    without keypoints, and segmentations, are removed. Missing fields are filled: area from the box
    (BOX_TO_AREA), num_keypoints from the visibilities.
    """
    for key in ("images", "annotations", "categories"):
        if key not in truth:
            raise EvaluationError(
                f"the annotations have no {key}, so there is nothing to score against"
            )
    people = [annotation for annotation in truth["annotations"] if "keypoints" in annotation]
    annotations = []
    for new_id, person in enumerate(people, 1):
        if len(person["keypoints"]) != 3 * skeleton.num_keypoints:
            raise EvaluationError(
                f"annotation {person.get('id')} has {len(person['keypoints'])} keypoint numbers; "
                f"the skeleton {skeleton.name} needs 3 x {skeleton.num_keypoints}"
            )
        if "bbox" not in person:
            raise EvaluationError(f"annotation {person.get('id')} has no bbox")
        _, _, width, height = person["bbox"]
        full = {
            "area": BOX_TO_AREA * width * height,
            "iscrowd": 0,
            "num_keypoints": sum(flag > 0 for flag in person["keypoints"][2::3]),
            **person,
            "id": new_id,
        }
        annotations.append({key: value for key, value in full.items() if key != "segmentation"})
    images = [dict(image) for image in truth["images"]]
    return {"images": images, "annotations": annotations, "categories": truth["categories"]}


def _whole_number(index: int, key: str, value: Any) -> int:
    if isinstance(value, str):
        raise EvaluationError(
            f"result {index} has the {key} {shorten(value)}, which is text, not a whole number"
        )
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise EvaluationError(
            f"result {index} has the {key} {shorten(value)}, which is not a whole number"
        )
    return int(value)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number of a sensible size; NumPy's scalars are numbers too."""
    if isinstance(value, str | bool) or value is None:
        return False
    try:
        return math.isfinite(value) and abs(value) < MAX_NUMBER
    except (TypeError, OverflowError):
        return False
