"""Every figure of a validation that annotations and results give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from swahr.evaluation.matching import Run, checked_run
from swahr.evaluation.metrics import LOWER_IS_BETTER, METRICS, NAMES, evaluate
from swahr.evaluation.pixels import PIXEL_NAMES, needs_pixels, pixel_figures
from swahr.evaluation.swaps import Swaps, count_swaps
from swahr.files import shorten
from swahr.skeleton import Skeleton


class MetricError(ValueError):
    """A metric of METRICS that cannot be used. The message is one line that says what would be."""


class Scores(NamedTuple):
    """figures: by name, without METRICS. run: annotations and results as arrays."""

    figures: dict[str, float]
    run: Run
    swaps: Swaps


def score(
    truth: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
    protocol: str,
) -> Scores:
    """Score result records against annotations in COCO's format; see metrics.evaluate for both, and
    for errors. EvaluationError also for people of several categories.
    """
    figures = evaluate(truth, records, skeleton, protocol)
    run = checked_run(truth, records, skeleton, protocol)
    if needs_pixels(skeleton):
        figures |= pixel_figures(run)
    return Scores(figures, run, count_swaps(run))


def is_better(name: str, value: float, other: float) -> bool:
    """Whether a figure is better than another one of the same name."""
    return value < other if name in LOWER_IS_BETTER else value > other


def figure_names(skeleton: Skeleton, protocol: str) -> list[str]:
    """The names of the figures that a validation gives. MetricError: see check_metrics."""
    check_metrics(skeleton, protocol)
    return [*_names_of_score(skeleton, protocol), *METRICS]


def check_metrics(skeleton: Skeleton, protocol: str) -> None:
    """MetricError if a metric has the name of a figure of `score`, which it would replace."""
    taken = _names_of_score(skeleton, protocol)
    for name in METRICS:
        if name in taken:
            raise MetricError(
                f"METRICS[{name!r}]: the scoring itself gives a figure of this name; give the "
                "metric another one"
            )


def own_figures(
    dataset: Any, records: Sequence[Mapping[str, Any]], protocol: str
) -> dict[str, float]:
    """The figures of METRICS, by name.

    dataset: a KeypointDataset. records: such as `score` accepts; each metric gets copies of its
    own. MetricError for a metric that returns no number; see check_metrics too.
    """
    check_metrics(dataset.skeleton, protocol)
    return {
        name: _to_number(name, metric(dataset, [_copy(record) for record in records]))
        for name, metric in METRICS.items()
    }


def _names_of_score(skeleton: Skeleton, protocol: str) -> tuple[str, ...]:
    return (*NAMES[protocol], *(PIXEL_NAMES if needs_pixels(skeleton) else ()))


def _copy(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with lists of its own; copy.deepcopy takes many times as long."""
    return {key: list(value) if isinstance(value, list) else value for key, value in record.items()}


def _to_number(name: str, value: Any) -> float:
    """What a metric returned; NumPy's and PyTorch's numbers are numbers too."""
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is PyTorch's
        pass
    raise MetricError(f"METRICS[{name!r}]: returned {shorten(value)}; it must return a number")
