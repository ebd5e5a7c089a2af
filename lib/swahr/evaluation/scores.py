"""Every figure of a validation that annotations and results give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from swahr.evaluation.matching import Run, checked_run
from swahr.evaluation.metrics import METRICS, NAMES, evaluate
from swahr.evaluation.pixels import PIXEL_NAMES, needs_pixels, pixel_figures
from swahr.evaluation.swaps import Swaps, count_swaps
from swahr.skeleton import Skeleton

LOWER_IS_BETTER = PIXEL_NAMES[:2]  # the figures that are distances


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
    """The names of the figures that a validation gives."""
    pixels = PIXEL_NAMES if needs_pixels(skeleton) else ()
    return [*NAMES[protocol], *pixels, *METRICS]
