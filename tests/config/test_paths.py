"""Where files are looked for and where a run's own go."""

from __future__ import annotations

from pathlib import Path

import pytest

from swahr.config import load_config, log_dir, output_dir, resolve_path

ROOT = Path(__file__).resolve().parents[2]
MAIN = "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"


def test_relative_paths_are_here_or_in_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path(MAIN) == ROOT / MAIN
    assert resolve_path("nowhere") == Path("nowhere")
    assert resolve_path("/a/b") == Path("/a/b") and resolve_path("~/x") == tmp_path / "x"
    (tmp_path / "experiments").mkdir()
    assert resolve_path("experiments") == Path("experiments")
    assert load_config(MAIN).TRAIN.LR == 0.00025


def test_folders_of_a_run() -> None:
    cfg = load_config(MAIN)
    assert output_dir(cfg, MAIN) == Path("output/coco_kpt/pose_higher_hrnet/w32_512_adam_lr1e-3")
    folder = log_dir(cfg, MAIN, when=0)
    assert folder.parent == Path("log/coco_kpt/pose_higher_hrnet")
    assert folder.name.startswith("w32_512_adam_lr1e-3_19") and folder.name.count("-") == 6
    cfg = load_config(MAIN, ["OUTPUT_DIR", "", "LOG_DIR", "/logs"])
    assert output_dir(cfg, "x.yaml").parts[0] == "output"
    assert log_dir(cfg, "x.yaml").is_relative_to("/logs")
