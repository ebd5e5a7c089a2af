"""The worst images of a run, with truth beside prediction and its errors ringed."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from swahr.data.images import ImageError, ImageStore
from swahr.evaluation.matching import Bools, Run
from swahr.report.charts import KIND_COLORS
from swahr.report.errors import ERRORS, KEYPOINT_KINDS, Errors
from swahr.visualize import draw_people, fit

LONG_SIDE = 560  # pixels of an image in the report
MAX_ZOOM = 2
JPEG_QUALITY = 82
RING = 7  # pixels of the radius around a wrong keypoint
GREY = 110  # of the canvas in place of an image that is not there

Image = NDArray[np.uint8]
# An image (H, W, 3), and the same at the page's size -> drawings of the network's maps by name.
# Raises ValueError for an image that the network cannot take.
DrawMaps = Callable[[Image, Image], Mapping[str, Image]]


@dataclass(frozen=True)
class Card:
    """One image of the gallery.

    images: (caption, data URI) of the truth and of each run; size: their width and height. kinds:
    number of errors of each kind in the image. maps: (name, data URI) of what the first run's
    network saw. note: why the image or its maps are not there, or "".
    """

    title: str
    loss: float
    images: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    kinds: dict[str, int]
    maps: tuple[tuple[str, str], ...]
    note: str


def make_card(
    index: int,
    loss: float,
    runs: Sequence[tuple[str, Run, Errors, float]],
    info: Mapping[str, Any],
    store: ImageStore | None,
    draw_maps: DrawMaps | None = None,
) -> Card:
    """The card of image `index`; its kinds are those of the first run.

    runs: name, run, errors and score threshold of each. Detections that mean a person are drawn
    whatever their score, with the keypoints that the truth can judge; others from the threshold on.
    info: the image's entry in the annotations.
    """
    name, first, errors, threshold = runs[0]
    truth = first.truth
    whole, note = _read(truth.file_names[index], info, store)
    image, zoom = _at_page_size(whole, first, index, info)
    scale = np.array([zoom, zoom, 1.0])
    people = truth.keypoints[truth.starts[index] : truth.starts[index + 1]]
    labelled = draw_people(image, people * scale, first.skeleton, ids=range(len(people)))
    images = [("truth", _data_uri(labelled))]
    for name, run, found_errors, limit in runs:
        drawn = _draw_found(image, zoom, run, found_errors, shown(run, found_errors, limit), index)
        images.append((name if len(runs) > 1 else "prediction", _data_uri(drawn)))
    maps: tuple[tuple[str, str], ...] = ()
    if draw_maps and whole is not None:
        try:
            drawings = draw_maps(whole, image)
            maps = tuple((name, _data_uri(drawing)) for name, drawing in drawings.items())
        except ValueError as error:
            note = f"no maps: {error}"
    return Card(
        title=truth.file_names[index],
        loss=loss,
        images=tuple(images),
        size=(image.shape[1], image.shape[0]),
        kinds=kinds_of_image(first, errors, shown(first, errors, threshold), index),
        maps=maps,
        note=note,
    )


def shown(run: Run, errors: Errors, threshold: float) -> Bools:
    """(D,) detections that mean a person who counts, or whose score reaches the threshold."""
    meant = errors.person >= 0
    counts = np.zeros(len(meant), bool)
    counts[meant] = ~run.truth.ignored[errors.person[meant]]
    return counts | (run.found.scores >= threshold)


def kinds_of_image(run: Run, errors: Errors, chosen: Bools, index: int) -> dict[str, int]:
    """Number of errors of each kind in one image, without kinds that it has none of; only the
    detections of `chosen` (D,) count.
    """
    found = slice(run.found.starts[index], run.found.starts[index + 1])
    people = slice(run.truth.starts[index], run.truth.starts[index + 1])
    counts: Counter[str] = Counter()
    for code, kind in enumerate(KEYPOINT_KINDS):
        counts[kind] = int((errors.kinds[found] == code).sum())
    for kind in ("double", "background"):
        counts[kind] = int((getattr(errors, kind)[found] & chosen[found]).sum())
    for kind in ("score", "missed"):
        counts[kind] = int(getattr(errors, kind)[people].sum())
    return {kind: counts[kind] for kind in ERRORS if counts[kind]}


def _read(
    file_name: str, info: Mapping[str, Any], store: ImageStore | None
) -> tuple[Image | None, str]:
    """The image in the pixels that its annotations refer to, and why it cannot be read or ""."""
    if store is None:
        return None, ""
    size = (info["width"], info["height"]) if {"width", "height"} <= info.keys() else None
    try:
        return store.read(file_name, size), ""
    except ImageError as error:
        return None, str(error)


def _at_page_size(
    image: Image | None, run: Run, index: int, info: Mapping[str, Any]
) -> tuple[Image, float]:
    """The image at the report's size, and the zoom to it; a grey canvas for None."""
    if image is not None:
        longest = max(image.shape[:2])
        at_page = min(LONG_SIDE, MAX_ZOOM * longest)
        return fit(image, at_page), at_page / longest
    people = run.truth.boxes[run.truth.starts[index] : run.truth.starts[index + 1]]
    ends = (people[:, :2] + people[:, 2:]).max(axis=0, initial=64)
    width = int(info.get("width") or ends[0])
    height = int(info.get("height") or ends[1])
    zoom = min(LONG_SIDE / max(width, height), MAX_ZOOM)
    size = (max(1, round(height * zoom)), max(1, round(width * zoom)), 3)
    return np.full(size, GREY, np.uint8), zoom


def _draw_found(
    image: Image, zoom: float, run: Run, errors: Errors, chosen: Bools, index: int
) -> Image:
    start, stop = run.found.starts[index], run.found.starts[index + 1]
    rows = start + np.flatnonzero(chosen[start:stop])
    keypoints = run.found.keypoints[rows] * np.array([zoom, zoom, 1.0])
    judged = errors.kinds[rows] >= 0
    # Of those that mean a person only what the truth can judge; the rest would hide it.
    found = run.found.has_joint[rows]
    keypoints[..., 2] = (judged | ~judged.any(axis=1, keepdims=True)) & found
    person = errors.person[rows]
    ids = np.where(person >= 0, person - run.truth.starts[index], -1)  # as the truth has them
    canvas = draw_people(image, keypoints, run.skeleton, run.found.scores[rows], ids=ids)
    for row, points, is_found in zip(rows.tolist(), keypoints, found):
        for k in np.flatnonzero((errors.kinds[row] > 0) & is_found).tolist():
            kind = KEYPOINT_KINDS[errors.kinds[row, k]]
            _ring(canvas, points[k, :2], KIND_COLORS[kind])
        for kind in ("double", "background"):
            if getattr(errors, kind)[row]:
                _frame(canvas, points[is_found], KIND_COLORS[kind])
    people = slice(run.truth.starts[index], run.truth.starts[index + 1])
    for box, missed in zip(run.truth.boxes[people] * zoom, errors.missed[people]):
        if missed:
            corners = np.array([box[:2], box[:2] + box[2:]])
            _frame(canvas, corners, KIND_COLORS["missed"])
    return canvas


def _ring(canvas: Image, place: NDArray[np.float64], color: str) -> None:
    center = (round(float(place[0])), round(float(place[1])))
    cv2.circle(canvas, center, RING, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.circle(canvas, center, RING, _rgb(color), 2, cv2.LINE_AA)


def _frame(canvas: Image, points: NDArray[np.float64], color: str) -> None:
    low = points[:, :2].min(axis=0).round().astype(int).tolist()
    high = points[:, :2].max(axis=0).round().astype(int).tolist()
    cv2.rectangle(canvas, low, high, _rgb(color), 2, cv2.LINE_AA)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _data_uri(image: Image) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
