from __future__ import annotations

import numpy as np
import pytest

from swahr import geometry


@pytest.mark.parametrize("rotation", [0.0, 17.0, -30.0])
def test_the_window_fills_the_output(rotation: float) -> None:
    center, scale, size = (120.0, 80.0), 0.9, 256
    matrix = geometry.augment_matrix(center, scale, size, rotation)
    assert geometry.transform_points([center], matrix)[0] == pytest.approx([128, 128])
    half, angle = 90.0, np.deg2rad(rotation)
    corner = np.array(center) + [half * (-np.cos(angle) + np.sin(angle)), half * (-np.sin(angle) - np.cos(angle))]
    assert geometry.transform_points([corner], matrix)[0] == pytest.approx([0, 0], abs=1e-9)


def test_every_output_size_sees_the_same_window() -> None:
    points = np.random.default_rng(0).uniform(0, 300, (20, 2))
    matrices = [geometry.augment_matrix((150, 90), 1.3, size, 21) for size in (512, 128)]
    large, small = (geometry.transform_points(points, matrix) for matrix in matrices)
    assert large == pytest.approx(small * 4)


@pytest.mark.parametrize("width, height", [(640, 427), (427, 640), (500, 500), (1, 1), (3000, 20)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_points_go_to_the_input_and_back(width: int, height: int, scale: float) -> None:
    place = geometry.test_geometry(width, height, 512, scale, min_scale=0.5)
    matrix = geometry.test_matrix(place.center, place.box_scale, place.size)
    points = np.random.default_rng(1).uniform(0, 1, (9, 2)) * [width, height]
    there = geometry.transform_points(points, matrix)
    back = geometry.to_image(there, place.center, place.box_scale, place.size)
    assert back == pytest.approx(points, abs=1e-3 * max(width, height))
    assert min(place.size) == 512 * scale and place.size[0] % 32 == 0 and place.size[1] % 32 == 0


def test_scales_share_one_shape() -> None:
    small, middle, large = (np.array(geometry.test_geometry(640, 427, 512, s, 0.5).size) for s in (0.5, 1.0, 2.0))
    assert (middle == 2 * small).all() and (large == 2 * middle).all()
