"""A figure and its clothes as convex shapes, and which of its joints are visible.

A limb is a cylinder whose front half and back half have different cloth; how much is visible of
each depends on how the limb is turned. This, the face and the seam on a limb's outer side tell left
from right in mirrored images too. The warm and cool marks do so only in images that are not
mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swahr.synthetic.figure import POINT, POINTS, SIDES, Figure, face_visible
from swahr.synthetic.outfit import Color, Outfit, dark, light
from swahr.synthetic.shapes import (
    PART,
    PARTS,
    Array,
    Image,
    Shape,
    capsules,
    ellipses,
    fixed,
    hull,
    unit,
)

# The parts that a joint belongs to. A joint is visible where one of them is on top.
OWN_PARTS = {
    "shoulder": ("torso", "?_arm"),
    "elbow": ("?_arm", "?_forearm"),
    "wrist": ("?_forearm", "?_hand"),
    "hip": ("torso", "pelvis", "?_thigh"),
    "knee": ("?_thigh", "?_shin"),
    "ankle": ("?_shin", "?_foot"),
    "neck": ("head", "neck", "torso"),
}


class Limb(NamedTuple):
    """A tapered cylinder from joint to joint.

    radii: in heights, at both ends. nearer: added to its depth. marked: "seam" or "pad" on people
    with marks.
    """

    part: str
    start: str
    end: str
    radii: tuple[float, float]
    nearer: float
    marked: str = ""


LIMBS = (
    Limb("arm", "shoulder", "elbow", (0.034, 0.027), 0.030, "seam"),
    Limb("forearm", "elbow", "wrist", (0.027, 0.020), 0.040, "pad"),
    Limb("hand", "wrist", "hand", (0.020, 0.022), 0.045),
    Limb("thigh", "hip", "knee", (0.052, 0.037), -0.085, "seam"),
    Limb("shin", "knee", "ankle", (0.037, 0.024), -0.090, "pad"),
    Limb("foot", "ankle", "toe", (0.029, 0.023), -0.085),
)
# One row for each limb of a figure, left ones first.
_ROWS = [(side, limb) for side in ("left", "right") for limb in LIMBS]
_START = np.array([POINT[f"{side}_{limb.start}"] for side, limb in _ROWS])
_END = np.array([POINT[f"{side}_{limb.end}"] for side, limb in _ROWS])
_RADII = np.array([limb.radii for _, limb in _ROWS])
_NEARER = np.array([limb.nearer for _, limb in _ROWS])
_SIDE = np.repeat([0, 1], len(LIMBS))
_IS_ARM = np.array([limb.part in ("arm", "forearm", "hand") for _, limb in _ROWS])
_PART = [PART[f"{side}_{limb.part}"] for side, limb in _ROWS]


def figure_shapes(figure: Figure, outfit: Outfit, pixels: Array, size: float) -> list[Shape]:
    """The shapes of a figure in its clothes.

    pixels: the figure's points (len(POINTS), 2) in the image. size: its standing height in px.
    """
    person = (figure, outfit, pixels, size)
    return [*_limb_shapes(*person), *_trunk_shapes(*person), *_head_shapes(*person)]


def joint_visible(pixels: Array, parts: Image) -> NDArray[np.bool_]:
    """(len(POINTS),): whether the part on top at a point's pixel is one that the point belongs to.

    parts: (H, W) indices in PARTS, as `paint` writes them. False for points outside of it.
    """
    x, y = np.round(pixels).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < parts.shape[1]) & (y < parts.shape[0])
    top = np.zeros(len(pixels), int)
    top[inside] = parts[y[inside], x[inside]]
    return _own_parts()[np.arange(len(pixels)), top]


@lru_cache(maxsize=1)
def _own_parts() -> NDArray[np.bool_]:
    """(points, parts): whether a part belongs to a point."""
    own = np.zeros((len(POINTS), len(PARTS)), bool)
    for name, row in zip(POINTS, own, strict=True):
        side, _, joint = name.rpartition("_")
        row[[PART[part.replace("?", side)] for part in OWN_PARTS.get(joint, ("head",))]] = True
    return own


# -- limbs


def _cloth(outfit: Outfit) -> list[tuple[Color, Color]]:
    """The (front, back) colours of each limb."""
    skin = (outfit.skin, dark(outfit.skin, 1))
    found = []
    for i in (0, 1):
        glove = (outfit.marks[i], outfit.marks[i]) if outfit.marked else skin
        found += [
            skin if outfit.sleeves == "none" else outfit.top,
            outfit.top if outfit.sleeves == "long" else skin,
            glove,
            skin if outfit.skirt else outfit.legs,
            skin if outfit.skirt or outfit.shorts else outfit.legs,
            (outfit.shoes[i], dark(outfit.shoes[i], 2)),
        ]
    return found


class _Layer(NamedTuple):
    """One cylinder on every limb: ends (n, 2) in px, radii (n, 1), colours, and which are drawn."""

    start: Array
    end: Array
    start_radius: Array
    end_radius: Array
    colors: list[Color]
    drawn: NDArray[np.bool_]


def _limb_shapes(figure: Figure, outfit: Outfit, pixels: Array, size: float) -> list[Shape]:
    """The shapes of arms, hands, legs and feet."""
    layers = _limb_layers(figure, outfit, pixels, size)
    start, end, thick, thin = (
        np.concatenate(column) for column in list(zip(*layers, strict=True))[:4]
    )
    polygons = fixed(capsules(start, end, thick[:, 0], thin[:, 0]))
    depth = ((figure.points[_START, 2] + figure.points[_END, 2]) / 2 + _NEARER).tolist()
    return [
        Shape(polygons[k * len(_ROWS) + i], layer.colors[i], _PART[i] if k == 0 else 0, depth[i])
        for k, layer in enumerate(layers)
        for i in np.flatnonzero(layer.drawn)
    ]


def _limb_layers(figure: Figure, outfit: Outfit, pixels: Array, size: float) -> list[_Layer]:
    """Layers from the lowest to the highest: outline, back cloth, visible part of the front cloth,
    highlight, seam, pad with its outline, cuff, and the pad's highlight.
    """
    p = pixels[_START]
    q = pixels[_END]
    radii = _RADII * (size * figure.build)
    top = radii[:, :1]
    low = radii[:, 1:]
    cloth = _cloth(outfit)
    axes = np.where(_IS_ARM[:, None, None], figure.chest, figure.pelvis)
    along = unit(figure.points[_END] - figure.points[_START])
    front, facing = _visible_side(along, axes[:, 2])
    outer, outer_facing = _visible_side(along, axes[:, 0] * SIDES[_SIDE, None])
    share = ((1 + facing) / 2)[:, None]
    slant = front * (1 - share)
    seam = outer * (np.sqrt(np.maximum(0, 1 - outer_facing**2)) * 0.72)[:, None]
    glint = np.array([-0.35, -0.2])
    glints = [
        light(pair[0] if toward > 0 else pair[1])
        for pair, toward in zip(cloth, facing, strict=True)
    ]
    marks = [outfit.marks[i] for i in _SIDE]
    mark_rims = [dark(color) for color in marks]
    mark_glints = [light(color, 6) for color in marks]
    everywhere = np.ones(len(_ROWS), bool)
    seams, pads = (
        np.array([outfit.marked and limb.marked == mark for _, limb in _ROWS])
        for mark in ("seam", "pad")
    )
    fronts = share[:, 0] > 0.05
    seams = seams & (outer_facing > -0.4)
    pad_rim = top * 1.12
    pad = top * 0.9
    cuff = low * 1.1
    return [
        _Layer(p, q, top, low, [dark(back, 4) for _, back in cloth], everywhere),
        _Layer(p, q, top * 0.86, low * 0.86, [back for _, back in cloth], everywhere),
        _Layer(
            p + slant * top,
            q + slant * low,
            top * 0.86 * share,
            low * 0.86 * share,
            [face for face, _ in cloth],
            fronts,
        ),
        _Layer(p + glint * top, q + glint * low, top * 0.3, low * 0.3, glints, everywhere),
        _Layer(p + seam * top, q + seam * low, top * 0.22, low * 0.22, marks, seams),
        _Layer(p + (p - q) * 0.10, p + (q - p) * 0.16, pad_rim, pad_rim, mark_rims, pads),
        _Layer(p + (p - q) * 0.08, p + (q - p) * 0.14, pad, pad, marks, pads),
        _Layer(p + (q - p) * 0.86, q, cuff, cuff, marks, pads),
        _Layer(p, p, top * 0.45, top * 0.45, mark_glints, pads & (facing > 0)),
    ]


def _visible_side(along: Array, direction: Array) -> tuple[Array, Array]:
    """The side of limbs (n, 3) that points in a direction (n, 3) of the body: its direction (n, 2)
    in the image, and how much it faces the camera (n,), -1 to 1.
    """
    across = unit(direction - (direction * along).sum(axis=1, keepdims=True) * along)
    return unit(across[:, :2]), across[:, 2]


# -- trunk


def _trunk_shapes(figure: Figure, outfit: Outfit, pixels: Array, size: float) -> list[Shape]:
    """Neck, pelvis or skirt, shirt, and the decoration of the shirt."""
    corners = [POINT[name] for name in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    box = pixels[corners]
    depth = float(figure.points[corners, 2].mean())
    r = np.array([0.034, 0.034, 0.056, 0.056]) * (size * figure.build)
    share = (1 + float(figure.chest[2, 2])) / 2
    shift = unit(figure.chest[2, :2]) * (1 - share)
    neck = [
        pixels[[POINT["neck"]]],
        pixels[[POINT["head_center"]]],
        np.array([r[0]]),
        np.array([r[0] * 0.85]),
    ]
    shapes = [Shape(fixed(capsules(*neck)[0]), dark(outfit.skin, 2), PART["neck"], depth - 0.002)]
    lower = box[2:]
    radius = r[2]
    if outfit.skirt:
        knees = pixels[[POINT["right_knee"], POINT["left_knee"]]]
        hem = lower + 0.62 * (knees - lower)
        lower = np.concatenate([lower, hem + (hem - hem.mean(axis=0)) * 0.4])
    shapes += [
        Shape(fixed(hull(lower, radius)), dark(outfit.legs[0]), PART["pelvis"], depth - 0.004),
        Shape(
            fixed(hull(lower, radius * 0.88)),
            outfit.legs[0 if share > 0.5 else 1],
            0,
            depth - 0.004,
        ),
        Shape(fixed(hull(box, r)), dark(outfit.top[1], 4), PART["torso"], depth),
        Shape(fixed(hull(box, r * 0.9)), outfit.top[1], 0, depth),
    ]
    if share > 0.06:
        shapes.append(
            Shape(fixed(hull(box + shift * r[:, None], r * 0.9 * share)), outfit.top[0], 0, depth)
        )
    rows, colors = _decoration(figure, outfit, box, r[0], size)
    if rows:
        polygons = fixed(capsules(*(np.array([row[k] for row in rows]) for k in range(4))))
        shapes += [
            Shape(polygon, color, 0, depth) for polygon, color in zip(polygons, colors, strict=True)
        ]
    return shapes


def _decoration(
    figure: Figure, outfit: Outfit, box: Array, radius: float, size: float
) -> tuple[list[tuple[Array, Array, float, float]], list[Color]]:
    """Stripes, dots, a zip, a backpack and marks, as capsules and their colours.

    box: (4, 2) left and right shoulder, right and left hip in px. radius: of the shoulders, px.
    """
    facing = float(figure.chest[2, 2])
    left, right, right_hip, left_hip = box
    ground = outfit.top[0 if facing > 0 else 1]
    ink = dark(ground, 5) if sum(ground) > 330 else light(ground, 5)
    rows: list[tuple[Array, Array, float, float]] = []
    colors: list[Color] = []

    def at(t: float, u: float) -> Array:
        """The point at t from shoulders (0) to hips (1) and u from right (-1) to left (1)."""
        top = (left + right + u * (left - right)) / 2
        low = (left_hip + right_hip + u * (left_hip - right_hip)) / 2
        return top + t * (low - top)

    def line(
        start: tuple[float, float],
        end: tuple[float, float],
        half: float,
        color: Color,
        longer: float = 0,
    ) -> None:
        p = at(*start)
        q = at(*end)
        extra = unit(q - p) * longer
        rows.append((p - extra, q + extra, half * size, half * size))
        colors.append(color)

    if outfit.pattern == "stripes":
        for t in (0.15, 0.4, 0.65, 0.9):
            line((t, -1), (t, 1), 0.013, ink, radius * 0.8)
    elif outfit.pattern == "halves":
        for t in (0.65, 0.8, 0.95):
            line((t, -1), (t, 1), 0.026, ink, radius * 0.5)
    elif outfit.pattern == "dots":
        for t, u in ((0.1, -0.6), (0.1, 0.6), (0.35, 0), (0.6, -0.6), (0.6, 0.6), (0.85, 0)):
            line((t, u), (t, u), 0.017, ink)
    elif outfit.pattern == "number":
        line((0.4, 0), (0.4, 0), 0.05, light(ground, 7))
        line((0.4, 0), (0.4, 0), 0.032, ink)
    if facing > 0.25:
        line((-0.05, 0), (0.95, 0), 0.006, (250, 250, 245))
    if outfit.backpack and facing < -0.2:
        line((0.2, 0), (0.68, 0), 0.085, dark(outfit.marks[0], 5))
        line((0.2, 0), (0.68, 0), 0.075, dark(outfit.marks[0]))
        line((0.55, -0.35), (0.55, 0.35), 0.02, dark(outfit.marks[0], 5))
    elif outfit.backpack and facing > 0.3:
        for u in (-0.65, 0.65):
            line((-0.05, u), (0.6, u), 0.012, dark(outfit.marks[0]))
    if outfit.marked:
        for color, u in zip(outfit.marks, (1, -1), strict=True):
            line((0.02, u), (0.02, u), 0.026, color)
            line((0.98, u), (0.98, u), 0.024, color)
    return rows, colors


# -- head


def _head_shapes(figure: Figure, outfit: Outfit, pixels: Array, size: float) -> list[Shape]:
    """Skull, hair, face, features and cap, as ellipses along the axes of the head."""
    half_width, half_height = (radius * size for radius in figure.head_radii)
    flat = float(np.hypot(*figure.head[1, :2]))  # visible share of the head's length
    across_unit = unit(np.array([-figure.head[1, 1], figure.head[1, 0]]))
    down = unit(figure.head[1, :2]) * (half_height * flat + half_width * (1 - flat))
    side = across_unit * half_width
    forward = figure.head[2, :2] * half_width
    toward = float(figure.head[2, 2])
    center = pixels[POINT["head_center"]]
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
    _draw_features(figure, outfit, pixels, down, oval)
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


def _draw_features(
    figure: Figure, outfit: Outfit, pixels: Array, down: Array, oval: Callable[..., None]
) -> None:
    """Eyes, nose, mouth and ears where the head does not hide them. oval: draws an ellipse."""
    visible = face_visible(figure)
    squeeze = max(0.35, float(figure.head[2, 2]))
    ring = dark(outfit.skin, 4)
    drop = outfit.marks if outfit.marked else (dark(outfit.skin, 1),) * 2
    for i in (0, 1):
        if visible[3 + i]:
            oval(pixels[3 + i], 0.20, 0.22, ring, "head")
            oval(pixels[3 + i], 0.14, 0.17, drop[i])
    for i in (0, 1):
        if visible[1 + i]:
            oval(pixels[1 + i], 0.21 * squeeze, 0.14, (252, 252, 250))
            oval(pixels[1 + i], 0.11 * max(squeeze, 0.6), 0.115, (20, 18, 22))
            oval(pixels[1 + i] - 0.2 * down, 0.2 * squeeze, 0.04, dark(outfit.hair, 1))
    if visible[0]:
        oval(pixels[POINT["mouth"]], 0.28 * squeeze, 0.07, (165, 50, 55))
        oval(pixels[0] - 0.02 * down, 0.11, 0.15, dark(outfit.skin, 2), "head")
        oval(pixels[0], 0.08, 0.08, light(outfit.skin, 3))
