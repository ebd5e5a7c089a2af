"""Results and annotations from files, checked so that the scorer can rely on them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swahr.files import shorten
from swahr.geometry import BOX_TO_AREA
from swahr.skeleton import Skeleton
from swahr.words import counted

MAX_NUMBER = 1e9  # larger coordinates and scores are mistakes
NO_NUMBER = "not a number between -1e9 and 1e9"  # MAX_NUMBER in messages

Record = dict[str, Any]
JSON_NAMES = {dict: "object", list: "list", str: "text", int: "number", float: "number"}


class EvaluationError(ValueError):
    """Results that cannot be scored. The message is one line that says why, and what is valid."""


class NumberError(EvaluationError):
    """A coordinate or score of a result that is NO_NUMBER."""


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
        given = JSON_NAMES.get(type(source), type(source).__name__)
        about = _what_it_is(source) if kind is list else ""
        raise EvaluationError(f"{name} must be a JSON {JSON_NAMES[kind]}, not {given}{about}")
    return source


def _what_it_is(content: Any) -> str:
    """What a file is that holds people and no list of results; '' if that is not known."""
    if not isinstance(content, dict) or "annotations" not in content:
        return ""
    return (
        "; it holds images and annotations, as people.json of `swahr predict` does; results that "
        "can be scored are written by `swahr val`, as results/keypoints_..._results.json"
    )


def checked_records(
    records: Sequence[Any], image_ids: Collection[int], category_ids: Collection[int], length: int
) -> list[Record]:
    """Copies of the result records, with the fields that the scorer reads.

    image_ids, category_ids: those of the annotations. length: of the keypoints, 3 K. Ids such as
    7.0 become whole numbers. Boxes are kept only if every record has a valid one, because the
    scorer decides by the first record how it computes the area of all; without boxes it uses the
    extent of the keypoints. EvaluationError names the first record that cannot be scored.
    """
    checked = []
    for index, record in enumerate(records):
        try:
            checked.append(_checked_record(record, image_ids, category_ids, length))
        except EvaluationError as error:
            raise type(error)(f"result {index} {error}") from None
    if all("bbox" in record for record in checked):
        return checked
    return [{key: record[key] for key in record if key != "bbox"} for record in checked]


def _checked_record(
    record: Any,
    image_ids: Collection[int],
    category_ids: Collection[int],
    length: int,
) -> Record:
    """The messages of its errors follow the record's name."""
    if not isinstance(record, Mapping):
        raise EvaluationError(f"is {shorten(record)}, not an object")
    for key in ("image_id", "category_id", "keypoints", "score"):
        if key not in record:
            raise EvaluationError(f"has no {key}")
    image_id = _whole_number(record, "image_id")
    category_id = _whole_number(record, "category_id")
    keypoints = record["keypoints"]
    if not isinstance(keypoints, Sequence) or len(keypoints) != length:
        given = counted(len(keypoints) if isinstance(keypoints, Sequence) else 0, "keypoint number")
        raise EvaluationError(f"has {given}; the skeleton needs 3 x {length // 3}")
    if not all(map(_is_number, keypoints)):
        place = next(i for i, value in enumerate(keypoints) if not _is_number(value))
        kind = "score" if place % 3 == 2 else "coordinate"
        value = f"keypoint {kind} {shorten(keypoints[place])} at keypoints[{place}]"
        raise NumberError(f"has the {value} (image {image_id}), {NO_NUMBER}")
    if not _is_number(record["score"]):
        score = shorten(record["score"])
        raise NumberError(f"has the score {score} (image {image_id}), {NO_NUMBER}")
    checked = {
        "image_id": image_id,
        "category_id": category_id,
        "keypoints": list(keypoints),
        "score": record["score"],
    }
    _check_ids(checked, image_ids, category_ids)
    box = record.get("bbox")
    if isinstance(box, Sequence) and len(box) == 4 and all(map(_is_number, box)):
        checked["bbox"] = list(box)
    return checked


def labelled_people(truth: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """The annotations with every field that the scorer reads.

    They are numbered from 1, because the scorer takes the id 0 for "not matched". Annotations
    without keypoints, and segmentations, are removed. Missing fields are filled: area from the box
    (BOX_TO_AREA), num_keypoints from the visibilities. EvaluationError names the first annotation,
    image or category that cannot be scored.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth.get(key), Sequence):
            raise EvaluationError(
                f"the annotations have no {key}, so there is nothing to score against"
            )
    images = _with_ids("image", truth["images"])
    for image in images:
        if not _is_number(image.get("crowdIndex", 0)):
            index = shorten(image["crowdIndex"])
            raise EvaluationError(f"image {image['id']} has the crowdIndex {index}, not a number")
    categories = _with_ids("category", truth["categories"])
    image_ids = {image["id"] for image in images}
    category_ids = {category["id"] for category in categories}
    annotations: list[Record] = []
    for annotation in truth["annotations"]:
        if not isinstance(annotation, Mapping):
            raise EvaluationError(f"annotation {shorten(annotation)} is not an object")
        if "keypoints" not in annotation:
            continue
        try:
            person = _checked_person(annotation, image_ids, category_ids, skeleton)
        except EvaluationError as error:
            raise EvaluationError(f"annotation {shorten(annotation.get('id'))} {error}") from None
        person["id"] = len(annotations) + 1
        annotations.append(person)
    return {"images": images, "annotations": annotations, "categories": categories}


def _with_ids(kind: str, given: Iterable[Any]) -> list[Record]:
    """Copies of images or categories, whose ids are whole numbers. kind: of both, in messages."""
    copies = []
    for index, item in enumerate(given):
        if not isinstance(item, Mapping):
            raise EvaluationError(f"{kind} {shorten(item)} is not an object")
        try:
            copies.append({**item, "id": _whole_number(item, "id")})
        except EvaluationError as error:
            raise EvaluationError(f"the {kind} at {index} {error}") from None
    return copies


def _checked_person(
    person: Mapping[str, Any],
    image_ids: Collection[int],
    category_ids: Collection[int],
    skeleton: Skeleton,
) -> Record:
    """The messages of its errors follow the annotation's name."""
    keypoints = person["keypoints"]
    count = len(keypoints) if isinstance(keypoints, Collection) else 0
    if count != 3 * skeleton.num_keypoints:
        raise EvaluationError(
            f"has {counted(count, 'keypoint number')}; "
            f"the skeleton {skeleton.name} needs 3 x {skeleton.num_keypoints}"
        )
    if not _are_numbers(keypoints):
        raise EvaluationError("has keypoints that are not all finite numbers")
    if "bbox" not in person:
        raise EvaluationError("has no bbox")
    box = person["bbox"]
    if not isinstance(box, Collection) or len(box) != 4 or not _are_numbers(box):
        raise EvaluationError(f"has the bbox {shorten(box)}, not x, y, width, height")
    _, _, width, height = box
    full = {"area": BOX_TO_AREA * width * height, "iscrowd": 0, **person}
    full.pop("segmentation", None)
    if "num_keypoints" not in full:
        full["num_keypoints"] = sum(flag > 0 for flag in keypoints[2::3])
    for key in ("area", "iscrowd", "num_keypoints"):
        if not _are_numbers([full[key]]):
            raise EvaluationError(f"has the {key} {shorten(full[key])}, not a number")
    full["image_id"] = _whole_number(person, "image_id")
    full["category_id"] = _whole_number(person, "category_id")
    _check_ids(full, image_ids, category_ids)
    return full


def _check_ids(
    record: Mapping[str, Any], image_ids: Collection[int], category_ids: Collection[int]
) -> None:
    if record["image_id"] not in image_ids:
        raise EvaluationError(
            f"is of image {record['image_id']}, which is not among the annotated images"
        )
    if record["category_id"] not in category_ids:
        known = ", ".join(map(str, sorted(category_ids)))
        raise EvaluationError(
            f"has the category {record['category_id']}; the annotations have {known}"
        )


def _whole_number(record: Mapping[str, Any], key: str) -> int:
    value: Any = record.get(key)
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        reason = "text, not a whole number"
    elif isinstance(value, bool) or not hasattr(value, "__index__"):
        reason = "not a whole number"
    else:
        return int(value)
    raise EvaluationError(f"has the {key} {shorten(value)}, which is {reason}")


def _are_numbers(values: Iterable[Any]) -> bool:
    """Whether all values are finite numbers."""
    try:
        return math.isfinite(sum(map(abs, values)))
    except (TypeError, OverflowError):
        return False


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number of a sensible size; NumPy's scalars are numbers too."""
    if isinstance(value, str | bool) or value is None:
        return False
    try:
        return math.isfinite(value) and abs(value) < MAX_NUMBER
    except (TypeError, OverflowError):
        return False
