"""Curves and bars of the report, as SVG that takes the page's text colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from swahr.evaluation.matching import RECALLS, Floats
from swahr.report.breakdown import Group, KeypointFigures, ScoreBin
from swahr.report.errors import KEYPOINT_ERRORS

# Medium tones, which can be told from white and from nearly black.
RUN_COLORS = ("#3b82f6", "#f59e0b")
CURVE_COLORS = {"0.5": "#22a06b", "0.75": "#3b82f6", "0.95": "#a855f7"}
LINE_STYLES = ("-", "--")
KIND_COLORS = {
    "jitter": "#eab308",
    "inversion": "#a855f7",
    "swap": "#ef4444",
    "miss": "#64748b",
    "score": "#3b82f6",
    "double": "#f97316",
    "background": "#14b8a6",
    "missed": "#ec4899",
}
INK = "#010203"  # replaced by currentColor in the SVG
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # comes with matplotlib; the page shows its own
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
NAME_LENGTH = 26  # characters of a run's name in a legend
WIDTH = 5.4  # inches of a chart that stands beside another


def pr_chart(curves: Sequence[dict[str, Floats]], names: Sequence[str]) -> str:
    """Precision against recall; one dict {OKS threshold: precision (101,)} a run."""

    def draw(axes: Any) -> None:
        for run, style in zip(curves, LINE_STYLES):
            for threshold, precision in run.items():
                axes.plot(RECALLS, precision, style, color=CURVE_COLORS[threshold])
        for threshold, color in CURVE_COLORS.items():
            axes.plot([], [], color=color, label=f"OKS {threshold}")
        if len(curves) > 1:
            for name, style in zip(names, LINE_STYLES):
                axes.plot([], [], style, color=INK, label=_shortened(name))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.figure.legend(loc="outside upper left", ncols=len(CURVE_COLORS))

    return _svg("pr", draw, WIDTH, 3.6)


def cost_chart(costs: Sequence[dict[str, float]], names: Sequence[str]) -> str:
    """AP that each kind of error costs; one dict {kind: AP} a run."""
    return _bars("costs", costs, names, "AP that correcting it brings", KIND_COLORS)


def group_chart(name: str, groups: Sequence[Sequence[Group]], names: Sequence[str]) -> str:
    """AP of groups of people; one list a run, of the same groups. Groups of nobody are left out."""
    values = [
        {f"{group.name}\n({group.people})": group.ap for group in run if group.people}
        for run in groups
    ]
    return _bars(name, values, names, "AP", {}, upright=True)


def keypoint_chart(figures: Sequence[KeypointFigures]) -> str:
    """Share of each kind of error among the judged keypoints, stacked, a bar for each keypoint."""

    def draw(axes: Any) -> None:
        totals = [max(sum(each.kinds.values()), 1) for each in figures]
        left = [0.0] * len(figures)
        for kind in KEYPOINT_ERRORS:
            shares = [each.kinds[kind] / total for each, total in zip(figures, totals)]
            axes.barh(range(len(figures)), shares, left=left, color=KIND_COLORS[kind], label=kind)
            left = [start + share for start, share in zip(left, shares)]
        axes.set_yticks(range(len(figures)), [each.name for each in figures])
        axes.invert_yaxis()
        axes.set(xlabel="share of the keypoints that were judged", xlim=(0, 1))
        axes.grid(False, axis="y")
        axes.figure.legend(loc="outside upper left", ncols=len(KEYPOINT_ERRORS))

    return _svg("keypoints", draw, WIDTH, 1.1 + 0.22 * len(figures))


def calibration_chart(bins: Sequence[Sequence[ScoreBin]], names: Sequence[str]) -> str:
    """Mean OKS against mean score of each bin, beside the line on which they are equal."""

    def draw(axes: Any) -> None:
        top = max([1.0, *(each.score for run in bins for each in run)])
        axes.plot([0, top], [0, top], ":", color=INK, linewidth=1, label="score = OKS")
        for run, name, color in zip(bins, names, RUN_COLORS):
            scores = [each.score for each in run]
            axes.plot(
                scores, [each.oks for each in run], "o-", ms=4, color=color, label=_shortened(name)
            )
        axes.set(xlabel="mean score", ylabel="mean OKS", xlim=(0, top), ylim=(0, 1.02))
        axes.figure.legend(loc="outside upper left", ncols=3)

    return _svg("calibration", draw, WIDTH, 3.6)


def _bars(
    name: str,
    values: Sequence[dict[str, float]],
    names: Sequence[str],
    label: str,
    colors: dict[str, str],
    upright: bool = False,
) -> str:
    """Bars of {category: value} dicts with the same keys, those of a run beside the other's."""
    categories = list(values[0])
    thickness = 0.72 / len(values)

    def draw(axes: Any) -> None:
        for run, heights in enumerate(values):
            shift = (run - (len(values) - 1) / 2) * thickness
            places = [i + shift for i in range(len(categories))]
            amounts = [heights.get(category, 0.0) for category in categories]
            own = [colors.get(category, RUN_COLORS[0]) for category in categories]
            color = own if len(values) == 1 else RUN_COLORS[run]
            plot = axes.bar if upright else axes.barh
            bars = plot(places, amounts, thickness, color=color, label=_shortened(names[run]))
            axes.bar_label(bars, fmt="{:.3f}", padding=2, fontsize=8)
        if upright:
            axes.set_xticks(range(len(categories)), categories)
            axes.set(ylabel=label, ylim=(0, 1.05))
            axes.grid(False, axis="x")
        else:
            axes.set_yticks(range(len(categories)), categories)
            axes.invert_yaxis()
            axes.set(xlabel=label)
            axes.margins(x=0.12)
            axes.grid(False, axis="y")
        if len(values) > 1:
            axes.figure.legend(loc="outside upper left", ncols=2)

    height = 3.2 if upright else 1.1 + 0.25 * len(categories) * len(values)
    return _svg(name, draw, WIDTH, height)


def _shortened(name: str) -> str:
    """A name that fits a legend: the end of a long one."""
    return name if len(name) <= NAME_LENGTH else "\u2026" + name[1 - NAME_LENGTH :]


def _svg(name: str, draw: Any, width: float, height: float) -> str:
    """An <svg> element with what `draw` puts on its axes; `name` keeps ids of charts apart."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")
