"""Affine maps between the image and the network's input and output maps, and back; how near
keypoints are to each other.

A coordinate is a position in pixels; the centre of the top left pixel is (0, 0), as in OpenCV's
warpAffine. A map of half the resolution has half the coordinates. As in the published code, a box
is a centre and a size in units of 200 pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

BOX_UNIT = 200.0  # pixels to which a box scale of 1 corresponds
BOX_TO_AREA = 0.53  # area of a person without a segmentation, as a fraction of its box
SIZE_STEP = 64  # sides of test inputs are multiples of this many pixels at the smallest scale

Matrix = NDArray[np.float64]


class InputGeometry(NamedTuple):
    """How a test image lies on the network's input.

    size: (w, h) of the input in px. center: the image's point (x, y) at the input's centre.
    box_scale: (w, h) of the part of the image that fills the input, in units of 200 px.
    """

    size: tuple[int, int]
    center: tuple[int, int]
    box_scale: tuple[float, float]


def augment_matrix(center: ArrayLike, scale: float, size: int, rotation: float) -> Matrix:
    """The affine map (2, 3) from a square window of the image to a square of `size` output pixels.

    center: the window's centre (x, y) in image pixels. scale: its side in units of 200 px.
    rotation: degrees, counter-clockwise in the image if positive. The window is scaled and shifted
    to the output first, and then rotated around the output's centre.
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
    """How a (width, height) image lies on the network's input at one test scale.

    min_scale: the smallest of all test scales. At that scale the short side becomes input_size x
    min_scale, and the long side follows in proportion; both are rounded up to a multiple of 64. The
    other scales multiply these sizes, so that all scales see the same part of the image.
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
    """The affine map (2, 3) from the image to an input or map of `size` (w, h) pixels.

    The box's width fills the map's width. inverse: from the map to the image instead. The map is
    computed from three points in float32, as in the published code, so that warped images are the
    same to the bit.
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
    """Apply an affine map (2, 3) to points (..., 2)."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:2, :2].T + matrix[:2, 2]


def to_image(
    points: ArrayLike, center: ArrayLike, box_scale: ArrayLike, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Points (n, >= 2) in pixels of a map of `size` (w, h) -> points (n, 2) in image pixels.

    center, box_scale: those of the test image's InputGeometry.
    """
    return transform_points(
        np.asarray(points, np.float64)[..., :2], input_matrix(center, box_scale, size, inverse=True)
    )


def keypoint_similarity(
    squared: NDArray[np.float64], areas: NDArray[np.float64], sigmas: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Similarity of keypoints for squared distances in pixels, areas in square pixels and keypoint
    constants: exp(-d^2 / (2 a (2 sigma)^2)), as in the COCO keypoint evaluation.

    The arrays broadcast against each other; the result has their common shape.
    """
    return np.exp(-squared / (2 * (areas + np.spacing(1)) * (2 * sigmas) ** 2))
