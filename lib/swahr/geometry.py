"""Where a point of the image lies on the network's input and output, and back. NumPy only.

Pixel convention: a coordinate is a position in pixels with the centre of the top left pixel at (0,
0), as OpenCV's warpAffine has it; a map of half the resolution has half the coordinates. Boxes are
given as the published code gives them: by a centre and a size in units of 200 pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

BOX_UNIT = 200.0  # pixels to which a box scale of 1 corresponds
SIZE_STEP = 64  # sides of test inputs are multiples of this many pixels at the smallest scale

Matrix = NDArray[np.float64]


class InputGeometry(NamedTuple):
    """A test image's place on the network's input: size (w, h) there, the image point at its
    centre, box in 200 px.
    """

    size: tuple[int, int]
    center: tuple[int, int]
    box_scale: tuple[float, float]


def augment_matrix(center: ArrayLike, scale: float, size: int, rotation: float) -> Matrix:
    """The affine map (2, 3) from a square window of the image to a square of `size` output pixels.

    center: the window's centre (x, y) in image pixels; scale: its side in units of 200 px;
    rotation: degrees, counter-clockwise as seen in the image when positive. The window is first
    scaled and shifted to the output, then turned around the output's centre.
    """
    cx, cy = np.asarray(center, np.float64)
    zoom = size / (BOX_UNIT * scale)
    angle = np.deg2rad(rotation)
    cos = np.cos(angle)
    sin = np.sin(angle)
    linear = zoom * np.array([[cos, sin], [-sin, cos]])
    shift = size / 2 - linear @ np.array([cx, cy])
    return np.column_stack([linear, shift])


def input_geometry(
    width: int, height: int, input_size: int, scale: float, min_scale: float
) -> InputGeometry:
    """Size and placement of a (width, height) image at one test scale, of which min_scale is the
    smallest.

    At the smallest scale the short side becomes input_size x min_scale and the long side follows in
    proportion, each rounded up to a step of 64; the other scales multiply those sizes, so that all
    scales see the same part of the image.
    """

    def step_up(length: float) -> int:
        return int((length + SIZE_STEP - 1) // SIZE_STEP * SIZE_STEP)

    short_side = min(width, height)
    long_side = max(width, height)
    smallest = step_up(min_scale * input_size)
    short = int(smallest * scale / min_scale)
    long = int(step_up(smallest / short_side * long_side) * scale / min_scale)
    box_short = short_side / BOX_UNIT
    box_long = long / short * short_side / BOX_UNIT
    center = (int(width / 2 + 0.5), int(height / 2 + 0.5))
    if width < height:
        return InputGeometry((short, long), center, (box_short, box_long))
    return InputGeometry((long, short), center, (box_long, box_short))


def input_matrix(
    center: ArrayLike, box_scale: ArrayLike, size: tuple[int, int], inverse: bool = False
) -> Matrix:
    """The affine map (2, 3) from the image to an input or map of `size` (w, h) pixels: the box's
    width fills the map's width.

    It is fixed by three points held in float32, as in the published code: images warped by it agree
    to the bit.
    """
    box_width = np.float64(np.asarray(box_scale, np.float64)[0] * BOX_UNIT)

    def corners(middle: ArrayLike, width: float) -> NDArray[np.float32]:
        top = np.asarray(middle, np.float64) + [0, -width / 2]
        side = np.asarray(middle, np.float64) + [-width / 2, -width / 2]
        return np.stack([np.asarray(middle, np.float64), top, side]).astype(np.float32)

    image = corners(center, box_width)
    target = corners((size[0] * 0.5, size[1] * 0.5), size[0])
    source, goal = (target, image) if inverse else (image, target)
    return np.asarray(cv2.getAffineTransform(source, goal), np.float64)


def transform_points(points: ArrayLike, matrix: ArrayLike) -> NDArray[np.float64]:
    """Points (..., 2) through an affine map (2, 3)."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:2, :2].T + matrix[:2, 2]


def to_image(
    points: ArrayLike, center: ArrayLike, box_scale: ArrayLike, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Points (n, >= 2) in pixels of a map of `size` (w, h) -> (n, 2) in image pixels, through the
    test image's centre and box.
    """
    return transform_points(
        np.asarray(points, np.float64)[..., :2], input_matrix(center, box_scale, size, inverse=True)
    )
