"""Convex shapes with a depth, and painting them from back to front.

Positions are rounded to 1/16 px, and OpenCV draws them with integers. So the pixels do not depend
on how a machine rounds the last bits of its floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from swahr.synthetic.outfit import Color

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

SHIFT = 4  # fractional bits of a coordinate
PARTS = (
    "nothing",
    "torso",
    "neck",
    "head",
    "hair",
    "pelvis",
    "left_arm",
    "right_arm",
    "left_forearm",
    "right_forearm",
    "left_hand",
    "right_hand",
    "left_thigh",
    "right_thigh",
    "left_shin",
    "right_shin",
    "left_foot",
    "right_foot",
)
PART = {name: i for i, name in enumerate(PARTS)}
_ARC = np.pi * np.linspace(-0.5, 0.5, 7)
_TURN = np.arange(20) * (np.pi / 10)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


class Shape(NamedTuple):
    """A convex polygon (n, 2) in 1/16 px.

    part: index in PARTS of the body part that it belongs to; 0 for colour only. depth: larger is
    nearer to the camera.
    """

    polygon: NDArray[np.int32]
    color: Color
    part: int
    depth: float


def fixed(points: ArrayLike) -> NDArray[np.int32]:
    """Pixels as integers in 1/16 px, clipped to the range that OpenCV can draw."""
    return np.clip(np.round(np.asarray(points) * (1 << SHIFT)), -(1 << 24), 1 << 24).astype(
        np.int32
    )


def unit(vectors: Array) -> Array:
    """Vectors (..., d) scaled to length 1; zero vectors stay zero."""
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True)), 1e-6)


def capsules(p: Array, q: Array, rp: Array, rq: Array) -> Array:
    """Convex hulls (n, 14, 2) of pairs of circles: centres p, q (n, 2), radii rp, rq (n,)."""
    along = q - p
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)
    heading = np.arctan2(along[:, 1], along[:, 0])[:, None]
    taper = np.arcsin(np.clip((rp - rq) / length, -1, 1))[:, None] * (2 / np.pi)
    # The common tangents touch the circles at 90 degrees plus the taper, so less than half of the
    # thinner circle is on the hull.
    ends = ((q, rq, heading + _ARC * (1 - taper)), (p, rp, heading + np.pi + _ARC * (1 + taper)))
    arcs = [
        center[:, None] + radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        for center, radius, angle in ends
    ]
    return np.concatenate(arcs, axis=1)


def ellipses(centers: Array, across: Array, along: Array) -> Array:
    """Polygons (n, 20, 2) of ellipses with centres and half axes (n, 2)."""
    return centers[:, None] + _CIRCLE[:, :1] * across[:, None] + _CIRCLE[:, 1:] * along[:, None]


def hull(centers: Array, radii: ArrayLike) -> Array:
    """The convex hull (n, 2) of circles: centres (m, 2), radii (m,) or one for all."""
    radii = np.broadcast_to(np.asarray(radii, np.float64), centers.shape[:1])
    rim = centers[:, None] + radii[:, None, None] * _CIRCLE
    return cv2.convexHull(fixed(rim).reshape(-1, 2)).reshape(-1, 2) / (1 << SHIFT)


def paint(shapes: Sequence[Shape], image: Image, parts: Image) -> None:
    """Paint the shapes on image (H, W, 3) and write their parts into parts (H, W), both in place.

    The farthest shape is painted first; shapes of equal depth in the order given.
    """
    for shape in sorted(shapes, key=lambda shape: round(shape.depth, 6)):
        cv2.fillConvexPoly(image, shape.polygon, shape.color, cv2.LINE_AA, SHIFT)
        if shape.part:
            cv2.fillConvexPoly(parts, shape.polygon, shape.part, cv2.LINE_8, SHIFT)
