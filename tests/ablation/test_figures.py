"""Spread over seeds and paired differences, of detections in which every error is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.ablation.figures import RunFigures, differences, read_curves, spread
from swahr.ablation.page import write_page
from swahr.ablation.plan import AblationError
from swahr.evaluation.matching import load_run, match
from swahr.report.breakdown import height_octaves
from tests.report.made import SKELETON, found, person, truth

IMAGES = 12


def figures(right: int) -> RunFigures:
    """One person of 200 px in each image, found in the first `right` images and nowhere else."""
    people = [person(i, image=i) for i in range(1, IMAGES + 1)]
    records = [found(image=i, off=0) for i in range(1, right + 1)]
    run = load_run(truth(*people, images=IMAGES), records, SKELETON)
    matches = {"AP": match(run)}
    for name, group, detections in height_octaves(run):
        matches[name] = match(run, counted=group, found_counted=detections)
    nothing: dict[str, Any] = {}
    return RunFigures({}, nothing, nothing, nothing, run, matches, {}, None)


def test_sets_with_keypoints_of_their_own_show_pixels(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    shown = replace(figures(IMAGES), stats={"AP": 0.5, "PCK 0.2": 0.25})
    write_page(tmp_path / "page.md", {"one": {0: shown}}, baseline="one", resamples=1)
    text = (tmp_path / "page.md").read_text()
    assert "| images with swaps | PCK 0.2 |\n" in text
    assert "| one | 1 | 0.500 | - | - | - | - | - | - | 0.250 |\n" in text


def shown_differences(labels: str, folder: Path) -> list[str]:
    """What the page says of differences from the baseline a, for configurations of these names."""
    pytest.importorskip("matplotlib", reason="needs the extra report")
    results = {label: {0: figures(IMAGES)} for label in labels}
    write_page(folder / "page.md", results, baseline="a", resamples=1)
    blocks = (folder / "page.md").read_text().split("\n\n")
    table = next(place for place, block in enumerate(blocks) if "| seeds |" in block)
    octaves = next(place for place, block in enumerate(blocks) if block.startswith("AP by octave"))
    return blocks[table + 1 : octaves]


@pytest.mark.parametrize(("labels", "rows"), [("ab", "b"), ("bac", "bc")])
def test_differences_are_those_from_the_baseline(labels: str, rows: str, tmp_path: Path) -> None:
    text, table = shown_differences(labels, tmp_path)
    assert text.startswith("Difference from a, of the seeds that both have, with the 95% interval")
    assert [line[:5] for line in table.splitlines()[2:]] == [f"| {label} |" for label in rows]


def test_without_others_nothing_is_said_of_differences(tmp_path: Path) -> None:
    assert shown_differences("a", tmp_path) == []


@pytest.mark.parametrize("labels", ["b", "bc"])
def test_a_baseline_that_failed_is_not_replaced_by_another(labels: str, tmp_path: Path) -> None:
    said = "No differences are shown, because no run of the baseline a is done."
    assert shown_differences(labels, tmp_path) == [said]


def test_octaves_are_those_of_the_height_of_the_box() -> None:
    assert list(figures(1).matches) == ["AP", "128 to 256 px"]


def test_spread_leaves_undefined_figures_out() -> None:
    assert spread([0.2, 0.4, -1]).mean == pytest.approx(0.3)
    assert spread([0.2, 0.4]).deviation == pytest.approx(np.sqrt(0.02))
    assert math.isnan(spread([0.2]).deviation)
    assert spread([-1]).mean == -1


def test_the_difference_is_the_mean_over_common_seeds() -> None:
    baseline = {0: figures(6), 1: figures(6), 7: figures(12)}
    better = {0: figures(9), 1: figures(12), 8: figures(0)}
    found = differences(baseline, better, 200)
    assert list(found) == ["AP", "AP .5", "AP .75", "128 to 256 px"]
    for interval in found.values():
        assert interval.difference == pytest.approx(0.375, abs=0.02)
        assert interval.low < 0.3 and interval.high > 0.45
        assert interval.low <= interval.difference <= interval.high


def test_the_same_images_are_drawn_for_both() -> None:
    """Unpaired draws would differ: half of the people are missed."""
    same = {0: figures(6)}
    interval = differences(same, {0: figures(6)}, 50)["AP"]
    assert (interval.low, interval.difference, interval.high) == (0, 0, 0)


def test_images_are_drawn() -> None:
    interval = differences({0: figures(6)}, {0: figures(9)}, 100)["AP"]
    assert interval.low < interval.difference - 0.1 < interval.difference + 0.1 < interval.high


def test_seeds_are_drawn_too() -> None:
    """Everybody is found or nobody, so that images do not matter."""
    baseline = {0: figures(0), 1: figures(0)}
    mixed = {0: figures(0), 1: figures(IMAGES)}
    interval = differences(baseline, mixed, 100)["AP"]
    assert (interval.low, interval.difference, interval.high) == (0, 0.5, 1)


def test_without_common_seeds_there_is_no_difference() -> None:
    assert differences({0: figures(1)}, {1: figures(1)}, 10) == {}


def test_curves_are_the_columns_that_every_epoch_has(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert read_curves(path) == {}
    path.write_text("epoch,loss,AP\n1,0.5,\n2,0.25,0.1\n")
    assert read_curves(path) == {"epoch": [1, 2], "loss": [0.5, 0.25]}
    path.write_text("epoch,loss\n")
    assert read_curves(path) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2,0.25,0.1,0.5", "has 4 values; the first line names 3"),
        ("2,0.2", "has 2 values; the first line names 3"),
        ("2,high,0.1", "could not convert string to float: 'high'"),
    ],
)
def test_a_line_of_the_curves_that_cannot_be_read_is_named(
    line: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "results.csv"
    path.write_text(f"epoch,loss,AP\n\n1,0.5,0.1\n{line}\n")
    with pytest.raises(AblationError) as caught:
        read_curves(path)
    assert str(caught.value) == f"{path}:4: {said}"
