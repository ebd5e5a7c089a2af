"""A training run so small that it can be repeated: eight synthetic images, a network of a few
channels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from swahr.synthetic import SceneSettings, write_dataset

CONFIG = """
AUTO_RESUME: true
DEVICE: cpu
WORKERS: 0
PRINT_FREQ: 2
DEBUG: {{DEBUG: false}}
OUTPUT_DIR: {out}/output
LOG_DIR: {out}/log
DATASET: {{ROOT: {data}, TRAIN: train2017, TEST: val2017, INPUT_SIZE: 64, OUTPUT_SIZE: [16, 32],
           SIGMA: 2}}
LOSS: {{NUM_STAGES: 2, WITH_HEATMAPS_LOSS: [true, true], HEATMAPS_LOSS_FACTOR: [1.0, 1.0],
        WITH_AE_LOSS: [true, false], AE_LOSS_TYPE: exp,
        PUSH_LOSS_FACTOR: [0.001, 0.001], PULL_LOSS_FACTOR: [0.001, 0.001]}}
MODEL:
  NAME: pose_higher_hrnet
  INIT_WEIGHTS: false
  EXTRA:
    STAGE2: {{NUM_MODULES: 1, NUM_BLOCKS: [1, 1], NUM_CHANNELS: [4, 8]}}
    STAGE3: {{NUM_MODULES: 1, NUM_BLOCKS: [1, 1, 1], NUM_CHANNELS: [4, 8, 16]}}
    STAGE4: {{NUM_MODULES: 1, NUM_BLOCKS: [1, 1, 1, 1], NUM_CHANNELS: [4, 8, 16, 32]}}
    DECONV: {{NUM_CHANNELS: [4], NUM_BASIC_BLOCKS: 1}}
TRAIN: {{IMAGES_PER_GPU: 2, END_EPOCH: 2, WARM_UP_EPOCH: 1, VAL_INTERVAL: 0, PLOTS: false}}
TEST: {{FLIP_TEST: false, WITH_HEATMAPS: [true, true], WITH_AE: [true, false], LOG_PROGRESS: false}}
"""


def make_images(root: Path, num_train: int) -> Path:
    """Make a data set of num_train training and 2 validation images; returns its root."""
    scenes = SceneSettings(
        width=(64, 80), height=(64, 80), people=(1, 2), figure_height=(0.5, 0.9), unlabelled=0.0
    )
    write_dataset(root, num_train=num_train, num_val=2, seed=1, settings=scenes)
    return root


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a data set of 8 training and 2 validation images."""
    return make_images(tmp_path_factory.mktemp("images"), num_train=8)


@pytest.fixture(scope="session")
def write_config(images: Path) -> Callable[[Path], Path]:
    """write_config(folder) -> a YAML file there of two epochs of four steps, with its output and
    logs beside it.
    """

    def write(folder: Path) -> Path:
        path = folder / "tiny.yaml"
        path.write_text(CONFIG.format(out=folder, data=images))
        return path

    return write


@pytest.fixture
def config_file(tmp_path: Path, write_config: Callable[[Path], Path]) -> Path:
    return write_config(tmp_path)
