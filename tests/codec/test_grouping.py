"""Grouping against the published rules in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swahr.codec import grouping
from swahr.codec.peaks import Peaks
from tests.oracles import decode as oracle

RULES = dict(max_people=30, tag_threshold=1.0, use_detection_val=True, ignore_too_much=False)


def make_peaks(tags: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> Peaks:
    """Peaks with tags (K, M, T) and scores (K, M), of which the first `counts` of each joint count;
    a peak's pixel is its index.
    """
    pixels = np.arange(scores.size).reshape(scores.shape)
    scores = np.where(np.arange(scores.shape[1]) < counts[:, None], scores, 0).astype(np.float32)
    return Peaks(
        pixels, scores, np.zeros((*scores.shape, 2), np.float32), tags.astype(np.float32), counts
    )


def expected(peaks: Peaks, order: np.ndarray, **rules: object) -> np.ndarray:
    """(N, K), the peaks' indices, from the loops: a peak's point is (index in its joint, joint)."""
    joints, count = peaks.scores.shape
    points = np.stack(np.broadcast_arrays(np.arange(count), np.arange(joints)[:, None]), 2)
    people = oracle.match(
        peaks.tags, points, peaks.scores, oracle.settings(order, detection_threshold=0.0, **rules)
    )
    return np.where(people[..., 2] > 0, people[..., 0], -1).reshape(-1, joints)


@given(
    st.integers(1, 17),
    st.integers(1, 30),
    st.integers(1, 3),
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3, 30]),
    st.sampled_from([1.0, 0.5, 3.0]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_groups_equal_the_loops(
    joints: int,
    most: int,
    values: int,
    grid: int,
    use_detection_val: bool,
    ignore_too_much: bool,
    max_people: int,
    tag_threshold: float,
    seed: int,
) -> None:
    """Tags on a coarse grid, so that tags, distances, roundings and costs tie; sometimes with noise
    on top.
    """
    rng = np.random.default_rng(seed)
    shape = (joints, most, values)
    tags = rng.integers(-grid, grid + 1, shape) / 2 + rng.normal(0, seed % 3 / 9, shape)
    scores = np.sort(rng.integers(1, 12, (joints, most)) / 12)[:, ::-1]
    peaks = make_peaks(tags, scores, rng.integers(0, most + 1, joints))
    rules = dict(
        max_people=max_people,
        tag_threshold=tag_threshold,
        use_detection_val=use_detection_val,
        ignore_too_much=ignore_too_much,
    )
    order = rng.permutation(joints)
    np.testing.assert_array_equal(
        grouping.group(peaks, order, **rules), expected(peaks, order, **rules)
    )


def test_many_candidates() -> None:
    """300 peaks of each of 3 joints, more than can be joined: most of them create new people."""
    rng = np.random.default_rng(0)
    peaks = make_peaks(rng.normal(0, 40, (3, 300, 2)), rng.random((3, 300)) + 0.1, np.full(3, 300))
    peak_of_joint = grouping.group(peaks, np.arange(3), **RULES)
    assert sorted(peak_of_joint[peak_of_joint >= 0]) == sorted([*range(300)] * 3)


def test_equal_first_tags_are_one_person() -> None:
    """0 and -0 are equal: the second peak takes over the joint and resets the tag, so that the
    third joint is too far.
    """
    tags = np.array([[[0.0, 5], [-0.0, 9]], [[0.0, 5], [0, 0]]])
    peaks = make_peaks(tags, np.array([[0.9, 0.8], [0.7, 0]]), np.array([2, 1]))
    assert grouping.group(peaks, np.arange(2), **RULES).tolist() == [[1, 0]]


def test_no_peaks() -> None:
    people = grouping.group(
        make_peaks(np.zeros((3, 4, 2)), np.zeros((3, 4)), np.zeros(3, int)), np.arange(3), **RULES
    )
    assert people.shape == (0, 3)


@pytest.mark.parametrize("values", [1, 2, 3])
def test_mean_tags_are_those_of_numpy_to_the_bit(values: int) -> None:
    rng = np.random.default_rng(values)
    tags = (rng.normal(size=(40, 1, values)) * 30).astype(np.float32)
    peaks = make_peaks(tags, np.ones((40, 1)), np.ones(40, int))
    peak_of_joint = np.where(np.arange(40) < np.arange(1, 41)[:, None], 0, -1)
    want = [np.mean(list(tags[:count, 0]), axis=0) for count in range(1, 41)]
    np.testing.assert_array_equal(grouping.mean_tags(peaks, peak_of_joint), want)


def test_tags_whose_mean_overflows_cost_much_and_not_infinity() -> None:
    """Infinite costs have no differences, and the assignment would search for ever."""
    distances = np.array([[np.inf, 1.0], [np.inf, np.inf]])
    for use_detection_val in (False, True):
        costs = grouping._costs(distances, np.ones(2), use_detection_val)
        assert np.isfinite(costs).all() and costs[0, 0] > 1e90 > costs[0, 1]
