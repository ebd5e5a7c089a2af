"""Distances in pixels and PCK of a set with keypoints of its own."""

from __future__ import annotations

import numpy as np
import pytest

from swahr.converters.lsp import SKELETON as LSP
from swahr.evaluation.matching import checked_run
from swahr.evaluation.pixels import PIXEL_NAMES, needs_pixels, pixel_figures
from swahr.evaluation.records import EvaluationError
from swahr.skeleton import COCO, CROWD_POSE
from tests.report.made import SKELETON, found, person, truth, unlabel


def test_only_keypoints_of_ones_own_need_them() -> None:
    assert needs_pixels(SKELETON)
    assert not needs_pixels(COCO) and not needs_pixels(CROWD_POSE)


def test_distances_of_what_was_found_and_pck_of_all_that_is_labelled() -> None:
    """Nine labelled keypoints; four are found at 0, 3, 3 and 30 px, and one has no score. Another
    person is missed.
    """
    record = found(off=0, move={1: (3, 0), 2: (0, 3), 3: (30, 0)})
    record["keypoints"][3 * 4 : 3 * 5] = [0, 0, 0]
    annotations = truth(person(1), unlabel(person(2, place=1), 0))
    figures = pixel_figures(checked_run(annotations, [record], SKELETON))
    mean, median, pck = (figures[name] for name in PIXEL_NAMES)
    assert (mean, median) == (9, 3)
    assert pck == pytest.approx(4 / 9)  # 30 px are less than a fifth of the box of 200 px


def test_records_without_scores_of_keypoints_have_all_keypoints() -> None:
    record = found(off=3)
    record["keypoints"][2::3] = [0] * 5
    figures = pixel_figures(checked_run(truth(person(1)), [record], SKELETON))
    assert list(figures.values()) == [3, 3, 1]


def test_people_who_are_ignored_are_not_measured() -> None:
    annotations = truth(person(1), person(2, place=1, iscrowd=1))
    run = checked_run(annotations, [found(off=3), found(place=1, off=9)], SKELETON)
    assert list(pixel_figures(run).values()) == [3, 3, 1]


def test_nobody_found_and_nobody_labelled() -> None:
    assert list(pixel_figures(checked_run(truth(person(1)), [], SKELETON)).values()) == [-1, -1, 0]
    assert list(pixel_figures(checked_run(truth(), [found()], SKELETON)).values()) == [-1, -1, -1]


def test_records_are_checked() -> None:
    with pytest.raises(EvaluationError, match="result 0 is of image 7"):
        pixel_figures(checked_run(truth(person(1)), [found(image=7)], SKELETON))


def test_photographs_of_leeds_sports_pose_are_measured_by_the_torso() -> None:
    """The left shoulder is 100 px from the right hip, so that 20 px are near enough."""
    points = np.zeros((14, 3))
    points[:, 0] = np.arange(14) * 10
    points[:, 2] = 2
    points[LSP.keypoints.index("left_shoulder"), :2] = 300, 0
    points[LSP.keypoints.index("right_hip"), :2] = 300, 100
    fields = {"keypoints": points.ravel().tolist(), "num_keypoints": 14, "bbox": [0, 0, 900, 900]}
    annotations = truth({**person(1), **fields, "area": 400000})
    near = points + [0, 20, 0]
    near[0, 1] += 1
    record = {**found(), "keypoints": near.ravel().tolist()}
    assert needs_pixels(LSP)
    run = checked_run(annotations, [record], LSP)
    assert pixel_figures(run)["PCK 0.2"] == pytest.approx(13 / 14)
