"""A head as convex shapes: skull, hair, face, features and cap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from swahr.synthetic.colors import Color, dark, light
from swahr.synthetic.figure import POINT, Figure, face_visible
from swahr.synthetic.outfit import Outfit
from swahr.synthetic.shapes import PART, Array, Shape, ellipses, fixed, unit


def head_shapes(figure: Figure, outfit: Outfit, at: Array, size: float) -> list[Shape]:
    """Skull, hair, face, features and cap, as ellipses upright on the head."""
    half_width, half_height = (radius * size for radius in figure.head_radii)
    flat = float(np.hypot(*figure.head[1, :2]))  # how much of the head's length the camera sees
    across_unit = unit(np.array([-figure.head[1, 1], figure.head[1, 0]]))
    down = unit(figure.head[1, :2]) * (half_height * flat + half_width * (1 - flat))
    side = across_unit * half_width
    forward = figure.head[2, :2] * half_width
    toward = float(figure.head[2, 2])
    center = at[POINT["head_center"]]
    depth = float(figure.points[POINT["head_center"], 2]) + 0.04
    rows: list[tuple[Array, float, float, Color, str, float]] = []

    def oval(
        middle: Array,
        wide: float,
        high: float,
        color: Color,
        part: str = "nothing",
        nearer: float = 0.0,
    ) -> None:
        rows.append((middle, wide, high, color, part, depth + nearer))

    share = (1 + toward) / 2
    hair = center - 0.16 * forward - 0.10 * down
    if outfit.long_hair:
        behind = -0.06 if toward > 0 else 0.02
        oval(center - 0.25 * forward + 0.5 * down, 0.98, 0.85, dark(outfit.hair, 1), "hair", behind)
    oval(center, 1.0, 1.0, dark(outfit.skin, 4), "head")
    oval(center, 0.93, 0.95, outfit.skin)
    oval(hair, 1.06, 0.98, dark(outfit.hair), "head")
    oval(hair, 1.0, 0.92, outfit.hair)
    oval(hair - 0.3 * side - 0.45 * down, 0.3, 0.2, light(outfit.hair))
    if share > 0.3:
        oval(
            center + 0.30 * forward + 0.17 * down,
            0.30 + 0.58 * min(1.0, share * 1.05),
            0.82,
            outfit.skin,
        )
    _features(figure, outfit, at, down, oval)
    if outfit.cap:
        top = center - 0.55 * down - 0.05 * forward
        oval(top, 1.02, 0.52, dark(outfit.marks[1]), "head")
        oval(top + 0.30 * down + 0.75 * forward, 0.85, 0.13, dark(outfit.marks[1], 5))
    wide, high = (np.array([row[k] for row in rows])[:, None] for k in (1, 2))
    polygons = fixed(ellipses(np.array([row[0] for row in rows]), wide * side, high * down))
    return [
        Shape(polygon, row[3], PART[row[4]], row[5])
        for polygon, row in zip(polygons, rows, strict=True)
    ]


def _features(
    figure: Figure, outfit: Outfit, at: Array, down: Array, oval: Callable[..., None]
) -> None:
    """Eyes, nose, mouth and ears, where the head does not hide them."""
    seen = face_visible(figure)
    squeeze = max(0.35, float(figure.head[2, 2]))
    ring = dark(outfit.skin, 4)
    drop = outfit.marks if outfit.marked else (dark(outfit.skin, 1),) * 2
    for i in (0, 1):
        if seen[3 + i]:
            oval(at[3 + i], 0.20, 0.22, ring, "head")
            oval(at[3 + i], 0.14, 0.17, drop[i])
    for i in (0, 1):
        if seen[1 + i]:
            oval(at[1 + i], 0.21 * squeeze, 0.14, (252, 252, 250))
            oval(at[1 + i], 0.11 * max(squeeze, 0.6), 0.115, (20, 18, 22))
            oval(at[1 + i] - 0.2 * down, 0.2 * squeeze, 0.04, dark(outfit.hair, 1))
    if seen[0]:
        oval(at[POINT["mouth"]], 0.28 * squeeze, 0.07, (165, 50, 55))
        oval(at[0] - 0.02 * down, 0.11, 0.15, dark(outfit.skin, 2), "head")
        oval(at[0], 0.08, 0.08, light(outfit.skin, 3))
