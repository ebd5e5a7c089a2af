"""The project gives the figures of the published system that tests/golden holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import compare

FOLDER = Path(__file__).resolve().parent / "golden"


def read(name: str) -> Mapping[str, np.ndarray[Any, Any]]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", ["coco48", "crowdpose"])
def test_networks_have_the_published_names_and_shapes(name: str) -> None:
    figures = json.loads((FOLDER / "architecture.json").read_text(encoding="utf-8"))
    assert compare.architecture(name) == figures[name]


@pytest.mark.parametrize("name", ["coco_tiny", "coco_w32"])
def test_networks_give_the_published_outputs(name: str) -> None:
    compare.forward(name, read(f"forward_{name}"))


@pytest.mark.parametrize("name", ["coco_exp", "coco_max"])
def test_losses_and_gradients_are_the_published_ones(name: str) -> None:
    compare.losses(read(f"losses_{name}"))


def test_targets_are_the_published_ones() -> None:
    compare.targets(read("targets"))


@pytest.mark.parametrize("name", ["coco_flip", "coco_small_maps", "crowdpose_multiscale"])
def test_the_published_people_are_found(name: str) -> None:
    compare.decoding(name, read(f"decode_{name}"))


def test_twelve_training_steps_are_those_of_the_checked_code() -> None:
    figures = read("training")
    compare.same_training(*compare.run_tiny_training(figures), figures)


def test_all_figures_are_small_and_compared() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.glob("*.npz")}
    source = Path(__file__).read_text(encoding="utf-8")
    for name in files:
        assert f'"{name[:-4].split("_", 1)[-1]}"' in source, f"{name} is not compared"
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 1_000_000


def test_other_people_are_told_apart() -> None:
    """same_people is not satisfied by anything."""
    figures = read("decode_coco_flip")
    people, scores = figures["people"], figures["scores"]
    compare.same_people(people[::-1], scores[::-1], people, scores)
    moved = people.copy()
    moved[0, :, 0] += 0.1
    for wrong, wrong_scores in ((moved, scores), (people, scores + 0.01), (people[1:], scores[1:])):
        with pytest.raises(AssertionError, match="off|people, expected"):
            compare.same_people(wrong, wrong_scores, people, scores)
