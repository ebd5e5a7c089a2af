"""Annotation files from outside: read, checked, and repaired where that is possible, before they
are used.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swahr.data.annotation_report import AnnotationError, Report
from swahr.data.outlines import are_coordinates, is_outline
from swahr.files import shorten
from swahr.skeleton import Skeleton

BOX_SLACK = (
    8  # px by which a box may leave its image: COCO's come from outlines drawn a little beyond it
)
MAX_SIDE = 2**20  # px of an image; no format in use has more


def read_annotations(path: str | Path) -> dict[str, Any]:
    """The contents of a COCO-format annotation file; AnnotationError where it is no such file or
    has no images.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing of what is read is garbage; looking for it would double the time that COCO's files take
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise AnnotationError(
            f"{path}: cannot be read ({error.strerror}); see data/README.md"
        ) from None
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: not a JSON file ({error})") from None
    finally:
        if collecting:
            gc.enable()
    if not isinstance(data, dict) or not isinstance(data.get("images"), list) or not data["images"]:
        raise AnnotationError(
            f"{path}: no images; annotation files have the lists images, categories and annotations"
        )
    if not isinstance(data.get("annotations", []), list):
        raise AnnotationError(f"{path}: annotations is not a list")
    return data


def person_category(data: Mapping[str, Any], skeleton: Skeleton, path: str | Path) -> int:
    """The id of the category whose keypoints are the skeleton's: of several, the one called person.

    Files of images to be tested have categories without keypoints; there the name decides.
    AnnotationError where
    there is none, or where the keypoints have the skeleton's names in another order.
    """
    names = list(skeleton.keypoints)
    categories = _categories(data)
    fitting = [c for c in categories if len(_names(c)) == len(names)]
    fitting = fitting or [c for c in categories if c.get("name") == "person" and not _names(c)]
    if not fitting:
        found = (
            ", ".join(f"{shorten(c.get('name'))} with {len(_names(c))}" for c in categories[:5])
            or "none at all"
        )
        raise AnnotationError(
            f"{path}: no category has {len(names)} keypoints, as the skeleton {skeleton.name!r} has; "
            f"found {found}"
        )
    category = next((c for c in fitting if c.get("name") == "person"), fitting[0])
    given = _names(category)
    if given != names and sorted(given) == sorted(names):
        first = next(i for i, (a, b) in enumerate(zip(given, names)) if a != b)
        raise AnnotationError(
            f"{path}: the keypoints are not in the order of the skeleton {skeleton.name!r}: "
            f"number {first} is {given[first]}, not {names[first]}"
        )
    return category["id"]


def _categories(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = data.get("categories")
    listed = listed if isinstance(listed, list) else []
    return [
        category for category in listed if isinstance(category, dict) and _is_id(category.get("id"))
    ]


def _names(category: Mapping[str, Any]) -> list[str]:
    names = category.get("keypoints")
    return [str(name) for name in names] if isinstance(names, list) else []


def repair(data: dict[str, Any], category_id: int, skeleton: Skeleton, report: Report) -> None:
    """Leave in `data` only images and annotations (of the category) that are sound; what was wrong
    goes to the report.

    Boxes are clipped or made anew, ids given anew, what cannot be repaired is left out. Fields that
    may be missing are not added. Raises AnnotationError where no image is left.
    """
    sizes: dict[int, tuple[int, int]] = {}
    images = []
    for image in data["images"]:
        problem = _image_problem(image, sizes)
        if problem:
            report.add(problem, "image skipped")
        else:
            sizes[image["id"]] = (image["width"], image["height"])
            images.append(image)
            if not _is_amount(image.get("crowdIndex", 0)):
                index = shorten(image.pop("crowdIndex"))
                report.add(
                    f"image {image['id']}: crowdIndex {index} is not a number",
                    "crowdIndex removed",
                )
    data["images"] = images
    if not images:
        raise AnnotationError(f"{report}\n  no image is left")
    if "annotations" in data:
        others = {category["id"] for category in _categories(data)} - {category_id}
        ours = [a for a in data["annotations"] if not _is_other(a, others)]
        data["annotations"] = list(
            valid_annotations(ours, sizes, category_id, 3 * skeleton.num_keypoints, report)
        )


def _image_problem(image: Any, known: Mapping[int, Any]) -> str:
    if not isinstance(image, dict) or not _is_id(image.get("id")):
        return f"image {shorten(image)}: its id is not a whole number"
    if image["id"] in known:
        return f"image {image['id']}: another image has this id"
    name = image.get("file_name")
    if not isinstance(name, str) or not name or not name.isprintable():
        return f"image {image['id']}: file_name {shorten(name)} names no file"
    if any(
        type(image.get(side)) is not int or not 0 < image[side] < MAX_SIDE
        for side in ("width", "height")
    ):
        return f"image {image['id']} ({name}): no width and height in pixels"
    return ""


def valid_annotations(
    annotations: list[Any],
    sizes: Mapping[int, tuple[int, int]],
    category_id: int,
    length: int,
    report: Report,
) -> Iterator[dict[str, Any]]:
    used: set[int] = set()
    spare = max(
        (a["id"] for a in annotations if isinstance(a, dict) and _is_id(a.get("id"))), default=0
    )
    for annotation in annotations:
        problem = reject_reason(annotation, sizes, category_id, length)
        if problem:
            report.add(problem, "annotation skipped")
            continue
        problem = _id_problem(annotation, used)
        if problem:
            spare += 1
            report.add(problem, "new id")
            annotation["id"] = spare
        used.add(annotation["id"])
        for problem, repaired in repair_fields(annotation, sizes[annotation["image_id"]]):
            report.add(problem, repaired)
        yield annotation


def _is_other(annotation: Any, others: set[int]) -> bool:
    category = annotation.get("category_id") if isinstance(annotation, dict) else None
    return type(category) is int and category in others


def reject_reason(annotation: Any, sizes: Mapping[int, Any], category_id: int, length: int) -> str:
    """Why an annotation cannot be kept, or ''."""
    if not isinstance(annotation, dict):
        return f"annotation {shorten(annotation)}: not an object"
    if annotation.get("category_id") != category_id:
        return f"{_name(annotation)}: there is no category {shorten(annotation.get('category_id'))}"
    image = annotation.get("image_id")
    if type(image) is not int or image not in sizes:
        return f"{_name(annotation)}: there is no image with this id"
    keypoints = annotation.get("keypoints")
    if not isinstance(keypoints, list) or len(keypoints) != length:
        many = len(keypoints) if isinstance(keypoints, list) else 0
        return f"{_name(annotation)}: keypoints has {many} numbers, not {length} (x, y, visibility of each)"
    return (
        ""
        if are_coordinates(keypoints)
        else f"{_name(annotation)}: keypoints are not all finite numbers"
    )


def _id_problem(annotation: Mapping[str, Any], used: set[int]) -> str:
    if not _is_id(annotation.get("id")):
        return f"{_name(annotation)}: its id is not a whole number"
    if annotation["id"] in used:
        return f"{_name(annotation)}: another annotation has this id"
    return (
        f"{_name(annotation)}: the id 0 means 'not matched' to the scorers"
        if annotation["id"] == 0
        else ""
    )


def repair_fields(annotation: dict[str, Any], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Put right what an annotation says beside its keypoints; what was wrong, and what was done."""
    box = annotation.get("bbox")
    keypoints = annotation["keypoints"]
    if not isinstance(box, list) or len(box) != 4 or not are_coordinates(box) or min(box[2:]) < 0:
        annotation["bbox"] = _extent(keypoints)
        yield (
            f"{_name(annotation)}: bbox {shorten(box)} is not x, y, width, height",
            "box put around the keypoints",
        )
    elif min(box[:2]) < -BOX_SLACK or any(
        box[i] + box[i + 2] > size[i] + BOX_SLACK for i in (0, 1)
    ):
        annotation["bbox"] = _clip(box, size)
        yield (
            f"{_name(annotation)}: bbox {shorten(box)} leaves its image of {size[0]} x {size[1]}",
            "box clipped",
        )
    count = annotation.get("num_keypoints", 0)
    if type(count) is not int or count < 0:
        annotation["num_keypoints"] = sum(v > 0 for v in keypoints[2::3])
        yield (
            f"{_name(annotation)}: num_keypoints {shorten(count)} is not a number of keypoints",
            "keypoints counted",
        )
    if not _is_amount(annotation.get("area", 0)):
        area = shorten(annotation.pop("area"))
        yield f"{_name(annotation)}: area {area} is not a number of pixels", "area of the box"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield (
            f"{_name(annotation)}: iscrowd {shorten(annotation['iscrowd'])} is neither 0 nor 1",
            "taken for no crowd",
        )
        annotation["iscrowd"] = 0
    outline = annotation.get("segmentation", [])
    if (annotation.get("iscrowd") or not count) and not is_outline(
        outline, size
    ):  # else it is not looked at
        del annotation["segmentation"]
        what = "neither polygons nor run lengths of the image's size"
        yield (
            f"{_name(annotation)}: segmentation {shorten(outline)} is {what}",
            "segmentation removed",
        )


def _name(annotation: Mapping[str, Any]) -> str:
    return (
        f"annotation {shorten(annotation.get('id'))} (image {shorten(annotation.get('image_id'))})"
    )


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf  # false for NaN too


def _extent(keypoints: list[float]) -> list[float]:
    xs, ys = ([p for p, v in zip(keypoints[i::3], keypoints[2::3]) if v > 0] or [0] for i in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _clip(box: list[float], size: tuple[int, int]) -> list[float]:
    left, top = (min(max(box[i], 0), size[i]) for i in (0, 1))
    right, bottom = (min(max(box[i] + box[i + 2], 0), size[i]) for i in (0, 1))
    return [left, top, right - left, bottom - top]
