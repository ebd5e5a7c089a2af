"""The one-euro filter against its published loop, and at the edges of tracks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from swahr.inference.smoothing import OneEuroFilter

JOINTS = 5


def plain(values: np.ndarray, times: list[float], size: float, cutoff: float, beta: float):
    """The filter of one joint (n, 2), step by step as in the paper."""

    def alpha(frequency: float, seconds: float) -> float:
        return 1 / (1 + 1 / (2 * math.pi * frequency) / seconds)

    smooth = [values[0]]
    speed = np.zeros(2)
    for n in range(1, len(values)):
        seconds = times[n] - times[n - 1]
        speed = speed + alpha(1.0, seconds) * ((values[n] - smooth[-1]) / seconds - speed)
        weight = alpha(cutoff + beta * math.hypot(*speed) / size, seconds)
        smooth.append(smooth[-1] + weight * (values[n] - smooth[-1]))
    return np.array(smooth)


def frames(count: int, seed: int = 0) -> np.ndarray:
    """Keypoints (n, K, 3) in a box of exactly 40 x 90 px that moves by 3 px a frame, with noise."""
    rng = np.random.default_rng(seed)
    points = rng.random((JOINTS, 2)) * (40, 90) + rng.normal(0, 1, (count, JOINTS, 2))
    points[:, 0] = 0
    points[:, 1] = 40, 90
    points = points.clip(0, (40, 90)) + 3.0 * np.arange(count)[:, None, None]
    return np.concatenate([points, np.ones((count, JOINTS, 1))], 2)


def test_all_joints_are_filtered_as_in_the_paper() -> None:
    people = [frames(8), frames(8, 1) + (500, 0, 0)]
    times = [0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8]
    smooth = OneEuroFilter(min_cutoff=0.7, beta=2.0)
    found = [
        smooth([7, 3], np.stack([person[n] for person in people]), time)
        for n, time in enumerate(times)
    ]
    for index, person in enumerate(people):
        for joint in range(JOINTS):
            expected = plain(person[:, joint, :2], times, math.sqrt(40 * 90), 0.7, 2.0)
            got = np.array([frame[index, joint, :2] for frame in found])
            np.testing.assert_allclose(got, expected, atol=1e-9)


def test_jitter_at_rest_is_less_and_scores_stay() -> None:
    rng = np.random.default_rng(0)
    base = np.column_stack([rng.random((JOINTS, 2)) * 100, np.full(JOINTS, 0.5)])
    noisy = np.stack([base + rng.normal(0, 1, base.shape) * (1, 1, 0) for _ in range(40)])
    smooth = OneEuroFilter()
    steady = np.stack([smooth([1], frame[None], n / 10)[0] for n, frame in enumerate(noisy)])
    assert steady[10:, :, :2].std(0).mean() < 0.7 * noisy[10:, :, :2].std(0).mean()
    np.testing.assert_array_equal(steady[..., 2], noisy[..., 2])


@pytest.mark.parametrize(("gap", "starts_anew"), [(0.5, False), (1.0, False), (1.5, True)])
def test_a_joint_that_was_gone_for_long_begins_anew(gap: float, starts_anew: bool) -> None:
    smooth = OneEuroFilter()
    first = frames(1)
    smooth([1], first, 0.0)
    missing = first.copy()
    missing[0, 2] = 0
    result = smooth([1], missing, 0.1)
    np.testing.assert_array_equal(result[0, 2], 0)
    later = first + (30, 0, 0)
    moved = smooth([1], later, gap)
    assert (moved[0, 2, 0] == later[0, 2, 0]) == starts_anew


def test_people_come_and_go_and_nobody_without_an_id_is_changed() -> None:
    smooth = OneEuroFilter()
    first = frames(1)[0]
    both = np.stack([first, first + (200, 0, 0)])
    np.testing.assert_array_equal(smooth([4, -1], both, 0.0), both)
    moved = both + (9, 0, 0)
    result = smooth([-1, 4], moved[::-1], 0.1)
    np.testing.assert_array_equal(result[0], moved[1])
    assert (result[1, :, 0] < moved[0, :, 0]).all() and (result[1, :, 0] > both[0, :, 0]).all()
    np.testing.assert_array_equal(smooth([9], both[:1], 5.0), both[:1])
    np.testing.assert_array_equal(smooth([4], moved[:1], 5.1), moved[:1])
    assert smooth([], both[:0], 5.2).shape == (0, JOINTS, 3)


def test_who_was_missing_for_a_moment_is_filtered_on() -> None:
    smooth = OneEuroFilter()
    first = frames(1)
    smooth([4], first, 0.0)
    smooth([9], first, 0.2)
    moved = first + (9, 0, 0)
    assert (smooth([4], moved, 0.4)[..., 0] < moved[..., 0]).all()


def test_a_body_of_one_joint_has_a_size_of_one_pixel() -> None:
    """Id 0 is a person like any other."""
    people = frames(6)[:, :1]
    times = [n / 10 for n in range(6)]
    smooth = OneEuroFilter(min_cutoff=0.7, beta=2.0)
    got = [smooth([0], person[None], time)[0, 0, :2] for person, time in zip(people, times)]
    np.testing.assert_allclose(got, plain(people[:, 0, :2], times, 1.0, 0.7, 2.0), atol=1e-9)


def test_who_left_is_forgotten_while_others_stay() -> None:
    smooth = OneEuroFilter()
    first = frames(1)
    smooth([4, 9], np.concatenate([first, first]), 0.0)
    smooth([9], first, 0.9)
    smooth([9], first, 1.8)
    assert smooth._ids.tolist() == [9]
