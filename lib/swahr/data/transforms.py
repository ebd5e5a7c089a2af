"""Augmentation of training samples: a list of transforms, each from a sample to a sample.

The published augmentation is "affine" and then "flip": one random affine map around the image's
centre, which takes the image to the network's input size and joints and mask to every output size,
each by its own matrix; and a random mirror image (HigherHRNet, Cheng et al., CVPR 2020).

To add a transform, write a function that builds one from the configuration and the skeleton, add it
to TRANSFORMS, and name it in DATASET.TRANSFORMS. A transform must not change the arrays that it is
given, and draws all its random numbers from the generator that it is given. What it returns is
checked, and refused with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from swahr.data.images import Image
from swahr.geometry import BOX_UNIT, augment_matrix, transform_points
from swahr.parts import choose
from swahr.skeleton import Skeleton
from swahr.words import counted

Joints = NDArray[np.float32]
Mask = NDArray[np.uint8]


class TransformError(ValueError):
    """Transforms that do not fit each other or the network, or give no valid sample; the message
    says what is missing.
    """

    def __init__(self, message: str) -> None:
        # A DataLoader raises a worker's error again, with a traceback that ends in its message.
        super().__init__(message.strip().rpartition("TransformError: ")[2])


class Sample(NamedTuple):
    """One image with its joints and masks.

    image: (H, W, 3) uint8.
    joints: (N, K, 3|4) float32 each: x, y, visibility and, where there is a fourth column, sigma.
    masks: (h, w) uint8 of 0 and 1 each, 0 where nothing is learnt.
    Before "affine" the lists have one entry, in pixels of the image; after it, one in pixels of
    each output of the network.
    """

    image: Image
    joints: list[Joints]
    masks: list[Mask]


Transform = Callable[[Sample, np.random.Generator], Sample]


class AugmentParams(NamedTuple):
    """The random numbers of one affine map.

    center: of the window, (x, y) in px of the image. scale: side of the window in units of 200 px.
    zoom: side of the window relative to the image's side. rotation: degrees.
    """

    center: tuple[float, float]
    scale: float
    zoom: float
    rotation: float

    def matrix(self, size: int) -> NDArray[np.float64]:
        """The map (2, 3) from the image to an output of `size` px."""
        return augment_matrix(self.center, self.scale, size, self.rotation)


class Affine:
    """A random square window of the image, scaled, rotated and shifted, on the network's input and
    its outputs.

    What lies outside the image is black, and masked.
    """

    def __init__(
        self,
        *,
        input_size: int,
        output_sizes: Sequence[int],
        max_rotation: float = 30,
        min_scale: float = 0.75,
        max_scale: float = 1.5,
        scale_type: str = "short",
        max_translate: float = 40,
    ) -> None:
        """input_size, output_sizes: px. max_rotation: degrees each way.

        min_scale, max_scale: side of the window, relative to the image's short or long side
        (scale_type). max_translate: px each way for a window of 200 px. Raises ValueError for
        another scale_type.
        """
        if scale_type not in ("short", "long"):
            raise ValueError(f"scale_type is {scale_type!r}; it is 'short' or 'long'")
        self.input_size = input_size
        self.output_sizes = tuple(output_sizes)
        self.max_rotation = max_rotation
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.image_side = min if scale_type == "short" else max
        self.max_translate = max_translate

    def draw(self, width: int, height: int, rng: np.random.Generator) -> AugmentParams:
        """Parameters for an image of this size. The zoom and the rotation take a random number
        each, whatever the settings. The shift takes two, but none if it can only be 0 pixels.
        """
        zoom = rng.uniform(self.min_scale, self.max_scale)
        rotation = rng.uniform(-1, 1) * self.max_rotation
        scale = self.image_side(width, height) * zoom / BOX_UNIT
        radius = int(self.max_translate * scale)
        dx, dy = rng.integers(-radius, radius, size=2, endpoint=True)
        return AugmentParams((width / 2 + dx, height / 2 + dy), scale, zoom, rotation)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A sample in pixels of its image -> (S, S, 3) image, joints and masks of every output.

        Raises TransformError if the sample's outputs were made already, or its mask has another
        size than its image.
        """
        if len(sample.joints) != 1 or len(sample.masks) != 1:
            raise TransformError(
                "an affine transform needs joints and mask in pixels of the image; "
                "another transform has already made those of the outputs"
            )
        height, width = sample.image.shape[:2]
        if sample.masks[0].shape != (height, width):
            rows, columns = sample.masks[0].shape
            raise TransformError(
                "an affine transform needs joints and mask in pixels of the image; "
                f"the image has {width} x {height} px, the mask {columns} x {rows}"
            )
        params = self.draw(width, height, rng)
        opaque = sample.masks[0] * np.uint8(255)
        return Sample(
            warp(sample.image, params, self.input_size),
            [_move(sample.joints[0], params, size) for size in self.output_sizes],
            [(warp(opaque, params, size) > 127).view(np.uint8) for size in self.output_sizes],
        )


def warp(image: NDArray[np.uint8], params: AugmentParams, size: int) -> NDArray[np.uint8]:
    """The image, (H, W) or (H, W, 3), on an output of `size` px: bilinear, black outside."""
    return cv2.warpAffine(image, params.matrix(size), (size, size))  # type: ignore[return-value]


def _move(joints: Joints, params: AugmentParams, size: int) -> Joints:
    moved = joints.copy()
    moved[..., :2] = transform_points(joints[..., :2], params.matrix(size))
    moved[..., 3:] /= np.float32(params.zoom)  # a larger window shows smaller people
    return moved


class Flip:
    """The mirror image with some probability: x -> width - 1 - x, left and right joints swapped."""

    def __init__(self, *, flip_index: Sequence[int], probability: float = 0.5) -> None:
        """flip_index: K indices of the mirrored joints."""
        self.flip_index = np.array(flip_index, np.intp)
        self.probability = probability

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Always one random number."""
        if not rng.random() < self.probability:
            return sample
        return Sample(
            cv2.flip(sample.image, 1),  # type: ignore[arg-type]
            [
                self._mirror(joints, mask.shape[1])
                for joints, mask in zip(sample.joints, sample.masks)
            ],
            [cv2.flip(mask, 1) for mask in sample.masks],  # type: ignore[misc]
        )

    def _mirror(self, joints: Joints, width: int) -> Joints:
        mirrored = joints[:, self.flip_index]
        mirrored[..., 0] = width - 1 - mirrored[..., 0]
        return mirrored


class Compose:
    """Transforms one after another, with a check that each gives a sample, and that the result fits
    the network.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        *,
        input_size: int,
        output_sizes: Sequence[int],
        names: Sequence[str] = (),
    ) -> None:
        """input_size: side of the network's input, px. output_sizes: sides of its outputs, px.

        names: of the transforms, for messages; by default those of their functions or classes.
        """
        self.transforms = tuple(transforms)
        self.input_size = input_size
        self.output_sizes = tuple(output_sizes)
        self.names = tuple(names) or tuple(map(_name, self.transforms))

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A sample in pixels of its image -> one of the network's sizes.

        It depends on the arguments and the generator's state only. Raises TransformError where a
        transform gives no valid sample, or the result has other sizes.
        """
        shape = sample.joints[0].shape[1:]
        for transform, name in zip(self.transforms, self.names, strict=True):
            sample = _valid(transform(sample, rng), shape, name)
        self._check_sizes(sample)
        return sample

    def _check_sizes(self, sample: Sample) -> None:
        sizes = [mask.shape for mask in sample.masks]
        fits = (
            sample.image.shape == (self.input_size, self.input_size, 3)
            and sizes == [(size, size) for size in self.output_sizes]
            and len(sample.joints) == len(sizes)
        )
        if not fits:
            height, width = sample.image.shape[:2]
            given = ", ".join(f"{shape[1]} x {shape[0]}" for shape in sizes)
            lists = counted(len(sample.joints), "list of joints", "lists of joints")
            raise TransformError(
                f"the transforms give an image of {width} x {height} px, masks of {given} px and "
                f"{lists}; the network needs an image with sides of "
                f"{self.input_size} px and outputs with sides of {list(self.output_sizes)} px, "
                "which the transform 'affine' makes"
            )


def _name(transform: Transform) -> str:
    return getattr(transform, "__name__", type(transform).__name__)


def _valid(given: Any, shape: tuple[int, ...], name: str) -> Sample:
    """What a transform gave, as a sample whose arrays PyTorch can take: none with negative strides,
    float32 joints, and uint8 masks where it gave bool.

    shape: (K, columns) of the joints of a person. name: of the transform. It takes some 10 us.
    Raises TransformError for what is no sample.
    """
    if not isinstance(given, Sample):
        raise TransformError(
            f"the transform {name!r} gives a {type(given).__name__}; it must return a Sample"
        )
    if not (isinstance(given.joints, list | tuple) and isinstance(given.masks, list | tuple)):
        kinds = f"a {type(given.joints).__name__} and a {type(given.masks).__name__}"
        raise TransformError(
            f"the transform {name!r} gives {kinds} as joints and masks; they are lists of arrays"
        )
    image = given.image
    if not _is_array(image, np.uint8, 3) or image.shape[2] != 3:
        raise TransformError(
            f"the transform {name!r} gives an image of {_describe(image)}; "
            "it must be uint8 of 0 to 255, (H, W, 3)"
        )
    return Sample(
        np.ascontiguousarray(image),
        [_valid_joints(joints, shape, name) for joints in given.joints],
        [_valid_mask(mask, name) for mask in given.masks],
    )


def _valid_joints(joints: Any, shape: tuple[int, ...], name: str) -> Joints:
    is_array = isinstance(joints, np.ndarray) and joints.dtype.kind in "fiu"
    if not is_array or joints.shape[1:] != shape:
        raise TransformError(
            f"the transform {name!r} gives joints of {_describe(joints)}; "
            f"it must keep float32, (people, {shape[0]}, {shape[1]})"
        )
    joints = joints.astype(np.float32, copy=False)
    if not np.isfinite(joints).all():
        person, joint, column = np.argwhere(~np.isfinite(joints))[0].tolist()
        raise TransformError(
            f"the transform {name!r} gives {joints[person, joint, column]} in column {column} of "
            f"joint {joint} of person {person}; joints are finite numbers, 0 where not labelled"
        )
    return joints


def _valid_mask(mask: Any, name: str) -> Mask:
    if _is_array(mask, np.bool_, 2):
        mask = mask.view(np.uint8)
    if not _is_array(mask, np.uint8, 2):
        raise TransformError(
            f"the transform {name!r} gives a mask of {_describe(mask)}; "
            "it must be uint8 of 0 and 1, (h, w)"
        )
    if (largest := mask.max(initial=0)) > 1:
        raise TransformError(
            f"the transform {name!r} gives a mask with values up to {largest}; they must be 0, "
            "where nothing is learnt, and 1"
        )
    return np.ascontiguousarray(mask)


def _is_array(value: Any, dtype: type[np.generic], dimensions: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == dimensions


def _describe(value: Any) -> str:
    """The type and shape of what should be an array, for a message."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}, {value.shape}"
    return f"type {type(value).__name__}"


def build_affine(cfg: Any, skeleton: Skeleton) -> Affine:
    """The affine map of DATASET.*."""
    data = cfg.DATASET
    return Affine(
        input_size=data.INPUT_SIZE,
        output_sizes=data.OUTPUT_SIZE,
        max_rotation=data.MAX_ROTATION,
        min_scale=data.MIN_SCALE,
        max_scale=data.MAX_SCALE,
        scale_type=data.SCALE_TYPE,
        max_translate=data.MAX_TRANSLATE,
    )


def build_flip(cfg: Any, skeleton: Skeleton) -> Flip:
    """The mirror image with probability DATASET.FLIP."""
    return Flip(flip_index=skeleton.flip_index, probability=cfg.DATASET.FLIP)


TRANSFORMS: dict[str, Callable[[Any, Skeleton], Transform]] = {
    "affine": build_affine,
    "flip": build_flip,
}


def build_transforms(cfg: Any, skeleton: Skeleton) -> Compose:
    """The transforms that DATASET.TRANSFORMS names, in that order.

    skeleton: has the centre joint already where DATASET.WITH_CENTER is set.
    """
    data = cfg.DATASET
    transforms = [
        choose(TRANSFORMS, name, "DATASET.TRANSFORMS")(cfg, skeleton) for name in data.TRANSFORMS
    ]
    return Compose(
        transforms,
        input_size=data.INPUT_SIZE,
        output_sizes=data.OUTPUT_SIZE,
        names=data.TRANSFORMS,
    )
