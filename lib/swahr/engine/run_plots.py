"""Images of a run in progress: curves of its figures, and people of its validation."""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from swahr.data.images import Image
from swahr.data.keypoints import KeypointDataset
from swahr.evaluation.figures import is_defined
from swahr.evaluation.records import Record
from swahr.files import write_bytes
from swahr.visualize import draw_people, fit, make_grid, save_image

logger = logging.getLogger("swahr")

LOSS = "loss"
RATE = "learning_rate"
MAX_CURVES = 8  # of a panel
DETAILS = ("AP (", "AR ")  # beginnings of the names of figures that are not drawn
EXAMPLES = 8  # images of val_images.jpg
COLUMNS = 4  # of images, two to an example
CELL = 320  # px of the longer side of an image
THRESHOLD = 0.1  # lowest score of the people that are drawn, as that of `swahr predict`


def draw_curves(path: Path, rows: Mapping[int, Mapping[str, str]], figures: Sequence[str]) -> None:
    """Draw losses, figures of validation and learning rate against the epoch; needs matplotlib.

    The losses have a logarithmic scale unless one is negative or all are 0.

    rows: results.csv by epoch. figures: the names of those of validation. Raises ImportError,
    WriteError.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    first = names.index(LOSS) if LOSS in names else 0
    losses = names[first : names.index(RATE)] if RATE in names else []
    shares = [name for name in figures if not name.startswith(DETAILS) and _is_share(rows, name)]
    panels = [("losses", losses), ("validation", shares), ("learning rate", [RATE])]
    canvas = Figure(figsize=(13, 3.8), dpi=90, layout="constrained")
    for axes, (title, columns) in zip(canvas.subplots(1, len(panels)), panels):
        curves = {name: _curve(rows, name) for name in columns[:MAX_CURVES]}
        for name, curve in curves.items():
            axes.plot(*curve, ".-", label=name)
        values = [value for _, of_curve in curves.values() for value in of_curve]
        if columns is losses and values and min(values) >= 0 < max(values):
            axes.set_yscale("log")  # a curve leaves the panel where it is 0
        axes.set(title=title, xlabel="epoch")
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        if curves and columns != [RATE]:
            axes.legend(fontsize=8)
    data = io.BytesIO()
    canvas.savefig(data, format="png")
    write_bytes(path, data.getvalue(), durable=False)


def _curve(rows: Mapping[int, Mapping[str, str]], name: str) -> tuple[list[int], list[float]]:
    """The epochs that have a defined value, and their values."""
    points = {
        epoch: float(row[name])
        for epoch, row in sorted(rows.items())
        if row.get(name) and is_defined(float(row[name]))
    }
    return list(points), list(points.values())


def _is_share(rows: Mapping[int, Mapping[str, str]], name: str) -> bool:
    """Whether a figure lies between 0 and 1."""
    _, values = _curve(rows, name)
    return bool(values) and all(0 <= value <= 1 for value in values)


def draw_validation(path: Path, dataset: KeypointDataset, records: Sequence[Record]) -> None:
    """Draw the truth of a few images of a data set beside the people that were found in them.

    records: of the whole set. Images that cannot be read, and a full disk, cost a line of the log.
    """
    chosen = dataset.examples(EXAMPLES)
    people: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record["image_id"] in chosen and record["score"] >= THRESHOLD:
            people[record["image_id"]].append(record)
    cells: list[Image] = []
    try:
        for image_id in chosen:
            cells += _pair(dataset, image_id, people[image_id])
        save_image(path, make_grid(cells, COLUMNS))
    except Exception as error:  # a drawing must not end a run, whatever is wrong with it
        reason = " ".join(str(error).split())
        logger.warning("%s; training continues without %s", reason, path.name)


def _pair(dataset: KeypointDataset, image_id: int, people: Sequence[Record]) -> list[Image]:
    """The image with its truth, and with the people that were found."""
    image = dataset.read(image_id)
    small = fit(image, CELL)
    zoom = np.array([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0], 1])
    found = np.array([record["keypoints"] for record in people], np.float64)
    found = found.reshape(len(people), dataset.skeleton.num_keypoints, 3)
    scores = [record["score"] for record in people]
    truth = dataset.joints(image_id)[..., :3]
    return [
        _titled(draw_people(small, truth * zoom, dataset.skeleton), "truth"),
        _titled(draw_people(small, found * zoom, dataset.skeleton, scores), "prediction"),
    ]


def _titled(image: Image, text: str) -> Any:
    """The image with a word in its corner; in place."""
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(image, text, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, width, cv2.LINE_AA)
    return image
