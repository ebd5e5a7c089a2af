"""Two configurations of a tiny network on eight images, and a trainer in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from swahr.ablation.plan import PlannedRun
from swahr.engine.train import train
from tests.engine.conftest import CONFIG, make_images

LOSSES = {"higher_hrnet": "false", "both": "true"}


class InProcess:
    """Trains runs one after another in this process, in place of RunProcesses."""

    def __init__(self, slots: Sequence[object], modules: Sequence[str] = ()) -> None:
        self.slots = slots

    def run(self, runs: Sequence[PlannedRun]) -> dict[str, str]:
        for run in runs:
            train(run.cfg, run.file)
        return {}


@pytest.fixture(scope="session")
def toy_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("toy_images"), num_train=8)


@pytest.fixture(scope="session")
def make_toy(toy_images: Path) -> Callable[[Path], Path]:
    """make_toy(folder) -> folder/toy with base.yaml and the two configurations."""

    def make(folder: Path) -> Path:
        toy = folder / "toy"
        toy.mkdir(parents=True)
        text = CONFIG.format(out=folder, data=toy_images)
        text = text.replace("END_EPOCH: 2", "END_EPOCH: 1").replace("GPU: 2", "GPU: 4")
        (toy / "base.yaml").write_text(text)
        for name, on in LOSSES.items():
            loss = f"LOSS: {{SCALE_ADAPTIVE: {on}, WEIGHT_ADAPTIVE: {on}}}\n"
            (toy / f"{name}.yaml").write_text(f"_BASE_: base.yaml\n{loss}")
        return toy

    return make


@pytest.fixture
def toy(make_toy: Callable[[Path], Path], tmp_path: Path) -> Path:
    return make_toy(tmp_path)
