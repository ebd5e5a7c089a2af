"""Annotation files from outside: read, checked, and repaired where that is possible, before anything is built upon them."""

from __future__ import annotations

import gc
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from swahr.skeleton import Skeleton

MAX_LINES = 20  # that a report prints; the rest is counted
BOX_SLACK = 8   # px by which a box may leave its picture: COCO's come from outlines drawn a little beyond it

logger = logging.getLogger(__name__)


class AnnotationError(ValueError):
    """Annotations that cannot be used; the message has a line for each problem, at most 20, and their number."""


class Report:
    """Problems of one annotation file, each with what was done about it."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.count = str(path), 0
        self.lines: list[str] = []
        self.repairs: Counter[str] = Counter()

    def add(self, problem: str, repair: str) -> None:
        self.count += 1
        self.repairs[repair] += 1
        if len(self.lines) < MAX_LINES:
            self.lines.append(f"{problem} -> {repair}")

    def __str__(self) -> str:
        more = [f"  ... and {self.count - len(self.lines)} more"] if self.count > len(self.lines) else []
        head = f"{self.path}: {self.count} problem{'s' * (self.count != 1)}"
        return "\n".join([head, *(f"  {line}" for line in self.lines), *more])

    def settle(self, strict: bool) -> None:
        """Nothing where there are no problems; else AnnotationError if strict, or a warning that says what was done."""
        if self.count and strict:
            raise AnnotationError(f"{self}\n  (-> says what DATASET.STRICT False would do)")
        if self.count:
            done = ", ".join(f"{repair}: {count}" for repair, count in self.repairs.items())
            logger.warning("%s\n  repaired (%s)", self, done)


def read_annotations(path: str | Path) -> dict[str, Any]:
    """The contents of a COCO-format annotation file; AnnotationError where it is no such file or has no images."""
    collecting = gc.isenabled()
    gc.disable()  # nothing of what is read is garbage; looking for it would double the time that COCO's files take
    try:
        data = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}); data/README.md shows the files a set needs") from None
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: not a JSON file ({error})") from None
    finally:
        if collecting:
            gc.enable()
    if not isinstance(data, dict) or not isinstance(data.get("images"), list) or not data["images"]:
        raise AnnotationError(f"{path}: no images; an annotation file is a JSON object with the lists images, categories, annotations")
    if not isinstance(data.get("annotations", []), list):
        raise AnnotationError(f"{path}: annotations is not a list")
    return data


def person_category(data: Mapping[str, Any], skeleton: Skeleton, path: str | Path) -> int:
    """The id of the category whose keypoints are the skeleton's: of several, the one called person.

    Files of pictures to be tested have categories without keypoints; there the name decides. AnnotationError where there is none,
    or where the keypoints have the skeleton's names in another order.
    """
    listed = data.get("categories")
    categories = [c for c in listed if isinstance(c, dict) and type(c.get("id")) is int] if isinstance(listed, list) else []
    names = list(skeleton.keypoints)
    fitting = [c for c in categories if len(c.get("keypoints") or ()) == len(names)]
    fitting = fitting or [c for c in categories if c.get("name") == "person" and not c.get("keypoints")]
    if not fitting:
        found = ", ".join(f"{c.get('name')!r} with {len(c.get('keypoints') or ())}" for c in categories[:5]) or "none at all"
        raise AnnotationError(f"{path}: no category has the {len(names)} keypoints of the skeleton {skeleton.name!r}; found {found}")
    category = next((c for c in fitting if c.get("name") == "person"), fitting[0])
    given = [str(name) for name in category.get("keypoints") or ()]
    if given and given != names and sorted(given) == sorted(names):
        first = next(i for i, (a, b) in enumerate(zip(given, names)) if a != b)
        raise AnnotationError(f"{path}: the category's keypoints are in another order than those of the skeleton {skeleton.name!r}: "
                              f"number {first} is {given[first]}, not {names[first]}")
    return category["id"]


def repair(data: dict[str, Any], category_id: int, skeleton: Skeleton, report: Report) -> None:
    """Leave in `data` only images and annotations (of the category) that are sound; what was wrong goes to the report.

    Boxes are clipped or made anew, ids given anew, what cannot be mended is left out. Fields that may be missing are not added.
    """
    sizes: dict[int, tuple[int, int]] = {}
    images = []
    for image in data["images"]:
        problem = _image_problem(image, sizes)
        if problem:
            report.add(problem, "image left out")
        else:
            sizes[image["id"]] = (image["width"], image["height"])
            images.append(image)
    data["images"] = images
    if "annotations" in data:
        data["annotations"] = list(_sound(data["annotations"], sizes, category_id, data["categories"], skeleton, report))
    if not images:
        raise AnnotationError(f"{report}\n  no image is left")


def _image_problem(image: Any, known: Mapping[int, Any]) -> str:
    if not isinstance(image, dict) or type(image.get("id")) is not int:
        return f"image {shorten(image)}: its id is not a whole number"
    if image["id"] in known:
        return f"image {image['id']}: another image has this id"
    if not isinstance(image.get("file_name"), str) or not image["file_name"]:
        return f"image {image['id']}: no file_name"
    if any(type(image.get(side)) is not int or image[side] <= 0 for side in ("width", "height")):
        return f"image {image['id']} ({image['file_name']}): no width and height in pixels"
    return ""


def _sound(annotations: Iterable[Any], sizes: Mapping[int, tuple[int, int]], category_id: int, categories: Iterable[Any],
           skeleton: Skeleton, report: Report) -> Iterator[dict[str, Any]]:
    known = {c.get("id") for c in categories if isinstance(c, dict)}
    annotations = list(annotations)
    used: set[int] = set()
    spare = max((a["id"] for a in annotations if isinstance(a, dict) and type(a.get("id")) is int), default=0)
    for annotation in annotations:
        if isinstance(annotation, dict) and annotation.get("category_id") != category_id and annotation.get("category_id") in known:
            continue  # of another category, which is none of ours
        problem = _hopeless(annotation, sizes, known, 3 * skeleton.num_keypoints)
        if problem:
            report.add(problem, "annotation left out")
            continue
        problem = _id_problem(annotation, used)
        if problem:
            spare += 1
            report.add(problem, "new id")
            annotation["id"] = spare
        used.add(annotation["id"])
        for problem, mend in _mend(annotation, sizes[annotation["image_id"]]):
            report.add(problem, mend)
        yield annotation


def _hopeless(annotation: Any, sizes: Mapping[int, Any], categories: set[Any], length: int) -> str:
    """Why an annotation cannot be kept, or ''."""
    if not isinstance(annotation, dict):
        return f"annotation {shorten(annotation)}: not an object"
    name = f"annotation {shorten(annotation.get('id'))}"
    if annotation.get("category_id") not in categories:
        return f"{name}: category_id {shorten(annotation.get('category_id'))} is not in categories"
    if type(annotation.get("image_id")) is not int or annotation["image_id"] not in sizes:
        return f"{name}: there is no image {shorten(annotation.get('image_id'))}"
    keypoints = annotation.get("keypoints")
    if not isinstance(keypoints, list) or len(keypoints) != length:
        many = len(keypoints) if isinstance(keypoints, list) else 0
        return f"{name} (image {annotation['image_id']}): {many} keypoint numbers instead of {length} (x, y, visibility of each)"
    if not _finite(keypoints):
        return f"{name} (image {annotation['image_id']}): keypoints are not all finite numbers"
    return ""


def _id_problem(annotation: Mapping[str, Any], used: set[int]) -> str:
    name = f"annotation {shorten(annotation.get('id'))} (image {annotation['image_id']})"
    if type(annotation.get("id")) is not int:
        return f"{name}: its id is not a whole number"
    if annotation["id"] in used:
        return f"{name}: another annotation has this id"
    return f"{name}: the id 0 means 'not matched' to the scorers" if annotation["id"] == 0 else ""


def _mend(annotation: dict[str, Any], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Put right the box, the segmentation and num_keypoints of an annotation; what was wrong, and what was done."""
    name = f"annotation {annotation['id']} (image {annotation['image_id']})"
    box, keypoints = annotation.get("bbox"), annotation["keypoints"]
    if not isinstance(box, list) or len(box) != 4 or not _finite(box) or min(box[2:]) < 0:
        annotation["bbox"] = _extent(keypoints)
        yield f"{name}: bbox {shorten(box)} is not x, y, width, height", "box put around the keypoints"
    elif box[0] < -BOX_SLACK or box[1] < -BOX_SLACK or box[0] + box[2] > size[0] + BOX_SLACK or box[1] + box[3] > size[1] + BOX_SLACK:
        annotation["bbox"] = _clip(box, size)
        yield f"{name}: bbox {shorten(box)} leaves its image of {size[0]} x {size[1]}", "box clipped"
    count = annotation.get("num_keypoints", 0)
    if type(count) is not int or count < 0:
        annotation["num_keypoints"] = sum(v > 0 for v in keypoints[2::3])
        yield f"{name}: num_keypoints {shorten(count)} is not a number of keypoints", "keypoints counted"
    if "segmentation" in annotation and not _is_segmentation(annotation["segmentation"], size):
        shown = shorten(annotation.pop("segmentation"))
        yield f"{name}: segmentation {shown} is neither polygons nor run lengths of the image's size", "segmentation left out"


def _is_segmentation(value: Any, size: tuple[int, int]) -> bool:
    """Polygons [[x, y, x, y, x, y, ...], ...] or run lengths {'size': [h, w], 'counts': [...] or text}."""
    if isinstance(value, list):
        return all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and _finite(p) for p in value)
    if not isinstance(value, dict) or value.get("size") != [size[1], size[0]]:
        return False
    counts = value.get("counts")
    if isinstance(counts, list):
        return all(type(n) is int and n >= 0 for n in counts) and sum(counts) == size[0] * size[1]
    return isinstance(counts, str)


def _finite(values: Iterable[Any]) -> bool:
    try:
        return all(map(isfinite, values))
    except (TypeError, OverflowError):
        return False


def _extent(keypoints: list[float]) -> list[float]:
    xs, ys = ([p for p, v in zip(keypoints[i::3], keypoints[2::3]) if v > 0] or [0] for i in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _clip(box: list[float], size: tuple[int, int]) -> list[float]:
    left, top = (min(max(box[i], 0), size[i]) for i in (0, 1))
    right, bottom = (min(max(box[i] + box[i + 2], 0), size[i]) for i in (0, 1))
    return [left, top, right - left, bottom - top]


def shorten(value: Any) -> str:
    """A value from outside as it may stand in a message: printable, on one line, not long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
