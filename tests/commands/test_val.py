"""`swahr val --weights`: models with their settings, and where their results go."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from swahr.commands import val
from swahr.config import ConfigError, output_dir
from swahr.engine.checkpoint import BEST
from swahr.engine.model_files import LoadError, find_model
from swahr.engine.provenance import find_weights
from swahr.engine.published import publish
from swahr.files import WriteError
from tests.commands.test_publish import make_run
from tests.engine.conftest import make_images


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """loaded(*words) -> the weights that `swahr val` tests, and the folder of its results."""

    def load(*words: object) -> tuple[Path, Path]:
        monkeypatch.setattr(sys, "argv", ["swahr val", *map(str, words)])
        cfg, path = val.load_model(val.parse_args())
        return find_weights(cfg, path), output_dir(cfg, path)

    return load


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def published(run: Path, tmp_path: Path) -> Path:
    return publish(find_model(run), tmp_path / "hub")


def digits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def test_weights_of_a_run_are_tested_in_its_folder(loaded: Any, run: Path) -> None:
    """Whatever its name is, and though the run that it was copied from has another folder."""
    copied = Path(shutil.copytree(run, run.parent / "copied"))
    for folder in (run, copied):
        for source in (folder, folder / BEST):
            assert loaded("--weights", source) == (folder / BEST, folder)


def test_other_weights_are_tested_in_a_folder_of_their_own(
    loaded: Any, run: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = published / "model.safetensors"
    kind = Path("output/coco_kpt/pose_higher_hrnet")
    assert loaded("--weights", published) == (weights, kind / f"tiny_{digits(weights)}")
    alone = Path(shutil.copy(run / BEST, tmp_path / "alone.pth"))
    assert loaded("--weights", alone) == (alone, kind / f"alone_{digits(alone)}")
    named = loaded("--weights", published, "--name", "mine", "OUTPUT_DIR", "other")
    assert named == (weights, Path("other/coco_kpt/pose_higher_hrnet/mine"))


def test_a_configuration_with_weights_is_tested_as_with_the_setting(
    loaded: Any, run: Path, published: Path
) -> None:
    weights = published / "model.safetensors"
    cfg = run / "tiny.yaml"
    expected = loaded("--cfg", cfg, "TEST.MODEL_FILE", weights)
    assert loaded("--cfg", cfg, "--weights", weights) == expected
    with pytest.raises(LoadError, match="^TEST.MODEL_FILE: the weights are those of .*hub already"):
        loaded("--weights", published, "TEST.MODEL_FILE", weights)


def test_a_published_model_is_validated(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = make_images(tmp_path / "images", num_train=1)
    monkeypatch.chdir(tmp_path)
    words = ["--weights", published, "DATASET.ROOT", images, "DEVICE", "cpu"]
    monkeypatch.setattr(sys, "argv", ["swahr val", *map(str, words)])
    val.main()
    weights = published / "model.safetensors"
    assert f"- weights: {weights} (epoch unknown, sha256 {digits(weights)})" in (
        capsys.readouterr().out
    )
    results = tmp_path / f"output/coco_kpt/pose_higher_hrnet/tiny_{digits(weights)}/results"
    assert {path.suffix for path in results.iterdir()} == {".json", ".md"}


def test_weights_that_are_missing_are_those_of_the_flag(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--cfg", str(run / "tiny.yaml"), "--weights", "/nope.pth", "DATASET.ROOT", str(run)]
    monkeypatch.setattr(sys, "argv", ["swahr val", *words])
    with pytest.raises(ConfigError, match="^--weights: TEST.MODEL_FILE: no file '/nope.pth'; "):
        val.main()


def test_a_report_that_cannot_be_made_is_said_before_anything_runs(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = run / "tiny.yaml"
    words = ["--weights", str(run), "--report", str(taken), "DATASET.ROOT", str(run)]
    monkeypatch.setattr(sys, "argv", ["swahr val", *words])
    monkeypatch.setattr(val, "launch", None)
    with pytest.raises(WriteError, match=f"^{taken}: the folder cannot be made"):
        val.main()


def test_something_to_test_is_asked_for(loaded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words, line in (
        ((), "give --weights (a run's folder or a file of weights), or --cfg"),
        (("--weights", ""), "argument --weights: it is empty; give a value"),
    ):
        with pytest.raises(SystemExit):
            loaded(*words)
        assert f"error: {line}\n" in capsys.readouterr().err
