"""examples/video.py runs as it stands."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from swahr.config import load_config
from swahr.engine.video import Video
from swahr.models.build import build_model

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "video.py"


def test_people_of_a_video_are_followed(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    folder = config_file.parent
    torch.manual_seed(0)
    weights = build_model(load_config(config_file)).state_dict()
    torch.save(weights, folder / "model_best.pth.tar")
    (folder / "config.yaml").write_text(config_file.read_text())
    film = str(folder / "film.avi")
    writer = cv2.VideoWriter(film, cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for shift in range(3):
        writer.write(np.roll(noise, 8 * shift, 1))
    writer.release()
    drawn = folder / "drawn.mp4"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(folder), film, str(drawn)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["0.000 s", "0.100 s", "0.200 s"] + [
        f"drawn in {drawn}"
    ]
    assert len(list(Video(drawn))) == 3
