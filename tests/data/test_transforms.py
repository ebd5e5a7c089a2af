"""Augmentation against the plain loops of tests/oracles/augment.py."""

from __future__ import annotations

import numpy as np
import pytest

from swahr.data.transforms import Placement, TrainTransform, _warp
from swahr.skeleton import COCO
from tests.oracles import augment as oracle

SETTINGS = {"input_size": 64, "output_sizes": (16, 32), "flip_index": COCO.flip_index}


def sample(
    people: int, columns: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (48, 64, 3), np.uint8)
    joints = rng.uniform(0, 48, (people, 17, columns)).astype(np.float32)
    joints[..., 2] = rng.integers(0, 3, (people, 17))
    mask = np.ones((48, 64), np.uint8)
    mask[10:30, 5:25] = 0
    return image, joints, mask


@pytest.mark.parametrize("people", [0, 1, 31])
@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("scale_type", ["short", "long"])
def test_against_the_loops(people: int, columns: int, flip: float, scale_type: str) -> None:
    image, joints, mask = sample(people, columns)
    before = image.copy(), joints.copy(), mask.copy()
    transform = TrainTransform(**SETTINGS, flip=flip, scale_type=scale_type)
    for seed in range(5):
        place = transform.place(64, 48, np.random.default_rng(seed))
        assert 0.75 <= place.zoom <= 1.5 and abs(place.rotation) <= 30
        assert place.scale == pytest.approx(
            (48 if scale_type == "short" else 64) * place.zoom / 200
        )
        assert max(abs(place.center[0] - 32), abs(place.center[1] - 24)) <= 40 * place.scale
        want = oracle.augment(image, joints, mask, **place._asdict(), **SETTINGS)
        got = transform(image, joints, mask, np.random.default_rng(seed))
        assert np.array_equal(got[0], want[0]) and got[0].dtype == np.uint8
        for size, ours, theirs in zip((16, 32), got[1], want[1]):
            assert ours.shape == (people, 17, columns) and ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4 * size / 16)
        for size, ours, theirs in zip((16, 32), got[2], want[2]):
            assert (
                ours.shape == (size, size)
                and ours.dtype == np.uint8
                and np.array_equal(ours, theirs)
            )
    assert all(np.array_equal(a, b) for a, b in zip(before, (image, joints, mask)))


def test_depends_on_the_generator_only() -> None:
    transform = TrainTransform(**SETTINGS)
    first, again, other = (
        transform(*sample(2), np.random.default_rng(seed))[0] for seed in (5, 5, 6)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_mirrored_twice_is_once() -> None:
    """A placement that changes nothing but left and right, twice: the image, its joints and mask
    again.
    """
    transform = TrainTransform(
        input_size=48,
        output_sizes=(48,),
        flip_index=COCO.flip_index,
        flip=1,
        max_rotation=0,
        min_scale=1,
        max_scale=1,
        max_translate=0,
    )
    image, joints, mask = sample(3)
    image = image[:, :48]
    mask = mask[:, :48]
    once = transform(image, joints, mask, np.random.default_rng(0))
    assert not np.array_equal(once[0], image)
    twice = transform(once[0], once[1][0], once[2][0], np.random.default_rng(0))
    assert np.array_equal(twice[0], image) and np.array_equal(twice[2][0], mask)
    np.testing.assert_allclose(twice[1][0], joints, atol=1e-4)


def test_a_marked_pixel_stays_under_its_joint() -> None:
    """A bright spot of the image and a joint on it arrive at the same place of the input and of the
    outputs.
    """
    transform = TrainTransform(input_size=256, output_sizes=(64, 128), flip_index=(0,))
    for seed in range(8):
        image = np.zeros((200, 200, 3), np.uint8)
        image[89:92, 109:112] = 255
        moved, joints, _ = transform(
            image,
            np.array([[[110, 90, 2]]], np.float32),
            np.ones((200, 200), np.uint8),
            np.random.default_rng(seed),
        )
        ys, xs = np.nonzero(moved[..., 0] > 128)
        for size, points in zip((64, 128), joints):
            # A mirrored output's last pixel is that of the input, so a pixel's share of half a
            # pixel is open.
            np.testing.assert_allclose(
                points[0, 0, :2] * 256 / size, [xs.mean(), ys.mean()], atol=256 / size
            )


def test_outside_the_image_is_black_and_masked() -> None:
    place = Placement(center=(-500, -500), scale=0.5, zoom=1, rotation=10, mirrored=False)
    assert not _warp(np.full((48, 64), 255, np.uint8), place, 32).any()


def test_unknown_side() -> None:
    with pytest.raises(ValueError, match="scale_type is 'shrot'; it is 'short' or 'long'"):
        TrainTransform(**SETTINGS, scale_type="shrot")
