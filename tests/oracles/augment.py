"""One training sample of the published recipe, step by step: what swahr.data.transforms must equal.

Masks are floating-point, joints are moved one after another, the result has three float planes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def point(
    x: float, y: float, center: Sequence[float], scale: float, rotation: float, size: int
) -> tuple[float, float]:
    """A point of the image on an output of `size` px: shifted, scaled, rotated."""
    u = (x - center[0]) * size / (200 * scale)
    v = (y - center[1]) * size / (200 * scale)
    angle = math.radians(rotation)
    return (
        math.cos(angle) * u + math.sin(angle) * v + size / 2,
        -math.sin(angle) * u + math.cos(angle) * v + size / 2,
    )


def matrix(center: Sequence[float], scale: float, rotation: float, size: int) -> np.ndarray:
    """The same as a matrix (2, 3), from the images of three points."""
    ox, oy = point(0, 0, center, scale, rotation, size)
    ax, ay = point(1, 0, center, scale, rotation, size)
    bx, by = point(0, 1, center, scale, rotation, size)
    return np.array([[ax - ox, bx - ox, ox], [ay - oy, by - oy, oy]])


def augment(
    image,
    joints,
    mask,
    *,
    center,
    scale,
    zoom,
    rotation,
    mirrored,
    input_size,
    output_sizes,
    flip_index,
):
    """Image (H, W, 3) uint8, joints (N, K, 3|4), mask (H, W) of 0 and 1 -> image (S, S, 3), joints
    and masks.
    """
    all_joints = []
    all_masks = []
    for size in output_sizes:
        opaque = (mask.astype(np.float64) * 255).astype(np.uint8)
        warped = cv2.warpAffine(opaque, matrix(center, scale, rotation, size), (size, size))
        kept = (warped / 255 > 0.5).astype(np.float32)
        moved = np.array(joints, np.float64)
        for person in range(len(joints)):
            for joint in range(len(flip_index)):
                source = joints[person][flip_index[joint] if mirrored else joint]
                x, y = point(source[0], source[1], center, scale, rotation, size)
                moved[person, joint] = source
                moved[person, joint, :2] = (size - x - 1 if mirrored else x), y
                if len(source) == 4:
                    moved[person, joint, 3] = source[3] / zoom
        all_masks.append(kept[:, ::-1] - np.zeros_like(kept) if mirrored else kept)
        all_joints.append(moved)
    warped = cv2.warpAffine(
        image, matrix(center, scale, rotation, input_size), (input_size, input_size)
    )
    return (warped[:, ::-1] - np.zeros_like(warped) if mirrored else warped), all_joints, all_masks


def normalize(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, H, W) float32, as the network takes it."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    for plane, mean, std in zip(planes, MEAN, STD):
        plane -= np.float32(mean)
        plane /= np.float32(std)
    return planes


def training_sample(data: bytes, joints, mask, **params):
    """Contents of an image file, joints and mask -> the sample of a training step: `augment`, with
    the image normalised.
    """
    image = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    image, joints, masks = augment(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), joints, mask, **params)
    return normalize(image), joints, masks
