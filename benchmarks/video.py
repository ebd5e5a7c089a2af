"""Benchmarks of what is done with the people of a frame: drawing, tracking, smoothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Bench, Row, benchmark

FRAME_SIZE = (2160, 3840)  # 4K: height, width
PEOPLE = 30
GOAL_MS = 50.0
# A standing person, in heights.
POSE = (
    *((0.25, 0.08), (0.265, 0.06), (0.235, 0.06), (0.285, 0.08), (0.215, 0.08)),
    *((0.325, 0.2), (0.175, 0.2), (0.375, 0.35), (0.125, 0.35), (0.4, 0.5), (0.1, 0.5)),
    *((0.3, 0.52), (0.2, 0.52), (0.31, 0.75), (0.19, 0.75), (0.315, 0.97), (0.185, 0.97)),
)


def crowd(count: int) -> NDArray[np.float64]:
    """Keypoints (count, K, 3) of people of 200 to 900 px, anywhere in the frame."""
    rng = np.random.default_rng(0)
    height, width = FRAME_SIZE
    sizes = rng.uniform(0.09, 0.42, (count, 1, 1)) * height
    corners = rng.uniform(0, (0.9 * width, 0.55 * height), (count, 2))
    points = np.asarray(POSE) * sizes + corners[:, None]
    return np.concatenate([points, np.full((*points.shape[:2], 1), 0.9)], axis=2)


@benchmark
def drawing(bench: Bench) -> Iterator[Row]:
    """People on a frame of 4K, with the copy of the frame; sure joints, and unsure ones."""
    from swahr.skeleton import COCO
    from swahr.visualize import draw_people

    frame = np.full((*FRAME_SIZE, 3), 120, np.uint8)
    people = crowd(PEOPLE)
    scores = np.full(PEOPLE, 0.5)

    def row(case: str, unsure: float) -> Row:
        return bench.row(
            "drawing",
            f"{PEOPLE} people on {FRAME_SIZE[1]} x {FRAME_SIZE[0]}, joints {case}",
            None,
            lambda: draw_people(frame, people, COCO, scores, unsure=unsure),
            goal_ms=GOAL_MS,
        )

    cases = {"sure": 0.0, "unsure": 1.0}
    yield from bench.each("drawing", {case: partial(row, case, cases[case]) for case in cases})


@benchmark
def tracking(bench: Bench) -> Iterator[Row]:
    """Ids and smooth joints of the people of one frame more."""
    from swahr.inference.smoothing import OneEuroFilter
    from swahr.inference.tracking import Tracker
    from swahr.skeleton import COCO

    people = crowd(PEOPLE)
    scores = np.ones(PEOPLE)
    tracker = Tracker(COCO.sigmas)
    smooth = OneEuroFilter()
    times = iter(range(1 << 30))

    def ours() -> NDArray[np.floating]:
        time = next(times) / 30
        return smooth(tracker(people, scores, time), people, time)

    yield bench.row("tracking", f"{PEOPLE} people", None, ours)
