"""The search for missing joints, on the CPU and in batches, against whole maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swahr.codec import refine, refine_batch
from swahr.codec.tile_bounds import tile_bounds
from tests.oracles import decode as oracle


def expected(
    heatmap: np.ndarray, tag_map: np.ndarray, mean: np.ndarray
) -> tuple[float, float, float]:
    with np.errstate(over="ignore"):
        value = heatmap - np.round(((tag_map - mean) ** 2).sum(axis=2) ** 0.5)
    y, x = np.unravel_index(np.argmax(value), value.shape)
    dx, dy = oracle.quarter(heatmap, x, y)
    return x + 0.5 + dx, y + 0.5 + dy, heatmap[y, x]


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([3, 40, 10**6]),
    st.sampled_from([0.3, 2.0, 1e20]),
    st.sampled_from([1, 64]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_the_pixel_is_that_of_whole_maps(
    height: int,
    width: int,
    values: int,
    shared: bool,
    levels: int,
    spread: float,
    first_tiles: int,
    seed: int,
) -> None:
    """Heights with many ties and with few, also below zero; smooth and noisy tags; whole and
    partial tiles.
    """
    rng = np.random.default_rng(seed)
    heatmaps = (rng.integers(-levels, levels + 1, (2, 3, height, width)) / (2 * levels)).astype(
        np.float32
    )
    channels = 1 if shared else 3
    tags = (
        rng.normal(0, spread, (2, channels, height, 1, values))
        + rng.normal(0, 0.3, (2, channels, height, width, values))
    ).astype(np.float32)
    images = np.repeat([0, 1], [4, 5])
    joints = rng.integers(0, 3, 9)
    means = rng.normal(0, spread, (9, values)).astype(np.float32)
    want = [
        expected(heatmaps[i, k], tags[i, 0 if shared else k], mean)
        for i, k, mean in zip(images, joints, means)
    ]
    for image in range(2):
        own = images == image
        got = refine.find_missing(
            heatmaps[image],
            tags[image],
            tile_bounds(heatmaps[image, ..., None]),
            tile_bounds(tags[image]),
            joints[own],
            means[own],
        )
        np.testing.assert_array_equal(got, np.array(want, np.float32)[own])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine_batch, "FIRST_TILES", first_tiles)
        got = refine_batch.find_missing_batch(
            torch.from_numpy(heatmaps), torch.from_numpy(tags), images, joints, means
        )
    np.testing.assert_array_equal(got, np.array(want, np.float32))


def test_a_weak_joint_with_the_right_tag_is_found() -> None:
    """A higher peak with another's tag does not count: 0.9 - 2 < 0.05 - 0."""
    heatmaps = np.zeros((1, 40, 40), np.float32)
    tags = np.full((1, 40, 40, 1), 9, np.float32)
    heatmaps[0, 5, 5] = 0.9
    heatmaps[0, 30, 20] = 0.05
    heatmaps[0, 30, 21] = 0.01
    tags[0, 5, 5] = 3
    tags[0, 30, 20] = 1.2
    found = refine.find_missing(
        heatmaps,
        tags,
        tile_bounds(heatmaps[..., None]),
        tile_bounds(tags),
        np.array([0]),
        np.ones((1, 1), np.float32),
    )
    np.testing.assert_allclose(found, [[20.75, 30.25, 0.05]])
