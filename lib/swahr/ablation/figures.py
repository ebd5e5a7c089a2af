"""The figures of finished runs, and the differences between configurations."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from swahr.ablation.plan import AblationError, PlannedRun
from swahr.ablation.scale_maps import ScaleReadings, load_scales, read_scales, save_scales
from swahr.data.keypoints import dataset_spec
from swahr.engine.datasets import build_validation_set
from swahr.engine.provenance import sha256
from swahr.evaluation.figures import UNDEFINED, is_defined
from swahr.evaluation.matching import (
    Floats,
    Ints,
    Matches,
    Run,
    match,
    precision_recall,
)
from swahr.evaluation.records import read_json
from swahr.evaluation.scores import score
from swahr.inference.load import load_network
from swahr.report.breakdown import (
    Interval,
    height_octaves,
    keypoint_figures,
    nan_if_undefined,
    percentiles,
)
from swahr.report.errors import find_errors

OVERALL = ("AP", "AP .5", "AP .75")
SCALES = "scales.npz"


@dataclass(frozen=True)
class RunFigures:
    """The figures of one run.

    stats: AP and the like by name, the shares of swaps, and pixel_figures where needed. octaves: AP
    by octave of height. people: their number in each octave. keypoints: AP by keypoint. run,
    matches: of AP and of each octave, for the bootstrap. curves: {name: a value for each epoch} of
    the losses. scales: None where nothing adapts the scale, or see read_scales.
    """

    stats: dict[str, float]
    octaves: dict[str, float]
    people: dict[str, int]
    keypoints: dict[str, float]
    run: Run
    matches: dict[str, Matches]
    curves: dict[str, list[float]]
    scales: ScaleReadings | None


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over the seeds; NaN for one seed."""

    mean: float
    deviation: float


def collect(planned: PlannedRun, device: torch.device) -> RunFigures:
    """The figures of a run that is done. The scale maps are read once and kept in its folder.

    Raises ValueError or OSError, in one line, for files that cannot be used.
    """
    cfg = planned.cfg
    dataset = build_validation_set(cfg)
    records = read_json(planned.results, "results", list)
    protocol = dataset_spec(cfg, train=False).protocol
    stats, run, swaps = score(dataset.coco, records, dataset.skeleton, protocol)
    stats |= {"swapped joints": swaps.joint_share, "images with swaps": swaps.image_share}
    matches = {"AP": match(run)}
    for name, people, found in height_octaves(run):
        matches[name] = match(run, counted=people, found_counted=found)
    octaves = [name for name in matches if name != "AP"]
    scales = None
    if cfg.LOSS.SCALE_ADAPTIVE:
        scales = _scales(planned, device)
    return RunFigures(
        stats=stats,
        octaves={name: float(precision_recall(run, matches[name])[0].mean()) for name in octaves},
        people={name: int(matches[name].positives.sum()) for name in octaves},
        keypoints={each.name: each.ap for each in keypoint_figures(run, find_errors(run))},
        run=run,
        matches=matches,
        curves=read_curves(planned.curves),
        scales=scales,
    )


def _scales(planned: PlannedRun, device: torch.device) -> ScaleReadings | None:
    path = planned.folder / SCALES
    digest = sha256(planned.weights)
    readings = load_scales(path, digest)
    if readings is None:
        model = load_network(planned.cfg, planned.weights, device)
        dataset = build_validation_set(planned.cfg)
        readings = read_scales(model, dataset, planned.cfg.DATASET.INPUT_SIZE, device)
        if readings is not None:
            save_scales(path, readings, digest)
    return readings


def read_curves(path: Path) -> dict[str, list[float]]:
    """{name: a value for each epoch} of results.csv; {} where it is not there.

    Raises AblationError for a line that has not one number, or nothing, for each name.
    """
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        table = csv.reader(file)
        try:
            names = next(table, [])
            rows = [_numbers(line, len(names)) for line in table if line]
        except (ValueError, csv.Error) as error:
            raise AblationError(f"{path}:{table.line_num}: {error}") from None
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names) if rows}
    return {
        name: [value for value in values if value is not None]
        for name, values in columns.items()
        if None not in values
    }


def _numbers(line: Sequence[str], count: int) -> list[float | None]:
    """The values of a line of results.csv, None for empty ones. Raises ValueError where they are
    not numbers, or not `count`.
    """
    if len(line) != count:
        raise ValueError(f"has {len(line)} values; the first line names {count}")
    return [float(text) if text else None for text in line]


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of a figure over seeds; undefined figures are left out."""
    defined = [value for value in values if is_defined(value)]
    mean = float(np.mean(defined)) if defined else UNDEFINED
    deviation = float(np.std(defined, ddof=1)) if len(defined) > 1 else float("nan")
    return Spread(mean, deviation)


def differences(
    baseline: Mapping[int, RunFigures],
    other: Mapping[int, RunFigures],
    resamples: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """OVERALL and AP by octave of height of `other` less those of `baseline`, both {seed: figures}
    on the same images, with a paired bootstrap interval over images and seeds.

    The seeds that both have are compared. In each of `resamples` draws, images and seeds are drawn
    with replacement, and both are scored on the same ones. {} without common seeds.
    """
    seeds = sorted(set(baseline) & set(other))
    if not seeds:
        return {}
    random = np.random.default_rng(seed)
    pairs = [(baseline[number], other[number]) for number in seeds]
    whole = _mean_difference(pairs, None)
    images = len(pairs[0][0].run.truth.image_ids)
    draws = np.empty((resamples, len(whole)))
    for draw in range(resamples):
        chosen = [pairs[index] for index in random.integers(0, len(pairs), len(pairs))]
        weights = np.bincount(random.integers(0, images, images), minlength=images)
        draws[draw] = _mean_difference(chosen, weights)
    names = (*OVERALL, *list(pairs[0][0].matches)[1:])
    return {
        name: Interval(float(whole[column]), *percentiles(draws[:, column]))
        for column, name in enumerate(names)
    }


def _mean_difference(
    pairs: Sequence[tuple[RunFigures, RunFigures]], weights: Ints | None
) -> Floats:
    scored: dict[int, Floats] = {}
    for figures in (figures for pair in pairs for figures in pair):
        if id(figures) not in scored:  # a seed may be drawn several times
            scored[id(figures)] = _scores(figures, weights)
    values = [scored[id(other)] - scored[id(base)] for base, other in pairs]
    return np.mean(values, axis=0)


def _scores(figures: RunFigures, weights: Ints | None) -> Floats:
    """OVERALL and AP by octave; NaN where nobody counts."""
    tables = [precision_recall(figures.run, each, weights)[0] for each in figures.matches.values()]
    first = tables[0]
    values = [first.mean(), first[0].mean(), first[5].mean()]
    values += [table.mean() for table in tables[1:]]
    return nan_if_undefined(values)
