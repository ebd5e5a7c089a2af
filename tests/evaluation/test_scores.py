"""All figures of annotations and results."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from swahr.evaluation.matching import checked_run
from swahr.evaluation.metrics import LOWER_IS_BETTER, METRICS, NAMES, evaluate
from swahr.evaluation.pixels import PIXEL_NAMES, pixel_figures
from swahr.evaluation.scores import MetricError, figure_names, is_better, own_figures, score
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
    assert set(PIXEL_NAMES[:2]) <= LOWER_IS_BETTER
    assert is_better("AP", 0.2, 0.1) and not is_better("AP", 0.1, 0.1)
    for name in LOWER_IS_BETTER:
        assert is_better(name, 1, 2) and not is_better(name, 2, 2)


def test_a_module_says_of_its_own_figure_that_less_is_better() -> None:
    assert is_better("my error px", 2, 1)
    LOWER_IS_BETTER.add("my error px")
    try:
        assert is_better("my error px", 1, 2) and not is_better("my error px", 2, 1)
    finally:
        LOWER_IS_BETTER.remove("my error px")


COCO_SET: Any = SimpleNamespace(skeleton=COCO)
MADE_SET: Any = SimpleNamespace(skeleton=SKELETON)


@pytest.mark.parametrize("dataset, name", [(COCO_SET, "AP (M)"), (MADE_SET, PIXEL_NAMES[0])])
def test_a_metric_replaces_no_figure_of_the_scoring(
    dataset: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, name, lambda dataset, records: 1.0)
    said = (
        r"^METRICS\['.*'\]: the scoring itself gives a figure of this name; give the metric anothe"
    )
    with pytest.raises(MetricError, match=said):
        figure_names(dataset.skeleton, "coco")
    with pytest.raises(MetricError, match=said):
        own_figures(dataset, [], "coco")


def test_a_metric_may_have_the_name_of_a_figure_that_this_scoring_does_not_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METRICS, PIXEL_NAMES[0], lambda dataset, records: 1.0)
    monkeypatch.setitem(METRICS, "AP (easy)", lambda dataset, records: 2.0)
    assert own_figures(COCO_SET, [], "coco") == {PIXEL_NAMES[0]: 1.0, "AP (easy)": 2.0}


@pytest.mark.parametrize(
    "value",
    [
        *(None, {"AP": 0.5}, "0.5", b"1", [1.0], 1j, 10**400),
        *(np.ones(2), torch.ones(2), torch.ones(1, device="meta")),
    ],
)
def test_a_metric_that_returns_no_number_is_named(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "mine", lambda dataset, records: value)
    said = r"^METRICS\['mine'\]: returned [^\n]+; it must return a number$"
    with pytest.raises(MetricError, match=said):
        own_figures(COCO_SET, [], "coco")


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2), torch.tensor(2.0)])
def test_numbers_of_all_kinds_are_figures(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "mine", lambda dataset, records: value)
    figure = own_figures(COCO_SET, [], "coco")["mine"]
    assert type(figure) is float and figure == 2


def test_a_metric_changes_no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the list, nor a record, nor its keypoints."""

    def spoil(dataset: Any, records: list[dict[str, Any]]) -> float:
        records[0]["keypoints"][0] = 999
        records[0]["score"] = 0
        records.clear()
        return 0.0

    monkeypatch.setitem(METRICS, "first", spoil)
    monkeypatch.setitem(METRICS, "second", lambda dataset, records: records[0]["keypoints"][0])
    records = [{"keypoints": [1, 2, 3], "score": 0.5}]
    assert own_figures(COCO_SET, records, "coco")["second"] == 1
    assert records == [{"keypoints": [1, 2, 3], "score": 0.5}]
