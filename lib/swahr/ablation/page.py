"""The page of a comparison: tables in Markdown and links to the charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from swahr.ablation.charts import Results, height_chart, loss_chart, scale_chart
from swahr.ablation.figures import OVERALL, RunFigures, Spread, differences, spread
from swahr.ablation.plan import AblationError
from swahr.ablation.scale_maps import width_factor
from swahr.evaluation.figures import UNDEFINED, is_defined
from swahr.evaluation.pixels import PIXEL_NAMES
from swahr.files import make_folder, write_text
from swahr.report.breakdown import CONFIDENCE, RESAMPLES, Interval, octave_name, octave_of

BEGIN = "<!-- made by tools/run_ablation.py: begin -->"
END = "<!-- made by tools/run_ablation.py: end -->"
SHOWN = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "swapped joints", "images with swaps")
SHOWN_IF_THERE = PIXEL_NAMES  # figures of sets with keypoints of their own
UNDEFINED_CELL = "-"


def write_page(
    path: str | Path,
    results: Results,
    *,
    baseline: str,
    conditions: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> list[Path]:
    """Write the page, and its charts beside it; returns all files.

    results: {label: {seed: figures}}, each with at least one seed. baseline: label of what the
    others are compared with; all its runs may have failed. conditions: lines on how it was
    measured. failed: {run: why}. In a file that is there already, the part between BEGIN and END
    is replaced and the rest kept. Raises AblationError for a file without them, WriteError where
    nothing can be written.
    """
    path = Path(path)
    before, after = _around(path)
    charts = {"height": height_chart(results), "loss": loss_chart(results)}
    if any(each.scales is not None for runs in results.values() for each in runs.values()):
        charts["scale"] = scale_chart(results)
    links = {kind: path.with_name(f"{path.stem}_{kind}.svg") for kind in charts}
    blocks = _blocks(results, baseline, links, conditions, failed or {}, resamples)
    for kind, svg in charts.items():
        write_text(links[kind], svg)
    write_text(path, "\n".join([*before, BEGIN, "", "\n\n".join(blocks), "", END, *after]) + "\n")
    return [path, *links.values()]


def _around(path: Path) -> tuple[list[str], list[str]]:
    """The lines of a page before and after the part that is replaced."""
    if not path.exists():
        return [f"# {path.stem}", ""], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AblationError(f"{path}: is no page of text ({error}); give another --out") from None
    if lines.count(BEGIN) != 1 or lines.count(END) != 1 or lines.index(BEGIN) > lines.index(END):
        raise AblationError(f"{path}: has no lines {BEGIN} and {END}; give another --out")
    return lines[: lines.index(BEGIN)], lines[lines.index(END) + 1 :]


def check_page(path: str | Path) -> None:
    """Make the folder of the page. Raises AblationError where `write_page` could not replace its
    part of the file, WriteError where there can be no such folder.
    """
    _around(Path(path))
    make_folder(Path(path).parent)


def _blocks(
    results: Results,
    baseline: str,
    links: Mapping[str, Path],
    conditions: Sequence[str],
    failed: Mapping[str, str],
    resamples: int,
) -> list[str]:
    blocks = [
        "\n".join(f"- {line}" for line in conditions),
        "Mean ± standard deviation over the seeds. Swapped joints were given to the wrong person.",
        _stats_table(results),
        *_difference_blocks(results, baseline, resamples),
        "AP by octave of a person's height, that of the box in pixels of the image; number of "
        "people in brackets.",
        _octave_table(results),
        _image("AP against height", links["height"]),
    ]
    if "scale" in links:
        blocks += [
            "The scale maps at the joints: mean value s, and the width 1 / sqrt(1 + s) that it "
            "gives a Gaussian relative to the usual one, by resolution from low to high.",
            _scale_table(results),
            _image("width of Gaussians against height", links["scale"]),
        ]
    blocks += [
        "AP by keypoint.",
        _keypoint_table(results),
        "Loss of each epoch of training. Losses of different kinds cannot be compared.",
        _image("loss against epoch", links["loss"]),
    ]
    if failed:
        blocks.append("Runs that failed:")
        blocks.append("\n".join(f"- {name}: {why}" for name, why in failed.items()))
    return [block for block in blocks if block]


def _stats_table(results: Results) -> str:
    there = _any(next(iter(results.values()))).stats
    names = [*SHOWN, *(name for name in SHOWN_IF_THERE if name in there)]
    rows = []
    for label, runs in results.items():
        spreads = [
            spread([each.stats.get(name, UNDEFINED) for each in runs.values()]) for name in names
        ]
        rows.append([label, str(len(runs)), *map(_spread, spreads)])
    return _table(["", "seeds", *names], rows)


def _difference_blocks(results: Results, baseline: str, resamples: int) -> list[str]:
    """What the table of differences says, and the table. One line in their place where all runs of
    the baseline failed, nothing without others.
    """
    others = {label: runs for label, runs in results.items() if label != baseline}
    if not others:
        return []
    if baseline not in results:
        return [f"No differences are shown, because no run of the baseline {baseline} is done."]
    names = [*OVERALL, *_any(results[baseline]).octaves]
    rows = []
    for label, runs in others.items():
        found = differences(results[baseline], runs, resamples)
        cells = [_interval(found[name]) if name in found else UNDEFINED_CELL for name in names]
        rows.append([label, *cells])
    return [
        f"Difference from {baseline}, of the seeds that both have, with the {CONFIDENCE:.0%} "
        f"interval of a paired bootstrap over images and seeds ({resamples} draws). With few seeds "
        "the interval is rather too narrow.",
        _table(["", *names], rows),
    ]


def _octave_table(results: Results) -> str:
    people = _any(next(iter(results.values()))).people
    rows = [
        [label, *(_over_seeds([each.octaves[name] for each in runs.values()]) for name in people)]
        for label, runs in results.items()
    ]
    return _table(["", *(f"{name} ({count})" for name, count in people.items())], rows)


def _keypoint_table(results: Results) -> str:
    names = list(_any(next(iter(results.values()))).keypoints)
    rows = [
        [name, *(_over_seeds([each.keypoints[name] for each in runs.values()]) for runs in columns)]
        for columns in [list(results.values())]
        for name in names
    ]
    return _table(["", *results], rows)


def _scale_table(results: Results) -> str:
    """A row for each configuration and resolution, a column for each octave."""
    used = {
        label: [each.scales for each in runs.values() if each.scales is not None]
        for label, runs in results.items()
    }
    used = {label: readings for label, readings in used.items() if readings}
    octaves = np.unique(
        np.concatenate([octave_of(each.heights) for group in used.values() for each in group])
    )
    rows = []
    for label, readings in used.items():
        bins = np.concatenate([octave_of(each.heights) for each in readings])
        scales = np.concatenate([each.scales for each in readings], axis=1)
        for stage, values in enumerate(scales):
            means = [_mean(values[bins == octave]) for octave in octaves]
            rows.append([f"{label}, resolution {stage + 1}", *map(_scale, means)])
    return _table(["", *(octave_name(int(octave)) for octave in octaves)], rows)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _scale(mean: float) -> str:
    return UNDEFINED_CELL if math.isnan(mean) else f"{mean:+.3f} ({width_factor(mean):.2f}x)"


def _any(runs: Mapping[int, RunFigures]) -> RunFigures:
    return next(iter(runs.values()))


def _over_seeds(values: Sequence[float]) -> str:
    return _spread(spread(values))


def _spread(value: Spread) -> str:
    if not is_defined(value.mean):
        return UNDEFINED_CELL
    if math.isnan(value.deviation):
        return f"{value.mean:.3f}"
    return f"{value.mean:.3f} ± {value.deviation:.3f}"


def _interval(value: Interval) -> str:
    if math.isnan(value.difference):
        return UNDEFINED_CELL
    return f"{value.difference:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def _image(text: str, path: Path) -> str:
    return f"![{text}]({path.name})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
