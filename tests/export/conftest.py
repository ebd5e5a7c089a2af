"""A network of a few layers, exported once for all tests: tracing HRNet takes half a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from swahr.commands.export import export
from swahr.config import load_config
from swahr.engine.model_files import ModelFiles
from swahr.models.build import BACKBONES, build_model
from swahr.models.network import Backbone
from swahr.models.weights import published_state
from swahr.synthetic import SceneSettings, write_dataset
from tests.engine.conftest import CONFIG
from tests.models.tiny_networks import randomized

SETTINGS = ["MODEL.BACKBONE", "toy", "TEST.DETECTION_THRESHOLD", "1.1", "TEST.FLIP_TEST", "True"]


class Toy(Backbone):
    """images -> 8 channels at a quarter of the size."""

    channels = 8
    stride = 4
    size_divisor = 32

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 7, stride=4, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn(self.conv(images)).relu()


class Toys:
    """A folder with data, a configuration, weights and the files that tests ask for.

    config: of SETTINGS. cfg: the same, loaded. weights: of the network of both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scenes = SceneSettings(width=(64, 90), height=(64, 90), people=(1, 2), unlabelled=0.0)
        write_dataset(folder / "data", num_train=1, num_val=3, seed=1, settings=scenes)
        self.images = sorted((folder / "data/images/val2017").iterdir())
        self.config = folder / "toy.yaml"
        self.weights = folder / "weights.pth"
        source = folder / "base.yaml"
        source.write_text(CONFIG.format(out=folder, data=folder / "data"))
        self.cfg = load_config(source, SETTINGS)
        self.config.write_text(self.cfg.dump())
        torch.save(published_state(randomized(build_model(self.cfg))), self.weights)
        self._files: dict[tuple[bool, bool], Path] = {}

    def model(self, *opts: Any) -> ModelFiles:
        return ModelFiles(load_config(self.config, list(map(str, opts))), self.weights, "toy")

    def file(self, *, flip: bool = False, half: bool = False) -> Path:
        """The exported network, written at the first call."""
        key = (flip, half)
        if key not in self._files:
            path = self.folder / f"toy{'_flip' * flip}{'_half' * half}.onnx"
            export(self.model(), path, flip=flip, half=half)
            self._files[key] = path
        return self._files[key]


@pytest.fixture(scope="session")
def made_toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "toy", lambda cfg: Toy())
        return Toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def toys(made_toys: Toys, monkeypatch: pytest.MonkeyPatch) -> Toys:
    """The same in every test; the backbone is known during a test only."""
    monkeypatch.setitem(BACKBONES, "toy", lambda cfg: Toy())
    return made_toys
