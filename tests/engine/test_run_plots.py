"""curves.png and val_images.jpg: what they show, and that they never end a run."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.config import load_config
from swahr.data.images import read_image
from swahr.data.keypoints import KeypointDataset
from swahr.engine import run_plots
from swahr.engine.checkpoint import Progress
from swahr.engine.hooks import Curves
from swahr.engine.results_file import ResultsFile
from swahr.engine.run_plots import COLUMNS, draw_curves, draw_validation
from swahr.engine.train import train
from swahr.skeleton import COCO
from tests.engine.test_trainer import FOLDER

ROWS = {
    1: {"steps": "4", "loss": "2", "push0": "1", "learning_rate": "0.1", "images": "9"},
    2: {"steps": "8", "loss": "1", "push0": "nan", "learning_rate": "0.2", "AP": "0.5"},
}


class Axes:
    """Notes what is drawn."""

    def __init__(self) -> None:
        self.curves: dict[str, tuple[list[int], list[float]]] = {}

    def plot(self, epochs: list[int], values: list[float], _: str, label: str) -> None:
        self.curves[label] = (epochs, values)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def test_curves_of_losses_figures_and_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Columns of other units, such as images a second and errors in pixels, are not drawn, nor are
    undefined figures.
    """
    figure = pytest.importorskip("matplotlib.figure", reason="needs the extra report")
    panels = [Axes() for _ in range(3)]
    monkeypatch.setattr(figure.Figure, "subplots", lambda self, *size: panels)
    others = {"AP (M)": "0.4", "PCK 0.2": "0.7", "AR": "-1", "error (mean px)": "7"}
    rows = {1: ROWS[1] | {"PCK 0.2": "-1"}, 2: ROWS[2] | others}
    draw_curves(tmp_path / "curves.png", rows, ["AP", *others])
    losses, figures, rate = (panel.curves for panel in panels)
    assert losses.keys() == {"loss", "push0"} and losses["loss"] == ([1, 2], [2, 1])
    assert figures == {"AP": ([2], [0.5]), "PCK 0.2": ([2], [0.7])}
    assert rate == {"learning_rate": ([1, 2], [0.1, 0.2])}
    assert read_image(tmp_path / "curves.png").size


@pytest.mark.parametrize(
    ("push", "scale"), [("0.001", "log"), ("0", "log"), ("-0.5", "linear"), ("nan", "log")]
)
@pytest.mark.parametrize("epochs", [1, 3])
def test_small_losses_are_seen_and_epochs_are_whole(
    push: str, scale: str, epochs: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="needs the extra report")
    drawn = []

    def save(self: Any, *arguments: Any, **options: Any) -> None:
        drawn.extend(self.axes)

    monkeypatch.setattr(figure.Figure, "savefig", save)
    row = {"loss": "2", "push0": push, "learning_rate": "0.1", "AP": "0.5"}
    draw_curves(tmp_path / "curves.png", dict.fromkeys(range(1, epochs + 1), row), ["AP"])
    assert [panel.get_yscale() for panel in drawn] == [scale, "linear", "linear"]
    for panel in drawn:
        ticks = panel.get_xticks()
        assert len(ticks) and (ticks == ticks.round()).all()


def test_losses_of_zero_have_a_linear_scale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    rows = {1: {"loss": "0", "learning_rate": "0.1"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curves(tmp_path / "curves.png", rows, [])


def trainer(folder: Path) -> Any:
    results = ResultsFile(folder / "results.csv")
    results.add_epoch(1, {"steps": 4, "loss": 2, "learning_rate": 0.1})
    return SimpleNamespace(results=results, progress=Progress(epoch=1), folder=folder)


def test_without_matplotlib_a_line_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    hook = Curves()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            hook.after_validation(trainer(tmp_path), {"AP": 0.5})
    line = "no curves.png: it needs matplotlib: pip install 'swahr[report]'"
    assert caplog.messages == [line]


def test_curves_that_cannot_be_drawn_cost_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("no\nfont")

    monkeypatch.setattr("swahr.engine.hooks.draw_curves", broken)
    Curves().after_validation(trainer(tmp_path), {"AP": 0.5})
    assert caplog.messages == ["no curves.png: no font"]


@pytest.fixture
def dataset(images: Path) -> KeypointDataset:
    """Two images."""
    file = images / "annotations/person_keypoints_val2017.json"
    return KeypointDataset(file, images / "images/val2017", COCO)


def record(dataset: KeypointDataset, index: int, score: float) -> dict[str, Any]:
    image_id = dataset.image_ids[index]
    keypoints = [20.0, 30.0, 0.9, *[50.0, 60.0, 0.8] * 16]
    return {"image_id": image_id, "keypoints": keypoints, "score": score}


def test_truth_and_prediction_stand_side_by_side(dataset: KeypointDataset, tmp_path: Path) -> None:
    path = tmp_path / "val_images.png"
    drawn = {}
    for name, scores in {"none": [], "sure": [0.5], "unsure": [0.05]}.items():
        draw_validation(path, dataset, [record(dataset, 0, score) for score in scores])
        drawn[name] = read_image(path)
    width = drawn["none"].shape[1]
    changed = np.flatnonzero((drawn["none"] != drawn["sure"]).any(axis=(0, 2)))
    assert len(changed) and changed.min() >= width // COLUMNS and changed.max() < width // 2 + 3
    assert np.array_equal(drawn["none"], drawn["unsure"])
    first = drawn["none"][20:, : width // 4]
    second = drawn["none"][20:, width // 4 + 2 : width // 2]
    assert (first[:, : second.shape[1]] != second[: len(first)]).any()  # the truth has people


def test_images_that_cannot_be_drawn_cost_a_line(
    dataset: KeypointDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    draw_validation(tmp_path / "file/val_images.jpg", dataset, [])
    [line] = caplog.messages
    assert "could not be written" in line
    assert line.endswith("; training continues without val_images.jpg")


def test_a_run_leaves_both(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    monkeypatch.setattr(run_plots, "CELL", 64)
    train(load_config(config_file, ["TRAIN.PLOTS", True]), config_file)
    folder = config_file.parent / FOLDER
    for name in ("curves.png", "val_images.jpg"):
        assert cv2.imread(str(folder / name)) is not None, name
