"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from swahr.data.images import ImageStore
from swahr.evaluation import pixels
from swahr.evaluation.figures import is_defined
from swahr.evaluation.matching import Run, average_precision, load_run, match, precision_recall
from swahr.evaluation.metrics import EvaluationError, evaluate
from swahr.report import breakdown, charts
from swahr.report.errors import ERRORS, KEYPOINT_ERRORS, Errors, corrected_ap, find_errors
from swahr.report.gallery import Card, DrawMaps, make_card
from swahr.skeleton import Skeleton
from swahr.words import counted

TEMPLATE = Path(__file__).with_name("page.html")
# Result records, which could be scored -> figures by name, see scores.own_figures.
OwnFigures = Callable[[Sequence[Mapping[str, Any]]], dict[str, float]]
CURVES = {"0.5": 0, "0.75": 5, "0.95": 9}  # rows of the OKS thresholds
MEANINGS = {
    "miss": "keypoints that are far from every place they could mean",
    "swap": "keypoints on another person",
    "inversion": "keypoints on the same person's other side",
    "jitter": "keypoints a little off their place",
    "score": "people for whom a better detection had a lower score",
    "double": "detections of a person who has a detection already",
    "background": "detections of nobody",
    "missed": "people without a detection",
}


class ReportError(ValueError):
    """A report that cannot be made; the message says why and what helps."""


def check_libraries() -> None:
    """ReportError where a library of the extra "report" is not installed."""
    for name in ("jinja2", "matplotlib"):
        if find_spec(name) is None:
            raise ReportError(f"the report needs {name}: pip install {name}")


def make_report(
    truth: Mapping[str, Any],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    skeleton: Skeleton,
    protocol: str = "coco",
    images: ImageStore | None = None,
    worst: int = 24,
    draw_maps: DrawMaps | None = None,
    own: OwnFigures | None = None,
) -> str:
    """The HTML of a report on one set of results, or on two side by side.

    truth: annotations in COCO's format. results: records by the name of the run, of one or two
    runs. images: where the annotated images are; without them people are drawn on grey. worst: how
    many images are shown. draw_maps: draws the maps of the first run's network, see gallery. own:
    gives the figures of the user's metrics. Raises EvaluationError for annotations and records that
    do not fit, ReportError where a library is missing, and what `own` raises.
    """
    check_libraries()
    import jinja2

    runs = [
        _run_report(name, truth, records, skeleton, protocol, own)
        for name, records in results.items()
    ]
    names = [run.name for run in runs]
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    environment.filters["figure"] = _figure
    environment.filters["cost"] = _cost
    environment.filters["pixels"] = _pixels
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    infos = {info["id"]: info for info in truth["images"]}
    cards = _worst_cards(runs, infos, images, worst, draw_maps)
    return template.render(
        runs=runs,
        skeleton=skeleton,
        protocol=protocol,
        errors=ERRORS,
        meanings=MEANINGS,
        colors=charts.KIND_COLORS,
        intervals=breakdown.compare(runs[0].run, runs[1].run) if len(runs) > 1 else {},
        confidence=f"{breakdown.CONFIDENCE:.0%}",
        near=pixels.NEAR,
        pck_name=pixels.PIXEL_NAMES[-1],
        pck_length="the torso" if pixels.torso(skeleton) else "the longer side of the box",
        charts={
            "pr": charts.pr_chart([run.curves for run in runs], names),
            "costs": charts.cost_chart([run.costs for run in runs], names),
            "size": charts.group_chart("size", [run.sizes for run in runs], names),
            "crowding": charts.group_chart("crowding", [run.crowding for run in runs], names),
            "keypoints": [charts.keypoint_chart(run.keypoints) for run in runs],
            "calibration": charts.calibration_chart([run.bins for run in runs], names),
        },
        cards=cards,
        with_maps=draw_maps is not None,
        cards_with={kind: sum(kind in card.kinds for card in cards) for kind in ERRORS},
    )


def _run_report(name: str, *given: Any) -> _RunReport:
    """`_RunReport` of a run whose name errors say."""
    try:
        return _RunReport(name, *given)
    except EvaluationError as error:
        raise EvaluationError(f"{name}: {error}") from None


class _RunReport:
    """Every figure of one run, as the template reads them."""

    def __init__(
        self,
        name: str,
        truth: Mapping[str, Any],
        records: Sequence[Mapping[str, Any]],
        skeleton: Skeleton,
        protocol: str,
        own: OwnFigures | None,
    ) -> None:
        self.name = name
        self.stats = evaluate(truth, records, skeleton, protocol)
        self.own = own(records) if own else {}
        self.run: Run = load_run(truth, records, skeleton, protocol)
        self.errors: Errors = find_errors(self.run)
        matches = match(self.run)
        self.ap = average_precision(self.run, matches)
        precision, _ = precision_recall(self.run, matches)
        self.curves = {name: precision[row] for name, row in CURVES.items()}
        self.counts = {kind: self.errors.count(kind) for kind in ERRORS}
        self.judged = int((self.errors.kinds >= 0).sum())
        self.people = int(matches.positives.sum())
        self.detections = len(self.run.found.scores)
        corrected = {kind: corrected_ap(self.run, self.errors, (kind,)) for kind in ERRORS}
        self.costs = {
            kind: ap - self.ap if is_defined(ap) else math.nan for kind, ap in corrected.items()
        }
        self.cumulative = {
            kind: corrected_ap(self.run, self.errors, ERRORS[: place + 1])
            for place, kind in enumerate(ERRORS)
        }
        self.sizes = breakdown.by_size(self.run)
        self.crowding = breakdown.by_crowding(self.run)
        self.keypoints = breakdown.keypoint_figures(self.run, self.errors)
        self.pck = pixels.pck(self.run, self.errors.person)
        distances = pixels.pixel_errors(self.run, self.errors.person)
        self.mean_error, self.median_error = pixels.mean_and_median(distances)
        self.bins = breakdown.calibration(self.run)
        self.calibration_error = breakdown.calibration_error(self.bins)
        self.threshold, self.f1, self.precision, self.recall = breakdown.best_threshold(self.run)

    def share(self, kind: str) -> float:
        """Share of the judged keypoints, detections or people that have errors of a kind."""
        if kind in KEYPOINT_ERRORS:
            total = self.judged
        else:
            total = self.detections if kind in ("double", "background") else self.people
        return self.counts[kind] / total if total else 0.0


def _worst_cards(
    runs: Sequence[_RunReport],
    infos: Mapping[int, Mapping[str, Any]],
    images: ImageStore | None,
    worst: int,
    draw_maps: DrawMaps | None,
) -> list[Card]:
    losses = breakdown.image_losses(runs[0].run, runs[0].errors, runs[0].threshold)
    order = np.argsort(-losses, kind="stable")[:worst].tolist()
    parts = [(run.name, run.run, run.errors, run.threshold) for run in runs]
    ids = runs[0].run.truth.image_ids.tolist()
    return [
        make_card(index, float(losses[index]), parts, infos[ids[index]], images, draw_maps)
        for index in order
        if losses[index] > 0
    ]


def _figure(value: float, decimals: int = 3) -> str:
    """A figure as text; - where it is undefined."""
    return f"{value:.{decimals}f}" if is_defined(value) else "-"


def _pixels(value: float) -> str:
    """A distance in pixels as text."""
    return f"{value:.1f} px" if is_defined(value) else "undefined"


def _cost(value: float) -> str:
    """A difference as text, with its sign; - where it is undefined, which is NaN: -1 is defined."""
    return "-" if math.isnan(value) else f"{value:+.3f}"
