"""Where files are looked for and where a run's own go."""

from __future__ import annotations

from pathlib import Path

import pytest

from swahr.config import (
    defaults,
    load_config,
    log_dir,
    output_dir,
    resolve_path,
    save_config,
)

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
    assert output_dir(cfg, MAIN).parts[0] == "output"
    assert log_dir(cfg, MAIN).is_relative_to("/logs")


def test_folders_of_a_run_may_be_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    cfg = load_config(MAIN, ["OUTPUT_DIR", "~/out", "LOG_DIR", "~"])
    assert output_dir(cfg, MAIN).is_relative_to("/home/a/out")
    assert log_dir(cfg, MAIN).is_relative_to("/home/a/coco_kpt")


def test_a_run_may_have_a_name_of_its_own() -> None:
    cfg = load_config(MAIN, ["RUN_NAME=lr_0.1", "OUTPUT_DIR=out"])
    assert output_dir(cfg, MAIN) == Path("out/coco_kpt/pose_higher_hrnet/lr_0.1")
    assert log_dir(cfg, MAIN).name.startswith("lr_0.1_")


def test_a_configuration_built_by_hand_has_the_name_of_its_file() -> None:
    assert output_dir(defaults(), "a/b.yaml") == Path("output/coco_kpt/pose_higher_hrnet/b")


def test_the_config_of_a_run_means_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load_config(MAIN)
    folder = output_dir(cfg, MAIN)
    saved = folder / "config.yaml"
    save_config(cfg, saved)
    assert output_dir(load_config(saved), saved) == folder
    monkeypatch.chdir("/")
    saved = tmp_path / saved
    assert output_dir(load_config(saved), saved) == tmp_path / folder
    named = load_config(saved, ["RUN_NAME=other"])
    assert output_dir(named, saved) == folder.with_name("other")
    moved = load_config(saved, ["OUTPUT_DIR=/out"])
    assert output_dir(moved, saved) == Path("/out", *folder.parts[1:])


def test_a_file_on_top_of_the_config_of_a_run_is_another_run(tmp_path: Path) -> None:
    save_config(load_config(MAIN), tmp_path / "config.yaml")
    path = tmp_path / "variant.yaml"
    path.write_text("_BASE_: config.yaml\n")
    assert load_config(path).RUN_NAME == "variant"
