"""How many people stand in a scene, how large, and where."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swahr.synthetic.figure import Figure, place, sample_figure
from swahr.synthetic.settings import SceneSettings
from swahr.synthetic.shapes import Array


class Placed(NamedTuple):
    figure: Figure
    size: float
    points: Array
    labelled: bool
    crowd: bool


def place_people(
    rng: np.random.Generator, width: int, height: int, horizon: int, settings: SceneSettings
) -> list[Placed]:
    """People from the farthest (mostly the smallest) to the nearest; a crowd stands behind
    everybody.
    """
    people: list[Placed] = []
    boxes: list[Array] = []
    smallest = max(settings.min_pixels / height, settings.figure_height[0])
    largest = max(smallest, settings.figure_height[1])
    for _ in range(int(rng.integers(settings.people[0], settings.people[1] + 1))):
        upright = rng.random() < settings.upright
        back = rng.random() < settings.back
        figure = sample_figure(rng, upright=upright, back=back, turn=settings.turn)
        size = height * float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        partner = (
            boxes[int(rng.integers(len(boxes)))]
            if boxes and rng.random() < settings.overlap
            else None
        )
        if partner is not None:
            near = float((partner[3] - partner[1]) * rng.uniform(0.8, 1.25))
            size = min(max(near, smallest * height), largest * height)
        origin = _origin(
            rng, figure, size, (width, height), horizon, settings.cut_off, boxes, partner
        )
        points = place(figure, size, origin)
        boxes.append(np.concatenate([points.min(axis=0), points.max(axis=0)]))
        people.append(Placed(figure, size, points, rng.random() >= settings.unlabelled, False))
    order = np.argsort(
        [round(person.size * rng.uniform(0.85, 1.15), 6) for person in people], kind="stable"
    )
    crowd = _crowd(rng, width, height, settings) if rng.random() < settings.crowd else []
    return crowd + [people[i] for i in order]


def _origin(
    rng: np.random.Generator,
    figure: Figure,
    size: float,
    image: tuple[int, int],
    horizon: int,
    cut_off: float,
    boxes: list[Array],
    partner: Array | None,
) -> Array:
    """Where the pelvis goes: beside the partner, or where the person covers the others least;
    inside, if not cut off.

    Most people stand on the ground, the larger the nearer; one in six floats.
    """
    low = figure.points[:, :2].min(axis=0) * size
    high = figure.points[:, :2].max(axis=0) * size
    margin = 0.04 * size
    reach = (high - low) * (0.5 if rng.random() < cut_off else 0.0) - margin
    start = -low - reach
    end = np.array(image) - 1 - high + reach
    middle = (start + end) / 2
    start = np.minimum(start, middle)
    end = np.maximum(end, middle)  # too large for the image: centred
    if partner is not None:
        side = 1 if rng.random() < 0.5 else -1
        apart = np.array([side * rng.uniform(0.08, 0.35), rng.uniform(-0.08, 0.08)]) * size
        return np.clip((partner[:2] + partner[2:]) / 2 + apart - (low + high) / 2, start, end)
    tries = start + rng.uniform(0, 1, (8, 2)) * (end - start)
    if rng.random() < 5 / 6:
        ground = horizon + (image[1] - horizon) * min(1.0, size / image[1]) * rng.uniform(
            0.6, 1.1, 8
        )
        tries[:, 1] = np.clip(ground - high[1], start[1], end[1])
    if not boxes:
        return tries[0]
    others = np.stack(boxes)
    span = np.minimum(tries[:, None] + high, others[:, 2:]) - np.maximum(
        tries[:, None] + low, others[:, :2]
    )
    covered = np.prod(np.maximum(span, 0), axis=2).sum(axis=1)
    return tries[int(np.argmin(np.round(covered)))]


def _crowd(
    rng: np.random.Generator, width: int, height: int, settings: SceneSettings
) -> list[Placed]:
    """A dozen or more small people side by side."""
    size = max(settings.min_pixels, height * rng.uniform(0.07, 0.16))
    left = width * rng.uniform(0, 0.6)
    base = height * rng.uniform(0.25, 0.7)
    count = int(rng.integers(8, 17))
    found = []
    for i in range(count):
        figure = sample_figure(rng, upright=True, back=rng.random() < 0.5, turn=90)
        right = 0.3 * (i // 2) + rng.uniform(0, 0.2)
        down = 0.25 * (i % 2) + rng.uniform(-0.05, 0.05)
        at = (left + size * right, base + size * down)
        tall = size * rng.uniform(0.85, 1.15)
        found.append(Placed(figure, tall, place(figure, tall, at), False, True))
    return sorted(found, key=lambda person: round(float(person.points[0, 1]), 6))
