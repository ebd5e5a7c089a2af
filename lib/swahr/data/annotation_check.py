"""Annotation files from outside: read, checked, and repaired where that is possible, before they
are used.

Training, validation and scoring all use what is left here, so one set of rules decides.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swahr.data.annotation_fields import (
    CLIPPED,
    complete_keypoints,
    describe,
    is_background,
    may_be_corners,
    repair_fields,
)
from swahr.data.annotation_report import AnnotationError, Report
from swahr.data.categories import select_categories
from swahr.data.image_header import MAX_SIDE
from swahr.data.outlines import why_no_coordinates
from swahr.data.values import (
    is_amount,
    leaves_folder,
    names_a_file,
    whole_number,
    why_no_whole_number,
)
from swahr.files import shorten
from swahr.skeleton import Skeleton
from swahr.words import counted

# Boxes that leave their image, from which all may have been given by their corners: this many, and
# this part of all.
MANY_BOXES = 5
MANY_OF_ALL = 0.1


class Annotations(NamedTuple):
    """An annotation file as it is used: contents, with valid images and people only; what was found
    wrong; and the id of the people's category.

    category_ids: of all categories of the file that are taken as that one.
    """

    data: dict[str, Any]
    report: Report
    category_id: int
    category_ids: tuple[int, ...]


def load_annotations(
    path: str | Path, skeleton: Skeleton, categories: Sequence[str] = ()
) -> Annotations:
    """Read, check and repair an annotation file in COCO's format.

    categories: names of those that are used; by default all whose keypoints are the skeleton's.
    Problems are in the report, which raises or logs them (`raise_or_warn`). Raises AnnotationError
    if the file cannot be read, or nothing in it can be used.
    """
    data = read_annotations(path)
    report = Report(path)
    category_ids = select_categories(data, skeleton, report, categories)
    sizes = _keep_valid_images(data, report)
    if "annotations" in data:
        data["annotations"] = list(valid_annotations(data, sizes, category_ids, skeleton, report))
    data["categories"] = [
        {"id": category_ids[0], "name": "person", "keypoints": list(skeleton.keypoints)}
    ]
    return Annotations(data, report, category_ids[0], category_ids)


def read_annotations(path: str | Path) -> dict[str, Any]:
    """The contents of an annotation file in COCO's format: JSON in UTF-8, UTF-16 or UTF-32, with or
    without a byte order mark. AnnotationError if it is not such a file, or has no images.
    """
    collecting = gc.isenabled()
    gc.disable()  # what is read has no garbage; looking for it doubles the time for COCO's files
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


def _keep_valid_images(data: dict[str, Any], report: Report) -> dict[int, tuple[int, int]]:
    """Remove images that cannot be used from data; the sizes (w, h) of the others, by id."""
    sizes: dict[int, tuple[int, int]] = {}
    images = []
    for image in data["images"]:
        problem = _image_problem(image, sizes)
        if problem:
            report.add(problem, "image skipped")
            image_id = whole_number(image.get("id")) if isinstance(image, dict) else None
            if image_id is not None:
                report.skipped_images.add(image_id)
            continue
        for key in ("id", "width", "height"):
            image[key] = int(image[key])
        sizes[image["id"]] = (image["width"], image["height"])
        images.append(image)
        if not is_amount(image.get("crowdIndex", 0)):
            index = shorten(image.pop("crowdIndex"))
            report.add(
                f"image {image['id']}: crowdIndex {index} is not a number", "crowdIndex removed"
            )
    report.skipped_images -= sizes.keys()
    data["images"] = images
    if not images:
        raise AnnotationError(f"{report}\n  no image is left")
    return sizes


def _image_problem(image: Any, known: Mapping[int, Any]) -> str:
    """Why an image cannot be used, or ''."""
    if not isinstance(image, dict):
        return f"image {shorten(image)}: not an object"
    image_id = whole_number(image.get("id"))
    if image_id is None:
        return f"image {shorten(image)}: its id {why_no_whole_number(image.get('id'))}"
    if image_id in known:
        return f"image {image_id}: another image has this id"
    name = image.get("file_name")
    if not isinstance(name, str) or not names_a_file(name):
        return f"image {image_id}: file_name {shorten(name)} names no file"
    if leaves_folder(name):
        return f"image {image_id}: file_name {shorten(name)} leads out of the folder of the images"
    width, height = (whole_number(image.get(side)) or 0 for side in ("width", "height"))
    if min(width, height) < 1:
        return f"image {image_id} ({name}): no width and height in pixels"
    if max(width, height) > MAX_SIDE:
        return (
            f"image {image_id} ({name}): {width} x {height} pixels; OpenCV can warp sides of up to "
            f"{MAX_SIDE} pixels"
        )
    return ""


def valid_annotations(
    data: Mapping[str, Any],
    sizes: Mapping[int, tuple[int, int]],
    category_ids: Sequence[int],
    skeleton: Skeleton,
    report: Report,
) -> Iterator[dict[str, Any]]:
    """The annotations of the used categories that can be used, repaired, all in the first of the
    categories. What was wrong is added to the report.
    """
    others = _other_categories(data, category_ids)
    annotations = [a for a in data["annotations"] if _category(a) not in others]
    copies = _copies(annotations)
    used: set[int] = set()
    valid_ids = (whole_number(a.get("id")) for a in annotations if isinstance(a, dict))
    last_id = max((i for i in valid_ids if i is not None), default=0)
    miscounted = 0
    example = ""
    unmasked = 0
    boxes = 0
    are_corners = True
    for position, annotation in enumerate(annotations):
        problem = reject_reason(annotation, sizes, category_ids, 3 * skeleton.num_keypoints)
        if not problem and position in copies:
            problem = f"{describe(annotation)}: the file has this annotation already"
        if problem:
            report.add(problem, "annotation skipped")
            continue
        problem = _complete(annotation, 3 * skeleton.num_keypoints)
        if problem:
            report.add(problem, "taken for a person without labelled keypoints")
        annotation["category_id"] = category_ids[0]
        annotation["image_id"] = int(annotation["image_id"])
        problem = _id_problem(annotation, used)
        if problem:
            last_id += 1
            report.add(problem, "new id")
            annotation["id"] = last_id
        annotation["id"] = int(annotation["id"])
        used.add(annotation["id"])
        size = sizes[annotation["image_id"]]
        has_outline = annotation.get("segmentation", []) != []
        boxes += 1
        are_corners = are_corners and may_be_corners(annotation.get("bbox"), size)
        for problem, repair, is_harmless in repair_fields(annotation, size, skeleton):
            if is_harmless:
                miscounted += 1
                example = example or problem
            else:
                report.add(problem, repair)
        unmasked += not has_outline and is_background(annotation)
        yield annotation
    if miscounted:
        people = counted(miscounted, "person", "people")
        report.note(f"num_keypoints and keypoints of {people} differ: {example}")
    if unmasked:
        who = "crowds and people without keypoints"
        who = counted(unmasked, "crowd or person without keypoints", who)
        have, them = ("has", "it") if unmasked == 1 else ("have", "them")
        report.note(f"{who} {have} no outline: training takes {them} for background")
    clipped = report.repairs[CLIPPED]
    if are_corners and clipped >= max(MANY_BOXES, MANY_OF_ALL * boxes):
        report.note(
            f"{clipped:,} of {boxes:,} boxes leave their image: are they x1, y1, x2, y2? COCO's "
            "are x, y, width, height"
        )


def _copies(annotations: Sequence[Any]) -> set[int]:
    """The positions of annotations that equal an earlier one in every field, in the id too."""
    first: dict[int, int] = {}
    copies: set[int] = set()
    for position, annotation in enumerate(annotations):
        annotation_id = whole_number(annotation.get("id")) if isinstance(annotation, dict) else None
        if annotation_id is not None:
            earlier = first.setdefault(annotation_id, position)
            if earlier != position and annotations[earlier] == annotation:
                copies.add(position)
    return copies


def _other_categories(data: Mapping[str, Any], category_ids: Sequence[int]) -> set[int]:
    listed = [c.get("id") for c in data["categories"] if isinstance(c, dict)]
    return {c for c in map(whole_number, listed) if c is not None} - set(category_ids)


def _category(annotation: Any) -> int | None:
    return whole_number(annotation.get("category_id")) if isinstance(annotation, dict) else None


def reject_reason(
    annotation: Any, sizes: Mapping[int, Any], category_ids: Sequence[int], length: int
) -> str:
    """Why an annotation cannot be used, or ''. Joints that have no coordinates and are not labelled
    are set to zero. No list of keypoints at all is none: see _complete.
    """
    if not isinstance(annotation, dict):
        return f"annotation {shorten(annotation)}: not an object"
    for key in ("category_id", "image_id"):
        if isinstance(annotation.get(key), str):
            return f"{describe(annotation)}: its {key} {why_no_whole_number(annotation[key])}"
    if _category(annotation) not in category_ids:
        given = shorten(annotation.get("category_id"))
        return f"{describe(annotation)}: there is no category {given}"
    if whole_number(annotation.get("image_id")) not in sizes:
        return f"{describe(annotation)}: there is no image with this id"
    keypoints = annotation.get("keypoints")
    if keypoints in (None, []):
        return ""
    if not isinstance(keypoints, list) or len(keypoints) != length:
        return _wrong_length(annotation, length)
    if not complete_keypoints(keypoints):
        return f"{describe(annotation)}: keypoints {why_no_coordinates(keypoints)}"
    return ""


def _wrong_length(annotation: Mapping[str, Any], length: int) -> str:
    keypoints = annotation.get("keypoints")
    given = counted(len(keypoints) if isinstance(keypoints, list) else 0, "number")
    return f"{describe(annotation)}: keypoints has {given}, not {length} (x, y, visibility of each)"


def _complete(annotation: dict[str, Any], length: int) -> str:
    """Give an annotation without a list of keypoints one, of zeros; what was wrong with it, or ''.

    A crowd needs none. Others are people of whom nothing is labelled, whatever num_keypoints says.
    """
    if annotation.get("keypoints") not in (None, []):
        return ""
    problem = ""
    if annotation.get("iscrowd") != 1:
        problem = _wrong_length(annotation, length)
        annotation["num_keypoints"] = 0
    annotation["keypoints"] = [0] * length
    return problem


def _id_problem(annotation: Mapping[str, Any], used: set[int]) -> str:
    annotation_id = whole_number(annotation.get("id"))
    if annotation_id is None:
        return f"{describe(annotation)}: its id {why_no_whole_number(annotation.get('id'))}"
    if annotation_id in used:
        return f"{describe(annotation)}: another annotation has this id"
    if annotation_id == 0:
        return f"{describe(annotation)}: the id 0 means 'not matched' to the scorers"
    return ""
