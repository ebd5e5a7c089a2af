"""Augmentation against the plain loops of tests/oracles/augment.py, and transforms of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from yacs.config import CfgNode

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
        match=r"^the transforms give an image of 64 x 48 px, masks of 64 x 48 px and 1 lists of "
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
    with pytest.raises(TransformError, match="masks of 16 x 16, 32 x 32 px and 1 lists of joints"):
        forgetful(sample, rng)


def test_messages() -> None:
    with pytest.raises(ValueError, match="^scale_type is 'shrot'; it is 'short' or 'long'$"):
        Affine(**SIZES, scale_type="shrot")
    with pytest.raises(
        ValueError,
        match="^DATASET.TRANSFORMS is 'rotate'; it is one of affine, flip; "
        "a module of your own is named with --import$",
    ):
        build_transforms(config(["affine", "rotate"]), COCO)
