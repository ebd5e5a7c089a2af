from __future__ import annotations

from pathlib import Path

import pytest
import torch

from swahr.config import load_config
from swahr.inference.load import load_network
from swahr.models.build import build_model
from swahr.models.weights import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "experiments/synthetic/tiny_192_cpu.yaml"


@pytest.fixture
def cudnn_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the process's flags after the test."""
    for name in ("enabled", "benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))


@pytest.mark.usefixtures("cudnn_flags")
def test_a_network_has_the_weights_of_the_file_on_the_device(tmp_path: Path) -> None:
    opts = ["CUDNN.ENABLED", "False", "CUDNN.BENCHMARK", "False", "CUDNN.DETERMINISTIC", "True"]
    cfg = load_config(CONFIG, opts)
    expected = build_model(cfg)
    torch.save(expected.state_dict(), tmp_path / "weights.pth")
    loaded = load_network(cfg, tmp_path / "weights.pth", "cpu").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.state_dict().items())
    meta = load_network(cfg, tmp_path / "weights.pth", "meta")
    assert {parameter.device.type for parameter in meta.parameters()} == {"meta"}
    flags = torch.backends.cudnn
    assert (flags.enabled, flags.benchmark, flags.deterministic) == (False, False, True)
    with pytest.raises(CheckpointError, match="none.pth: no such file"):
        load_network(cfg, tmp_path / "none.pth", "cpu")
