"""Augmentation of a training sample: one affine map around the image's centre, and a mirror.

The image goes to the network's input size; joints and mask go to every output size, each by its own
matrix, as in HigherHRNet (Cheng et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from yacs.config import CfgNode

from swahr.data.images import Image
from swahr.geometry import BOX_UNIT, augment_matrix, transform_points
from swahr.skeleton import Skeleton

Joints = NDArray[np.float32]
Mask = NDArray[np.uint8]


class Placement(NamedTuple):
    """What is drawn for one sample: window centre (x, y) in px, its side in units of 200 px and
    relative to the
    image's side, rotation in degrees, mirrored or not.
    """

    center: tuple[float, float]
    scale: float
    zoom: float
    rotation: float
    mirrored: bool

    def matrix(self, size: int) -> NDArray[np.float64]:
        """From the image to an output of `size` px, before it is mirrored."""
        return augment_matrix(self.center, self.scale, size, self.rotation)


class TrainTransform:
    """Random placement of an image on the network's input, and of its joints and mask on every
    output.
    """

    def __init__(
        self,
        *,
        input_size: int,
        output_sizes: Sequence[int],
        flip_index: Sequence[int],
        max_rotation: float = 30,
        min_scale: float = 0.75,
        max_scale: float = 1.5,
        scale_type: str = "short",
        max_translate: float = 40,
        flip: float = 0.5,
    ) -> None:
        """input_size, output_sizes: px; flip_index: K indices of the mirrored joints; max_rotation:
        degrees each way; min_scale, max_scale: side of the window, relative to the image's short or
        long side (scale_type); max_translate: px each way for a window of 200 px; flip: probability
        of mirroring.
        """
        if scale_type not in ("short", "long"):
            raise ValueError(f"scale_type is {scale_type!r}; it is 'short' or 'long'")
        self.input_size = input_size
        self.output_sizes = tuple(output_sizes)
        self.flip_index = np.array(flip_index, np.intp)
        self.max_rotation = max_rotation
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.side = min if scale_type == "short" else max
        self.max_translate = max_translate
        self.flip = flip

    def place(self, width: int, height: int, rng: np.random.Generator) -> Placement:
        """Draw a placement; always the same five numbers, in the same order, whatever the
        settings.
        """
        zoom = rng.uniform(self.min_scale, self.max_scale)
        rotation = rng.uniform(-1, 1) * self.max_rotation
        scale = self.side(width, height) * zoom / BOX_UNIT
        reach = int(self.max_translate * scale)
        dx, dy = rng.integers(-reach, reach, size=2, endpoint=True)
        return Placement(
            (width / 2 + dx, height / 2 + dy), scale, zoom, rotation, rng.random() < self.flip
        )

    def __call__(
        self, image: Image, joints: Joints, mask: Mask, rng: np.random.Generator
    ) -> tuple[Image, list[Joints], list[Mask]]:
        """image (H, W, 3) uint8, joints (N, K, 3|4) in px with the optional fourth column a sigma,
        mask (H, W) of 0 and 1.

        Returns the image (S, S, 3), and for each output its joints (N, K, 3|4) in px of that output
        and its mask (h, w); what lies outside the image is black, and masked. Depends on the
        arguments and the generator's state only.
        """
        place = self.place(image.shape[1], image.shape[0], rng)
        image = _warp(image, place, self.input_size)
        opaque = mask * np.uint8(255)
        masks = [(_warp(opaque, place, size) > 127).view(np.uint8) for size in self.output_sizes]
        return image, [self._move(joints, place, size) for size in self.output_sizes], masks

    def _move(self, joints: Joints, place: Placement, size: int) -> Joints:
        moved = joints.copy()
        moved[..., :2] = transform_points(joints[..., :2], place.matrix(size))
        moved[..., 3:] /= np.float32(place.zoom)  # a larger window shows smaller people
        if place.mirrored:
            moved = moved[:, self.flip_index]
            moved[..., 0] = size - 1 - moved[..., 0]
        return moved


def _warp(image: NDArray[np.uint8], place: Placement, size: int) -> NDArray[np.uint8]:
    warped = cv2.warpAffine(image, place.matrix(size), (size, size))  # bilinear, black outside
    return cv2.flip(warped, 1) if place.mirrored else warped  # type: ignore[return-value]


def build_transform(cfg: CfgNode, skeleton: Skeleton) -> TrainTransform:
    """The augmentation of DATASET.*; the skeleton has the centre joint already where
    DATASET.WITH_CENTER is set.
    """
    data = cfg.DATASET
    return TrainTransform(
        input_size=data.INPUT_SIZE,
        output_sizes=data.OUTPUT_SIZE,
        flip_index=skeleton.flip_index,
        max_rotation=data.MAX_ROTATION,
        min_scale=data.MIN_SCALE,
        max_scale=data.MAX_SCALE,
        scale_type=data.SCALE_TYPE,
        max_translate=data.MAX_TRANSLATE,
        flip=data.FLIP,
    )
