"""Joints between pixels, against plain loops and against Gaussians whose centres are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swahr.codec.decode import AssociativeDecoder
from swahr.codec.maps import Maps
from swahr.codec.subpixel import place_between_pixels, vertex
from tests.oracles.crowds import crowd


def slow_vertex(before: float, at: float, after: float) -> float:
    if math.isnan(before) or math.isnan(after):
        before, after = (at if math.isnan(value) else value for value in (before, after))
        return 0.25 if after > before else -0.25
    if min(before, after) <= 0:
        return 0.25 if after > before else -0.25
    if at < before or at < after or (at == before and at == after):
        return 0.25 if after > before else -0.25
    low, middle, high = math.log(before), math.log(at), math.log(after)
    # Newton's step from 0: less the first derivative divided by the second one.
    return -((high - low) / 2) / (high - 2 * middle + low)


def slow_points(heatmaps: np.ndarray, people: np.ndarray) -> np.ndarray:
    points = people.copy()
    for person in points:
        for k, joint in enumerate(person):
            if joint[2] <= 0:
                continue
            x, y = int(joint[0]), int(joint[1])
            ringed = np.pad(heatmaps[k].astype(float), 1, constant_values=np.nan)
            at = ringed[y + 1, x + 1]
            joint[0] = x + 0.5 + slow_vertex(ringed[y + 1, x], at, ringed[y + 1, x + 2])
            joint[1] = y + 0.5 + slow_vertex(ringed[y, x + 1], at, ringed[y + 2, x + 1])
    return points


VALUES = st.one_of(
    st.sampled_from([0.0, -0.5, 0.25, 0.5, math.nan]), st.floats(2.0**-10, 1, width=32)
)


@given(VALUES, st.floats(2.0**-10, 1, width=32), VALUES)
def test_the_vertex_equals_the_loop(before: float, at: float, after: float) -> None:
    [got] = vertex(*(np.array([value]) for value in (before, at, after)))
    assert got == pytest.approx(slow_vertex(before, at, after), abs=1e-6)
    assert -0.5 <= got <= 0.5


@pytest.mark.parametrize("x, y", [(20.5, 11.5), (20.8, 11.1), (20.01, 11.99)])
def test_the_centre_of_a_gaussian_is_found(x: float, y: float) -> None:
    """x and y in units of pixels, whose centres are at 0.5."""
    v, u = np.mgrid[:24, :40] + 0.5
    gaussian = 0.9 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 2.0**2))
    people = np.array([[[int(x) + 0.5, int(y) + 0.5, 0.9]]], np.float32)
    [placed] = place_between_pixels(torch.from_numpy(gaussian)[None, None], [people])
    np.testing.assert_allclose(placed[0, 0], [x, y, 0.9], atol=1e-5)


@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_decoded_people_equal_the_loops(
    adjust: bool, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = [crowd(people, size=(64, 96), joints=5, false_peaks=9) for people in (4, 0, 9)]
    heatmaps, tags = (torch.cat(parts) for parts in zip(*maps))
    plain = AssociativeDecoder(grouping_order=range(5), adjust=adjust)
    exact = AssociativeDecoder(grouping_order=range(5), adjust=adjust, subpixel=True)
    if batched:
        monkeypatch.setattr(exact, "decode_images", exact.decode_batch)
    moved = 0
    for image, before, after in zip(
        heatmaps.numpy(), plain(Maps(heatmaps, tags)), exact(Maps(heatmaps, tags))
    ):
        np.testing.assert_allclose(
            after.keypoints, slow_points(image, before.keypoints), rtol=0, atol=1e-5
        )
        np.testing.assert_array_equal(after.scores, before.scores)
        moved += (after.keypoints != before.keypoints).any(2).sum()
    assert moved > 30


def test_nobody_stays_nobody() -> None:
    nobody = np.zeros((0, 5, 3), np.float32)
    [placed] = place_between_pixels(torch.zeros(1, 5, 8, 8), [nobody])
    assert placed.shape == nobody.shape
