"""All figures of annotations and results."""

from __future__ import annotations

from swahr.evaluation.matching import checked_run
from swahr.evaluation.metrics import METRICS, NAMES, evaluate
from swahr.evaluation.pixels import PIXEL_NAMES, pixel_figures
from swahr.evaluation.scores import LOWER_IS_BETTER, figure_names, is_better, score
from swahr.evaluation.swaps import count_swaps
from swahr.skeleton import COCO
from tests.report.made import SKELETON, random_set


def test_the_figures_are_those_of_each_part() -> None:
    truth, records = random_set(1)
    figures, run, swaps = score(truth, records, SKELETON, "coco")
    expected = checked_run(truth, records, SKELETON)
    assert figures == evaluate(truth, records, SKELETON) | pixel_figures(expected)
    assert swaps == count_swaps(expected) == count_swaps(run)
    assert list(figures) == figure_names(SKELETON, "coco")


def test_names_have_pixels_for_own_keypoints_and_the_metrics_of_users() -> None:
    assert figure_names(COCO, "crowd_pose") == list(NAMES["crowd_pose"])
    METRICS["own"] = lambda dataset, records: 1.0
    try:
        assert figure_names(SKELETON, "coco") == [*NAMES["coco"], *PIXEL_NAMES, "own"]
    finally:
        del METRICS["own"]


def test_distances_are_better_where_they_are_lower() -> None:
    assert set(LOWER_IS_BETTER) < set(PIXEL_NAMES)
    assert is_better("AP", 0.2, 0.1) and not is_better("AP", 0.1, 0.1)
    for name in LOWER_IS_BETTER:
        assert is_better(name, 1, 2) and not is_better(name, 2, 2)
