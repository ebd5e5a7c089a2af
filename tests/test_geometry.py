from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swahr import geometry

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("rotation", [0.0, 17.0, -30.0])
def test_the_window_fills_the_output(rotation: float) -> None:
    center = (120.0, 80.0)
    scale = 0.9
    size = 256
    matrix = geometry.augment_matrix(center, scale, size, rotation)
    assert geometry.transform_points([center], matrix)[0] == pytest.approx([128, 128])
    half = 90.0
    angle = np.deg2rad(rotation)
    corner = np.array(center) + [
        half * (-np.cos(angle) + np.sin(angle)),
        half * (-np.sin(angle) - np.cos(angle)),
    ]
    assert geometry.transform_points([corner], matrix)[0] == pytest.approx([0, 0], abs=1e-9)


def test_every_output_size_sees_the_same_window() -> None:
    points = np.random.default_rng(0).uniform(0, 300, (20, 2))
    matrices = [geometry.augment_matrix((150, 90), 1.3, size, 21) for size in (512, 128)]
    large, small = (geometry.transform_points(points, matrix) for matrix in matrices)
    assert large == pytest.approx(small * 4)


@pytest.mark.parametrize("width, height", [(640, 427), (427, 640), (500, 500), (1, 1), (3000, 20)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_points_go_to_the_input_and_back(width: int, height: int, scale: float) -> None:
    place = geometry.input_geometry(width, height, 512, scale, min_scale=0.5)
    matrix = geometry.input_matrix(place.center, place.box_scale, place.size)
    points = np.random.default_rng(1).uniform(0, 1, (9, 2)) * [width, height]
    there = geometry.transform_points(points, matrix)
    back = geometry.to_image(there, place.center, place.box_scale, place.size)
    assert back == pytest.approx(points, abs=1e-3 * max(width, height))
    assert min(place.size) == 512 * scale and place.size[0] % 32 == 0 and place.size[1] % 32 == 0


def test_scales_share_one_shape() -> None:
    small, middle, large = (
        np.array(geometry.input_geometry(640, 427, 512, s, 0.5).size) for s in (0.5, 1.0, 2.0)
    )
    assert (middle == 2 * small).all() and (large == 2 * middle).all()


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(1, 40),
    st.sampled_from([0.5, 1.0, 1.5, 2.0]),
    st.sampled_from([0.5, 1.0]),
    seeds,
)
@example(1, 3000, 16, 1.0, 1.0, 0)
@example(3000, 1, 40, 2.0, 0.5, 0)
@example(230, 806, 3, 0.5, 1.0, 0)
@settings(max_examples=200, deadline=None)
def test_every_size_has_its_place(
    width: int, height: int, input_size: int, scale: float, smallest: float, seed: int
) -> None:
    """Inputs that every network takes, in the image's proportions to within a step; what is inside
    stays inside.
    """
    place = geometry.input_geometry(width, height, 32 * input_size, max(scale, smallest), smallest)
    short, long = sorted(place.size)
    assert short >= 32 and short % 32 == long % 32 == 0
    assert (place.size[0] >= place.size[1]) == (width >= height) or short == long
    zoom = (
        max(scale, smallest) / smallest
    )  # what is less than a pixel over a step is cut off, as published
    assert -zoom < long - short * max(width, height) / min(width, height) < 64 * zoom
    points = np.random.default_rng(seed).uniform(0, 1, (9, 2)) * [width, height]
    there = geometry.transform_points(
        points, geometry.input_matrix(place.center, place.box_scale, place.size)
    )
    pixel = short / min(width, height)  # an image's pixel on the input; centres are whole pixels
    slack = pixel * (0.5 + 1e-3) + zoom / 2 + 1e-6 * long
    assert (there >= -slack).all() and (there <= np.add(place.size, slack)).all()
    back = geometry.to_image(there, place.center, place.box_scale, place.size)
    assert np.abs(back - points).max() < 1e-6 * max(width, height) + 1e-3


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.floats(0.01, 10),
    st.integers(1, 160),
    st.floats(-180, 180),
    seeds,
)
@settings(max_examples=100, deadline=None)
def test_every_window_can_be_undone(
    width: int, height: int, zoom: float, size: int, rotation: float, seed: int
) -> None:
    """Points go through the matrix of augmentation and back; lengths change by the window's zoom
    alone.
    """
    window = zoom * min(width, height)
    matrix = geometry.augment_matrix(
        (width / 2, height / 2), window / geometry.BOX_UNIT, 4 * size, rotation
    )
    points = np.random.default_rng(seed).uniform(0, 1, (9, 2)) * [width, height]
    there = geometry.transform_points(points, matrix)
    back = (there - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    np.testing.assert_allclose(back, points, atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(there - there[0], axis=1) * window,
        np.linalg.norm(points - points[0], axis=1) * 4 * size,
        rtol=1e-6,
        atol=1e-6,
    )
