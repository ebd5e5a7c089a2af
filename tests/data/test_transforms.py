"""Augmentation against the plain loops of tests/oracles/augment.py, and transforms of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from swahr.data.loaders import LoadedSample, collate
from swahr.data.transforms import (
    TRANSFORMS,
    Affine,
    AugmentParams,
    Compose,
    Flip,
    Sample,
    TransformError,
    build_transforms,
    warp,
)
from swahr.skeleton import COCO
from tests.oracles import augment as oracle

SIZES: dict[str, Any] = {"input_size": 64, "output_sizes": (16, 32)}


def make_sample(people: int, columns: int = 3, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (48, 64, 3), np.uint8)
    joints = rng.uniform(0, 48, (people, 17, columns)).astype(np.float32)
    joints[..., 2] = rng.integers(0, 3, (people, 17))
    mask = np.ones((48, 64), np.uint8)
    mask[10:30, 5:25] = 0
    return Sample(image, [joints], [mask])


def published(flip: float = 0.5, **options: Any) -> Compose:
    return Compose(
        [Affine(**SIZES, **options), Flip(flip_index=COCO.flip_index, probability=flip)], **SIZES
    )


def config(transforms: list[str], **changes: Any) -> CfgNode:
    data = {
        "TRANSFORMS": transforms,
        "INPUT_SIZE": 64,
        "OUTPUT_SIZE": [16, 32],
        "MAX_ROTATION": 30.0,
        "MIN_SCALE": 0.75,
        "MAX_SCALE": 1.5,
        "SCALE_TYPE": "short",
        "MAX_TRANSLATE": 40.0,
        "FLIP": 0.5,
    }
    assert set(changes) <= set(data)
    return CfgNode({"DATASET": data | changes})


def assert_equal(got: Sample, want: Sample) -> None:
    assert np.array_equal(got.image, want.image)
    for ours, theirs in zip(got.joints + got.masks, want.joints + want.masks, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("people", [0, 1, 31])
@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("scale_type", ["short", "long"])
def test_samples_equal_the_loops(people: int, columns: int, flip: float, scale_type: str) -> None:
    sample = make_sample(people, columns)
    before = Sample(sample.image.copy(), [sample.joints[0].copy()], [sample.masks[0].copy()])
    transforms = published(flip, scale_type=scale_type)
    for seed in range(5):
        params = Affine(**SIZES, scale_type=scale_type).draw(64, 48, np.random.default_rng(seed))
        want = oracle.augment(
            sample.image,
            sample.joints[0],
            sample.masks[0],
            **params._asdict(),
            mirrored=flip == 1,
            flip_index=COCO.flip_index,
            **SIZES,
        )
        got = transforms(sample, np.random.default_rng(seed))
        assert np.array_equal(got.image, want[0]) and got.image.dtype == np.uint8
        for size, ours, theirs in zip((16, 32), got.joints, want[1], strict=True):
            assert ours.shape == (people, 17, columns) and ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4 * size / 16)
        for size, ours, theirs in zip((16, 32), got.masks, want[2], strict=True):
            assert ours.shape == (size, size) and ours.dtype == np.uint8
            assert np.array_equal(ours, theirs)
    assert_equal(sample, before)


@pytest.mark.parametrize("scale_type", ["short", "long"])
def test_parameters_lie_in_their_ranges(scale_type: str) -> None:
    affine = Affine(**SIZES, scale_type=scale_type)
    side = 48 if scale_type == "short" else 64
    for seed in range(20):
        params = affine.draw(64, 48, np.random.default_rng(seed))
        assert 0.75 <= params.zoom <= 1.5 and abs(params.rotation) <= 30
        assert params.scale == pytest.approx(side * params.zoom / 200)
        shift = np.subtract(params.center, (32, 24))
        assert np.abs(shift).max() <= 40 * params.scale
        plain = np.random.default_rng(seed)
        plain.uniform(size=2)
        radius = int(40 * params.scale)
        assert shift.tolist() == plain.integers(-radius, radius, size=2, endpoint=True).tolist()


def test_five_random_numbers_are_drawn_in_a_fixed_order() -> None:
    """zoom, rotation, shift in x and y, flip: whatever the settings, so that samples of one seed
    stay comparable.
    """
    for options in ({}, {"max_rotation": 0, "max_translate": 0}):
        rng = np.random.default_rng(3)
        published(0.0, **options)(make_sample(1), rng)
        plain = np.random.default_rng(3)
        zoom = plain.uniform(0.75, 1.5)
        plain.uniform(-1, 1)
        radius = int(options.get("max_translate", 40) * 48 * zoom / 200)
        plain.integers(-radius, radius, size=2, endpoint=True)
        plain.random()
        assert rng.random() == plain.random()


def test_a_shift_that_can_only_be_zero_takes_no_random_number() -> None:
    rng, plain = np.random.default_rng(0), np.random.default_rng(0)
    Affine(**SIZES, max_rotation=0, min_scale=1, max_scale=1, max_translate=0).draw(64, 48, rng)
    plain.uniform(size=2)  # the zoom and the rotation
    assert rng.bit_generator.state == plain.bit_generator.state


def test_a_sample_depends_on_the_generator_only() -> None:
    transforms = published()
    first, again, other = (
        transforms(make_sample(2), np.random.default_rng(seed)).image for seed in (5, 5, 6)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_flip_is_its_own_inverse() -> None:
    """On a sample in pixels of its image."""
    flip = Flip(flip_index=COCO.flip_index, probability=1)
    sample = make_sample(3)
    once = flip(sample, np.random.default_rng(0))
    assert np.array_equal(once.image, sample.image[:, ::-1])
    assert np.array_equal(once.masks[0], sample.masks[0][:, ::-1])
    nose_x = sample.joints[0][:, 0, 0]
    np.testing.assert_allclose(once.joints[0][:, 0, 0], 63 - nose_x, rtol=1e-5)
    np.testing.assert_allclose(once.joints[0][:, 1, 1], sample.joints[0][:, 2, 1])
    twice = flip(once, np.random.default_rng(0))
    assert np.array_equal(twice.image, sample.image)
    np.testing.assert_allclose(twice.joints[0], sample.joints[0], atol=1e-4)


def test_a_marked_pixel_stays_under_its_joint() -> None:
    """A bright spot of the image and a joint on it are at the same position of the input and of the
    outputs.
    """
    sizes: dict[str, Any] = {"input_size": 256, "output_sizes": (64, 128)}
    transforms = Compose([Affine(**sizes), Flip(flip_index=(0,))], **sizes)
    image = np.zeros((200, 200, 3), np.uint8)
    image[89:92, 109:112] = 255
    joints = np.array([[[110, 90, 2]]], np.float32)
    sample = Sample(image, [joints], [np.ones((200, 200), np.uint8)])
    for seed in range(8):
        moved = transforms(sample, np.random.default_rng(seed))
        ys, xs = np.nonzero(moved.image[..., 0] > 128)
        for size, points in zip((64, 128), moved.joints):
            # Mirroring maps the last pixel to the first one at each resolution, which differ by up
            # to half a pixel of the output.
            np.testing.assert_allclose(
                points[0, 0, :2] * 256 / size, [xs.mean(), ys.mean()], atol=256 / size
            )


def test_outside_the_image_is_black() -> None:
    params = AugmentParams(center=(-500, -500), scale=0.5, zoom=1, rotation=10)
    assert not warp(np.full((48, 64), 255, np.uint8), params, 32).any()


def test_the_configuration_is_read() -> None:
    sample = make_sample(2)
    built = build_transforms(config(["affine", "flip"]), COCO)
    for seed in range(4):
        got = built(sample, np.random.default_rng(seed))
        assert_equal(got, published()(sample, np.random.default_rng(seed)))
    changes = [
        {"MAX_ROTATION": 0.0},
        {"MIN_SCALE": 1.4},
        {"MAX_SCALE": 0.8},
        {"SCALE_TYPE": "long"},
        {"MAX_TRANSLATE": 0.0},
        {"FLIP": 1.0},
    ]
    before = build_transforms(config(["affine", "flip"], FLIP=0.0), COCO)
    want = before(sample, np.random.default_rng(7)).image
    for change in changes:
        changed = build_transforms(config(["affine", "flip"], **({"FLIP": 0.0} | change)), COCO)
        assert not np.array_equal(changed(sample, np.random.default_rng(7)).image, want), change


def test_a_transform_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour jitter: a function, a line in TRANSFORMS and a name in DATASET.TRANSFORMS."""

    def build_jitter(cfg: Any, skeleton: Any) -> Any:
        def jitter(sample: Sample, rng: np.random.Generator) -> Sample:
            factors = rng.uniform(0.5, 1, 3)
            return sample._replace(image=(sample.image * factors).astype(np.uint8))

        return jitter

    monkeypatch.setitem(TRANSFORMS, "jitter", build_jitter)
    sample = make_sample(2)
    plain = build_transforms(config(["affine", "flip"]), COCO)(sample, np.random.default_rng(1))
    transforms = build_transforms(config(["affine", "flip", "jitter"]), COCO)
    got = transforms(sample, np.random.default_rng(1))
    assert not np.array_equal(got.image, plain.image)
    assert_equal(got._replace(image=plain.image), plain)


def test_without_a_transform_that_gives_the_size() -> None:
    transforms = build_transforms(config(["flip"]), COCO)
    with pytest.raises(
        TransformError,
        match=r"^the transforms give an image of 64 x 48 px, masks of 64 x 48 px and 1 list of "
        r"joints; the network needs an image with sides of 64 px and outputs with sides of "
        r"\[16, 32\] px, which the transform 'affine' makes$",
    ):
        transforms(make_sample(1), np.random.default_rng(0))


def test_two_affine_transforms() -> None:
    transforms = build_transforms(config(["affine", "affine"]), COCO)
    with pytest.raises(TransformError, match="needs joints and mask in pixels of the image"):
        transforms(make_sample(1), np.random.default_rng(0))


def test_joints_and_masks_are_of_the_same_outputs() -> None:
    """Before and after the affine transform."""
    sample = make_sample(1)
    rng = np.random.default_rng(0)
    for joints, masks in ((2, 1), (1, 2)):
        doubled = Sample(sample.image, sample.joints * joints, sample.masks * masks)
        with pytest.raises(TransformError, match="needs joints and mask in pixels of the image"):
            Affine(**SIZES)(doubled, rng)
    forgetful = Compose([Affine(**SIZES), lambda s, _: s._replace(joints=s.joints[:1])], **SIZES)
    with pytest.raises(TransformError, match="masks of 16 x 16, 32 x 32 px and 1 list of joints"):
        forgetful(sample, rng)


def test_an_affine_transform_needs_a_mask_of_the_images_size() -> None:
    """Such as after a crop that forgot the mask; also where the network has one output."""
    sample = make_sample(1)
    cropped = sample._replace(image=sample.image[:40, :60])
    said = "mask in pixels of the image; the image has 60 x 40 px, the mask 64 x 48$"
    with pytest.raises(TransformError, match=said):
        Affine(**SIZES)(cropped, np.random.default_rng(0))
    affine = Affine(input_size=64, output_sizes=(16,))
    with pytest.raises(TransformError, match="the image has 64 x 64 px, the mask 16 x 16$"):
        affine(affine(sample, np.random.default_rng(0)), np.random.default_rng(0))


def with_nan(sample: Sample) -> Sample:
    joints = sample.joints[1].copy()
    joints[1, 3, 0] = np.nan
    return sample._replace(joints=[sample.joints[0], joints])


REFUSED: dict[str, tuple[Callable[[Sample], Any], str]] = {
    "None": (lambda s: None, "a NoneType; it must return a Sample"),
    "a tuple": (tuple, "a tuple; it must return a Sample"),
    "one mask": (
        lambda s: s._replace(masks=s.masks[0]),
        "a list and a ndarray as joints and masks; they are lists of arrays",
    ),
    "one array of joints": (
        lambda s: s._replace(joints=s.joints[0]),
        "a ndarray and a list as joints and masks; they are lists of arrays",
    ),
    "no image": (
        lambda s: s._replace(image=None),
        "an image of type NoneType; it must be uint8 of 0 to 255, (H, W, 3)",
    ),
    "fractions": (
        lambda s: s._replace(image=s.image / 255),
        "an image of float64, (64, 64, 3); it must be uint8 of 0 to 255, (H, W, 3)",
    ),
    "int16": (
        lambda s: s._replace(image=s.image.astype(np.int16)),
        "an image of int16, (64, 64, 3); it must be uint8",
    ),
    "grey": (
        lambda s: s._replace(image=s.image[..., 0]),
        "an image of uint8, (64, 64); it must be uint8 of 0 to 255, (H, W, 3)",
    ),
    "channels first": (
        lambda s: s._replace(image=s.image.transpose(2, 0, 1)),
        "an image of uint8, (3, 64, 64); it must be",
    ),
    "masks of 255": (
        lambda s: s._replace(masks=[s.masks[0], s.masks[1] * np.uint8(255)]),
        "a mask with values up to 255; they must be 0, where nothing is learnt, and 1",
    ),
    "masks of float": (
        lambda s: s._replace(masks=[mask / 1 for mask in s.masks]),
        "a mask of float64, (16, 16); it must be uint8 of 0 and 1, (h, w)",
    ),
    "masks with channels": (
        lambda s: s._replace(masks=[mask[..., None] for mask in s.masks]),
        "a mask of uint8, (16, 16, 1); it must be uint8 of 0 and 1, (h, w)",
    ),
    "NaN": (with_nan, "nan in column 0 of joint 3 of person 1; joints are finite numbers, 0 where"),
    "too large": (
        lambda s: s._replace(joints=[joints * 1e300 for joints in map(np.float64, s.joints)]),
        "inf in column 0 of joint 0 of person 0; joints are finite",
    ),
    "a joint less": (
        lambda s: s._replace(joints=[joints[:, 1:] for joints in s.joints]),
        "joints of float32, (2, 16, 3); it must keep float32, (people, 17, 3)",
    ),
    "a column less": (
        lambda s: s._replace(joints=[joints[..., :2] for joints in s.joints]),
        "joints of float32, (2, 17, 2); it must keep float32, (people, 17, 3)",
    ),
    "one person": (
        lambda s: s._replace(joints=[joints[0] for joints in s.joints]),
        "joints of float32, (17, 3); it must keep",
    ),
    "a list of people": (
        lambda s: s._replace(joints=[joints.tolist() for joints in s.joints]),
        "joints of type list; it must keep float32, (people, 17, 3)",
    ),
    "joints of text": (
        lambda s: s._replace(joints=[joints.astype(str) for joints in s.joints]),
        "joints of <U32, (2, 17, 3); it must keep float32",
    ),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_transform_gives_is_checked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the project's own transforms work with it."""
    change, said = REFUSED[name]
    monkeypatch.setitem(TRANSFORMS, "own", lambda cfg, skeleton: lambda s, rng: change(s))
    transforms = build_transforms(config(["affine", "own", "flip"]), COCO)
    with pytest.raises(TransformError) as error:
        transforms(make_sample(2), np.random.default_rng(0))
    line = str(error.value)
    assert line.startswith(f"the transform 'own' gives {said}") and "\n" not in line


def test_a_transform_without_a_name_in_the_settings_has_that_of_its_class() -> None:
    class Nothing:
        def __call__(self, sample: Sample, rng: np.random.Generator) -> Any:
            return None

    with pytest.raises(TransformError, match="^the transform 'Nothing' gives a NoneType"):
        Compose([Nothing()], **SIZES)(make_sample(1), np.random.default_rng(0))


def test_views_bools_and_float64_are_what_they_stand_for() -> None:
    """PyTorch takes no array with negative strides, and a batch needs arrays of one type."""

    def mirrored(sample: Sample, rng: np.random.Generator) -> Sample:
        return Sample(
            sample.image[:, ::-1],
            [joints.astype(np.float64) for joints in sample.joints],
            [mask.astype(bool)[:, ::-1] for mask in sample.masks],
        )

    transforms: list[Any] = [Affine(**SIZES), mirrored, Flip(flip_index=range(17), probability=0)]
    sample = make_sample(2)
    want = transforms[0](sample, np.random.default_rng(1))
    got = Compose(transforms, **SIZES)(sample, np.random.default_rng(1))
    assert np.array_equal(got.image, want.image[:, ::-1])
    for ours, theirs in zip(got.joints, want.joints, strict=True):
        assert ours.dtype == np.float32 and np.array_equal(ours, theirs)
    for ours, theirs in zip(got.masks, want.masks, strict=True):
        assert ours.dtype == np.uint8 and np.array_equal(ours, theirs[:, ::-1])
    batch = collate([LoadedSample(got, 1, {})] * 2)
    assert batch.images.shape == (2, 64, 64, 3) and batch.masks[1].dtype == torch.uint8


def test_people_may_come_and_go() -> None:
    sample = make_sample(3)
    for count in (0, 2):
        leave = Compose([Affine(**SIZES), lambda s, _: only(s, count)], **SIZES)  # noqa: B023
        assert len(leave(sample, np.random.default_rng(0)).joints[1]) == count


def only(sample: Sample, count: int) -> Sample:
    return sample._replace(joints=[joints[:count] for joints in sample.joints])


def test_messages() -> None:
    with pytest.raises(ValueError, match="^scale_type is 'shrot'; it is 'short' or 'long'$"):
        Affine(**SIZES, scale_type="shrot")
    with pytest.raises(
        ValueError,
        match="^DATASET.TRANSFORMS is 'rotate'; it is one of affine, flip; "
        "a module of your own is named with --import$",
    ):
        build_transforms(config(["affine", "rotate"]), COCO)
