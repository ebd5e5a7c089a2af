"""`swahr publish`: a folder that describes itself, and that swahr.load reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import swahr
from swahr.commands import publish
from swahr.config import load_config, save_config
from swahr.converters.coco import skeleton_yaml
from swahr.engine.model_files import LoadError, find_model
from swahr.models.build import build_model
from swahr.models.weights import CheckpointError, published_state
from tests.engine.conftest import CONFIG

TABLE = "| Arch | AP |\n|---|---|\n| pose_higher_hrnet | 0.671 |\n"


def make_run(folder: Path, *opts: str) -> Path:
    """A run's folder with best weights and a measured table."""
    pytest.importorskip("safetensors")
    (folder / "tiny.yaml").write_text(CONFIG.format(out=folder, data=folder))
    cfg = load_config(folder / "tiny.yaml", ["TEST.DETECTION_THRESHOLD", "0", *opts])
    save_config(cfg, folder / "config.yaml")
    torch.save(published_state(build_model(cfg)), folder / "model_best.pth.tar")
    (folder / "results").mkdir()
    (folder / "results/keypoints_val2017_results.md").write_text(TABLE)
    return folder


def test_the_folder_finds_the_same_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    out = tmp_path / "hub/tiny"
    publish.main([str(run), "--out", str(out)])
    assert capsys.readouterr().out == f"{out}\n"
    names = {path.name for path in out.iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md"}
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    here, there = swahr.load(run)(image), swahr.load(out)(image)
    assert len(here) and np.array_equal(here.keypoints, there.keypoints, equal_nan=True)
    assert np.array_equal(here.scores, there.scores)
    assert swahr.load(out / "model.safetensors").skeleton == swahr.COCO
    description = json.loads((out / "config.json").read_text())
    assert description["version"] == swahr.__version__
    assert description["config"]["DATASET.INPUT_SIZE"] == 64
    assert str(tmp_path) not in (out / "config.json").read_text()
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: swahr\n") and TABLE in card
    assert "no flip test, scales 1, input size 64 px" in card


def test_keypoints_of_ones_own_travel_along(tmp_path: Path) -> None:
    own = swahr.Skeleton("hand", ("wrist", "left_tip", "right_tip"), ((1, 2),), (0.1, 0.1, 0.1))
    (tmp_path / "hand.yaml").write_text(skeleton_yaml(own))
    keys = ("DATASET.NUM_JOINTS", "MODEL.NUM_JOINTS")
    opts = [
        "DATASET.SKELETON",
        str(tmp_path / "hand.yaml"),
        *(w for key in keys for w in (key, "3")),
    ]
    run = make_run(tmp_path, *opts)
    publish.publish(find_model(run), tmp_path / "out")
    (tmp_path / "hand.yaml").unlink()
    assert swahr.load(tmp_path / "out").skeleton == own


def test_problems_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    publish.publish(find_model(run), tmp_path / "out")
    weights = tmp_path / "out/model.safetensors"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "safetensors.torch", None)
        with pytest.raises(LoadError, match=r"^publishing needs safetensors: pip install 'swahr\["):
            publish.publish(find_model(run), tmp_path / "again")
        with pytest.raises(CheckpointError, match="model.safetensors: needs safetensors: pip inst"):
            swahr.load(tmp_path / "out")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="model.safetensors: no safetensors file, or only a"):
        swahr.load(tmp_path / "out")
    (tmp_path / "out/config.json").write_text("{}")
    with pytest.raises(LoadError, match="config.json: has no entry 'config' with the settings of"):
        swahr.load(tmp_path / "out")
    (tmp_path / "out/config.json").write_text("{")
    with pytest.raises(LoadError, match="config.json: cannot be read as JSON"):
        swahr.load(tmp_path / "out")
