"""`swahr info`: what a file of weights is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from swahr.commands import info
from swahr.config import load_config
from swahr.engine import checkpoint
from swahr.engine.checkpoint import Progress, RunIdentity
from swahr.engine.model_files import LoadError
from swahr.models.build import build_model
from swahr.models.weights import published_state
from tests.engine.checkpoints import save_checkpoint
from tests.engine.conftest import CONFIG


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the YAML file, weights and checkpoint of a tiny network."""
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(out=tmp_path, data=tmp_path))
    cfg = load_config(tmp_path / "tiny.yaml")
    state = published_state(build_model(cfg))
    torch.save(state, tmp_path / "weights.pth")
    save_checkpoint(
        tmp_path,
        identity=RunIdentity(name="tiny", config=cfg.dump()),
        weights=state,
        optimizer={},
        scaler={},
        progress=Progress(epoch=3),
    )
    return tmp_path


def said(path: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The exit status and the lines by their first word."""
    status = info.main([str(path)])
    lines = capsys.readouterr().out.splitlines()
    return status, {line.split()[0]: line[13:] for line in lines}


def test_weights_without_a_configuration(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "weights.pth"
    status, rows = said(path, capsys)
    assert status == 0 and rows["loads"] == "yes"
    assert rows["file"] == f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
    assert rows["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert rows["kind"] == "weights without a configuration"
    assert rows["keypoints"] == "17 (coco)" and "epoch" not in rows
    assert rows["test"] == "flip test, scales 1, input size 512 px"
    model = build_model(load_config(run / "tiny.yaml"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert rows["parameters"] == f"{parameters:,}" and rows["GMACs"].endswith(" for 512 px")


def test_a_checkpoint_of_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows = said(run / checkpoint.NEWEST, capsys)
    assert status == 0 and rows["kind"] == "a checkpoint of training" and rows["epoch"] == "3"
    rules = "TEST.PROJECT2IMAGE False, TEST.NMS_KERNEL 3, TEST.DETECTION_THRESHOLD 0.2"
    assert rows["test"] == f"no flip test, scales 1, input size 64 px, {rules}"


def test_a_backbone_and_damaged_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(run / "weights.pth", weights_only=True)
    backbone = {name: value for name, value in state.items() if "final_layers" not in name}
    torch.save(backbone, run / "backbone.pth")
    status, rows = said(run / "backbone.pth", capsys)
    assert status == 1 and rows["tensors"].startswith(f"{len(backbone)} with ")
    assert "is a backbone without keypoint heads" in rows["loads"]
    (run / "short.pth").write_bytes((run / "weights.pth").read_bytes()[:500])
    status, rows = said(run / "short.pth", capsys)
    assert status == 1 and "no PyTorch checkpoint, or only a part" in rows["loads"]


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(LoadError, match=r"^none\.pth: no such file or folder$"):
        info.main(["none.pth"])


def test_an_empty_source_is_not_the_current_folder() -> None:
    with pytest.raises(LoadError, match=r"^SOURCE is empty; name a file or a folder$"):
        info.main([""])


def test_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    status, rows = said("demo", capsys)
    assert status == 0 and rows["loads"] == "yes" and rows["kind"] == "a published model"
