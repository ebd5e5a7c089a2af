"""Charts of a comparison, as SVG files on white, which show on a page of any colour."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from swahr.ablation.figures import RunFigures, spread
from swahr.ablation.plan import AblationError
from swahr.ablation.scale_maps import width_factor
from swahr.report.charts import STYLE

COLORS = ("#3b82f6", "#f59e0b", "#22a06b", "#a855f7", "#ef4444", "#64748b", "#14b8a6", "#ec4899")
SIZE = (6.4, 3.8)  # inches
HEIGHT_BINS = 2  # of the chart of scales, an octave

Results = Mapping[str, Mapping[int, RunFigures]]  # label -> seed -> figures


def check_library() -> None:
    """AblationError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise AblationError("the charts need matplotlib: pip install 'swahr[report]'")


def height_chart(results: Results) -> str:
    """AP against octaves of height, a line for each configuration, with the spread over seeds."""

    def draw(axes: Any) -> None:
        for color, (label, runs) in zip(_colors(results), results.items()):
            figures = list(runs.values())
            names = list(figures[0].octaves)
            spreads = [spread([each.octaves[name] for each in figures]) for name in names]
            means = [each.mean if each.mean >= 0 else np.nan for each in spreads]
            bars = np.nan_to_num([each.deviation for each in spreads])
            places = range(len(names))
            axes.errorbar(places, means, bars, fmt="o-", ms=4, capsize=3, color=color, label=label)
            people = figures[0].people
            axes.set_xticks(places, [f"{name}\n({people[name]})" for name in names])
        axes.set(xlabel="height of the person's box (people)", ylabel="AP", ylim=(0, 1))

    return _svg(draw)


def scale_chart(results: Results) -> str:
    """The width that scale maps give a Gaussian against the person's height, a line for each
    configuration and resolution.
    """

    def draw(axes: Any) -> None:
        for color, (label, runs) in zip(_colors(results), results.items()):
            readings = [each.scales for each in runs.values() if each.scales is not None]
            if not readings:
                continue
            heights = np.concatenate([each.heights for each in readings])
            scales = np.concatenate([each.scales for each in readings], axis=1)
            for stage, (values, style) in enumerate(zip(scales, ("--", "-", ":", "-."))):
                centers, means = binned_means(heights, values)
                widths = [width_factor(mean) for mean in means]
                name = f"{label}, resolution {stage + 1}"
                axes.plot(centers, widths, style, color=color, label=name)
        axes.axhline(1, color="#64748b", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set(xlabel="height of the person's box, px", ylabel="width relative to the usual one")

    return _svg(draw)


def binned_means(
    heights: np.ndarray[Any, Any], values: np.ndarray[Any, Any]
) -> tuple[list[float], list[float]]:
    """Centres of bins of log2 height, HEIGHT_BINS an octave, and the mean value (J,) in each."""
    bins = np.floor(np.log2(np.maximum(heights, 1)) * HEIGHT_BINS).astype(int)
    used = np.unique(bins)
    centers = [float(2 ** ((number + 0.5) / HEIGHT_BINS)) for number in used]
    return centers, [float(values[bins == number].mean()) for number in used]


def loss_chart(results: Results) -> str:
    """The loss of each epoch: a thin line for each run, in the colour of its configuration."""

    def draw(axes: Any) -> None:
        for color, (label, runs) in zip(_colors(results), results.items()):
            for number, figures in enumerate(runs.values()):
                losses = figures.curves.get("loss", [])
                name = label if number == 0 else None
                epochs = range(1, len(losses) + 1)
                axes.plot(epochs, losses, "-", linewidth=1, color=color, label=name)
        axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel="loss")

    return _svg(draw)


def _colors(results: Results) -> Sequence[str]:
    return [COLORS[number % len(COLORS)] for number in range(len(results))]


def _svg(draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**STYLE, "svg.fonttype": "path", "svg.hashsalt": "ablation"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper left", ncols=2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
