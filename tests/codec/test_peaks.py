"""Peaks against max-pooling and torch.topk on whole maps, the order of equal scores included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pretend_device import DEVICE, Counts, pretended
from swahr.codec.peaks import Peaks
from swahr.codec.peaks_batch import find_peaks_as_topk as find_peaks
from swahr.codec.peaks_batch import find_peaks_batch
from swahr.codec.tile_bounds import tile_bounds
from tests.oracles import decode as oracle


def check(
    peaks: Peaks, heatmaps: np.ndarray, tags: np.ndarray, threshold: float, limit: int, radius: int
) -> None:
    rule = oracle.settings((), max_people=limit, nms_kernel=2 * radius + 1, nms_padding=radius)
    want_tags, points, scores = oracle.top_peaks(heatmaps, tags, rule)
    for k, heatmap in enumerate(heatmaps):
        is_peak = scores[k] > threshold
        count = peaks.counts[k]
        assert count == is_peak.sum()
        x, y = points[k][is_peak].T
        np.testing.assert_array_equal(peaks.pixels[k, :count], y * heatmap.shape[1] + x)
        np.testing.assert_array_equal(peaks.scores[k, :count], scores[k][is_peak])
        np.testing.assert_array_equal(peaks.tags[k, :count], want_tags[k][is_peak])
        offsets = [oracle.quarter(heatmap, *point) for point in zip(x, y)]
        np.testing.assert_array_equal(peaks.offsets[k, :count], np.reshape(offsets, (-1, 2)))


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 30),
    st.integers(0, 3),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_peaks_are_those_of_pooling(
    height: int, width: int, limit: int, radius: int, levels: int, seed: int
) -> None:
    """Few levels of height give many ties, also for the last peak that is kept; maps are larger and
    smaller than 64 x limit.
    """
    rng = np.random.default_rng(seed)
    heatmaps = (rng.integers(-2, levels, (2, height, width)) / 8).astype(np.float32)
    tags = rng.normal(size=(1 + seed % 2, height, width, 2)).astype(np.float32)
    rule = dict(limit=limit, threshold=0.25, radius=radius)
    check(
        find_peaks(heatmaps, tags, tile_bounds(heatmaps[..., None]), **rule), heatmaps, tags, **rule
    )
    batch = find_peaks_batch(torch.from_numpy(heatmaps)[None], torch.from_numpy(tags)[None], **rule)
    check(batch[0], heatmaps, tags, **rule)


def test_two_peaks_by_hand() -> None:
    heatmaps = np.zeros((1, 20, 20), np.float32)
    tags = np.zeros((1, 20, 20, 1), np.float32)
    for y, x, score in ((3, 4, 0.5), (3, 5, 0.25), (10, 19, 0.75), (11, 18, 0.5)):
        heatmaps[0, y, x] = score
    tags[0, 10, 19] = 7
    peaks = find_peaks(
        heatmaps, tags, tile_bounds(heatmaps[..., None]), limit=3, threshold=0.1, radius=2
    )
    assert peaks.counts == [2]
    assert peaks.pixels[0, :2].tolist() == [219, 64] and peaks.tags[0, :2, 0].tolist() == [7, 0]
    assert peaks.offsets[0, :2].tolist() == [[0.25, -0.25], [0.25, -0.25]]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 16, 16, 2), (2, 33, 47, 3)])
def test_bounds_of_tiles(shape: tuple[int, ...]) -> None:
    maps = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    low, high, finite = tile_bounds(maps)
    assert finite
    for c, ty, tx, t in np.ndindex(low.shape):
        tile = maps[c, ty * 16 : ty * 16 + 16, tx * 16 : tx * 16 + 16, t]
        assert low[c, ty, tx, t] == tile.min() and high[c, ty, tx, t] == tile.max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_detected(bad: float) -> None:
    for index in ((0, 0, 0, 0), (1, 20, 31, 1), (1, 39, 16, 0)):
        maps = np.zeros((2, 40, 32, 2), np.float32)
        maps[index] = bad
        assert not tile_bounds(maps).finite


def test_equal_peaks_of_a_gpu_are_ordered_without_copying_maps() -> None:
    """Their order is not that in which the GPU's topk gives them."""
    heatmaps = torch.zeros(2, 3, 64, 64)
    heatmaps[1, 2, 8:56:8, 8:56:8] = 0.5
    heatmaps[1, 2, 16, 24] = 0.75
    tags = torch.arange(64.0 * 64).view(1, 1, 64, 64, 1).expand(2, 3, -1, -1, 2).contiguous()
    rule = dict(limit=30, threshold=0.25, radius=2)
    with pretended() as device:
        on_gpu = heatmaps.to(DEVICE), tags.to(DEVICE)
        device.counts = Counts()
        found = find_peaks_batch(*on_gpu, **rule)
        downloads = device.counts.downloads
    check(found[1], heatmaps[1].numpy(), tags[1].numpy(), **rule)
    table, candidates, chosen = downloads
    assert candidates == 36 * 3 * 8  # the row, the pixel and the value of each, in float64
    assert chosen < table and table == 2 * 3 * 31 * 6 * 8
