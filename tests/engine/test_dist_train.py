"""tools/dist_train.py: what its flags mean, and what it says to wrong ones."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swahr.config import ConfigError
from swahr.distributed.launch import WorkerError, exit_status, is_known, main_with_exit_status
from swahr.distributed.signals import Interrupted
from swahr.files import WriteError
from tests.engine.distributed_workers import KnownError


@pytest.fixture
def started(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """started(*arguments) -> what the tool would launch."""
    tool = importlib.import_module("swahr.commands.train")

    def call(*arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def launch(function: Any, args: tuple, processes: int, **options: Any) -> None:
            found.update(cfg=args[0], processes=processes, **options)

        monkeypatch.setattr(tool, "launch", launch)
        monkeypatch.setattr(tool, "setup_logging", lambda: None)
        monkeypatch.setattr(sys, "argv", ["dist_train.py", "--cfg", str(config_file), *arguments])
        tool.main()
        return found

    return call


def test_flags(started: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert started()["processes"] == 1 and started()["nodes"] == 1
    assert started("--device", "cpu", "--gpus", "3")["processes"] == 3
    assert (
        started("TRAIN.END_EPOCH", "7", "--gpus", "2", "DATASET.SIGMA", "-1")["cfg"].DATASET.SIGMA
        == -1
    )
    nodes = started("--world-size", "4", "--rank", "2", "--dist-url", "tcp://10.0.0.1:99")
    assert (nodes["nodes"], nodes["node_rank"], nodes["url"]) == (4, 2, "tcp://10.0.0.1:99")
    assert started("--world-size", "2")["url"] == ""  # which launch refuses for several nodes
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert started("DEVICE", "cuda")["processes"] == 4
    assert started("--restarts", "3")["restarts"] == 3 and started()["restarts"] == 0
    assert started("STOP_SECONDS", "90")["stop_seconds"] == 90
    assert started("--allow-changes")["cfg"].RESUME_CHANGED and not started()["cfg"].RESUME_CHANGED
    with pytest.raises(ConfigError, match="'OUTPUT_DIR' has no value$"):
        started("--allow-changes", "OUTPUT_DIR")
    alone = started("--gpu", "2")
    assert alone["cfg"].DEVICE == "cuda:2" and alone["processes"] == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KnownError("a.yaml:3: wrong"), 2),
        (WorkerError("failed", 137), 137),
        (Interrupted(15, " in epoch 3"), 143),
        (WriteError("a.pth.tar: could not be written"), 3),
    ],
)
def test_known_errors_are_one_line(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main_with_exit_status(main)
    assert ended.value.code == status == exit_status(error) and is_known(error)
    assert capsys.readouterr().err == f"{error}\n"


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        main_with_exit_status(main)
    assert ended.value.code == 130 and capsys.readouterr().err == "stopped by SIGINT\n"


def test_other_errors_keep_their_traceback() -> None:
    def main() -> None:
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="a mistake of ours"):
        main_with_exit_status(main)
    with pytest.raises(SystemExit) as ended:
        main_with_exit_status(lambda: None)
    assert ended.value.code == 0
