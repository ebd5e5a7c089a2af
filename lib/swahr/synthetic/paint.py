"""A figure and its clothes as convex shapes, and which of its joints show.

A limb is a cylinder with a front half and a back half of different cloth; what shows of each
follows from how it is turned. That, the face and the seam on a limb's outer side tell left from
right also in a mirrored image; the warm and cool marks do so only in images that are not mirrored.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swahr.synthetic.colors import Color, dark, light
from swahr.synthetic.figure import POINT, POINTS, SIDES, Figure
from swahr.synthetic.head import head_shapes
from swahr.synthetic.outfit import Outfit
from swahr.synthetic.shapes import PART, PARTS, Array, Image, Shape, capsules, fixed, hull, unit

# The parts a joint belongs to: it is visible where one of them is on top.
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
    """A tapered cylinder from joint to joint; radii in heights; nearer: how far it is drawn before
    where it is.
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
_NUMBER = [PART[f"{side}_{limb.part}"] for side, limb in _ROWS]


def figure_shapes(figure: Figure, outfit: Outfit, at: Array, size: float) -> list[Shape]:
    """The shapes of a figure whose points lie at `at` (len(POINTS), 2) pixels and whose height is
    `size` pixels.
    """
    given = (figure, outfit, at, size)
    return [*_limbs(*given), *_trunk(*given), *head_shapes(*given)]


def joint_visible(at: Array, parts: Image) -> NDArray[np.bool_]:
    """(len(POINTS),): whether a point's own part is on top where it lies; False for points outside
    the map (H, W).
    """
    x, y = np.round(at).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < parts.shape[1]) & (y < parts.shape[0])
    top = np.zeros(len(at), int)
    top[inside] = parts[y[inside], x[inside]]
    return _own_parts()[np.arange(len(at)), top]


@lru_cache(maxsize=1)
def _own_parts() -> NDArray[np.bool_]:
    """(points, parts): whether a part belongs to a point."""
    own = np.zeros((len(POINTS), len(PARTS)), bool)
    for name, row in zip(POINTS, own, strict=True):
        side, _, joint = name.rpartition("_")
        row[[PART[part.replace("?", side)] for part in OWN_PARTS.get(joint, ("head",))]] = True
    return own


# -- limbs
# -------------------------------------------------------------------------------------------------------------


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


def _limbs(figure: Figure, outfit: Outfit, at: Array, size: float) -> list[Shape]:
    """Every limb: outline, back cloth, what shows of the front cloth, a highlight; then seams, pads
    and cuffs.
    """
    p = at[_START]
    q = at[_END]
    r = _RADII * (size * figure.build)
    cloth = _cloth(outfit)
    axes = np.where(_IS_ARM[:, None, None], figure.chest, figure.pelvis)
    along = unit(figure.points[_END] - figure.points[_START])
    front, facing = _seen_side(along, axes[:, 2])
    outer, outer_facing = _seen_side(along, axes[:, 0] * SIDES[_SIDE, None])
    share = ((1 + facing) / 2)[:, None]
    seam = outer * (np.sqrt(np.maximum(0, 1 - outer_facing**2)) * 0.72)[:, None]
    glint = np.array([-0.35, -0.2])
    everywhere = np.ones(len(_ROWS), bool)
    slant = front * (1 - share)
    seams, pads = (
        np.array([outfit.marked and limb.marked == mark for _, limb in _ROWS])
        for mark in ("seam", "pad")
    )
    mark = [outfit.marks[i] for i in _SIDE]
    top = r[:, :1]
    low = r[:, 1:]
    layers = (  # start, end, radii at both, colours, which limbs have it
        (p, q, top, low, [dark(back, 4) for _, back in cloth], everywhere),
        (p, q, top * 0.86, low * 0.86, [back for _, back in cloth], everywhere),
        (
            p + slant * top,
            q + slant * low,
            top * 0.86 * share,
            low * 0.86 * share,
            [face for face, _ in cloth],
            share[:, 0] > 0.05,
        ),
        (
            p + glint * top,
            q + glint * low,
            top * 0.3,
            low * 0.3,
            [
                light(pair[0] if toward > 0 else pair[1])
                for pair, toward in zip(cloth, facing, strict=True)
            ],
            everywhere,
        ),
        (
            p + seam * top,
            q + seam * low,
            top * 0.22,
            low * 0.22,
            mark,
            seams & (outer_facing > -0.4),
        ),
        (
            p + (p - q) * 0.10,
            p + (q - p) * 0.16,
            top * 1.12,
            top * 1.12,
            [dark(color) for color in mark],
            pads,
        ),
        (p + (p - q) * 0.08, p + (q - p) * 0.14, top * 0.9, top * 0.9, mark, pads),
        (p + (q - p) * 0.86, q, low * 1.1, low * 1.1, mark, pads),
        (p, p, top * 0.45, top * 0.45, [light(color, 6) for color in mark], pads & (facing > 0)),
    )
    start, end, thick, thin = (
        np.concatenate(parts) for parts in list(zip(*layers, strict=True))[:4]
    )
    polygons = fixed(capsules(start, end, thick[:, 0], thin[:, 0]))
    depth = ((figure.points[_START, 2] + figure.points[_END, 2]) / 2 + _NEARER).tolist()
    return [
        Shape(polygons[k * len(_ROWS) + i], layer[4][i], _NUMBER[i] if k == 0 else 0, depth[i])
        for k, layer in enumerate(layers)
        for i in np.flatnonzero(layer[5])
    ]


def _seen_side(along: Array, direction: Array) -> tuple[Array, Array]:
    """Where body directions (n, 3) point on limbs (n, 3): to which side (n, 2), and how far to the
    viewer (n,).
    """
    across = unit(direction - (direction * along).sum(axis=1, keepdims=True) * along)
    return unit(across[:, :2]), across[:, 2]


# -- trunk
# -------------------------------------------------------------------------------------------------------------


def _trunk(figure: Figure, outfit: Outfit, at: Array, size: float) -> list[Shape]:
    """Neck, pelvis or skirt, shirt, and what is on the shirt."""
    corners = [POINT[name] for name in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    box = at[corners]
    depth = float(figure.points[corners, 2].mean())
    r = np.array([0.034, 0.034, 0.056, 0.056]) * (size * figure.build)
    share = (1 + float(figure.chest[2, 2])) / 2
    shift = unit(figure.chest[2, :2]) * (1 - share)
    neck = [
        at[[POINT["neck"]]],
        at[[POINT["head_center"]]],
        np.array([r[0]]),
        np.array([r[0] * 0.85]),
    ]
    found = [Shape(fixed(capsules(*neck)[0]), dark(outfit.skin, 2), PART["neck"], depth - 0.002)]
    lower = box[2:]
    radius = r[2]
    if outfit.skirt:
        knees = at[[POINT["right_knee"], POINT["left_knee"]]]
        hem = lower + 0.62 * (knees - lower)
        lower = np.concatenate([lower, hem + (hem - hem.mean(axis=0)) * 0.4])
    found += [
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
        found.append(
            Shape(fixed(hull(box + shift * r[:, None], r * 0.9 * share)), outfit.top[0], 0, depth)
        )
    rows, colors = _decoration(figure, outfit, box, r[0], size)
    if rows:
        polygons = fixed(capsules(*(np.array([row[k] for row in rows]) for k in range(4))))
        found += [
            Shape(polygon, color, 0, depth) for polygon, color in zip(polygons, colors, strict=True)
        ]
    return found


def _decoration(
    figure: Figure, outfit: Outfit, box: Array, radius: float, size: float
) -> tuple[list[tuple[Array, Array, float, float]], list[Color]]:
    """Stripes, dots, a zip or a rucksack as capsules; box: shoulders and hips (4, 2) in turn around
    the trunk.
    """
    facing = float(figure.chest[2, 2])
    left, right, right_hip, left_hip = box
    ground = outfit.top[0 if facing > 0 else 1]
    ink = dark(ground, 5) if sum(ground) > 330 else light(ground, 5)
    rows: list[tuple[Array, Array, float, float]] = []
    colors: list[Color] = []

    def spot(t: float, u: float) -> Array:
        """The point a share t of the way down and u across (-1 the person's right, 1 its left)."""
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
        p = spot(*start)
        q = spot(*end)
        reach = unit(q - p) * longer
        rows.append((p - reach, q + reach, half * size, half * size))
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
    if outfit.pack and facing < -0.2:
        line((0.2, 0), (0.68, 0), 0.085, dark(outfit.marks[0], 5))
        line((0.2, 0), (0.68, 0), 0.075, dark(outfit.marks[0]))
        line((0.55, -0.35), (0.55, 0.35), 0.02, dark(outfit.marks[0], 5))
    elif outfit.pack and facing > 0.3:
        for u in (-0.65, 0.65):
            line((-0.05, u), (0.6, u), 0.012, dark(outfit.marks[0]))
    if outfit.marked:
        for color, u in zip(outfit.marks, (1, -1), strict=True):
            line((0.02, u), (0.02, u), 0.026, color)
            line((0.98, u), (0.98, u), 0.024, color)
    return rows, colors
