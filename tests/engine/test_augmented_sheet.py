"""What training sees, drawn: images, learnt joints, masks and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.config import load_config
from swahr.data.keypoints import KeypointDataset, build_dataset
from swahr.data.transforms import TRANSFORMS
from swahr.engine.augmented_sheet import CELL, COLUMNS, EXAMPLES, augmented_sheet

PAD = 2  # px between images


def opened(config_file: Path, *opts: Any) -> tuple[Any, KeypointDataset]:
    cfg = load_config(config_file, list(opts))
    return cfg, build_dataset(cfg, cfg.DATASET.TRAIN, train=True)


def cells(sheet: np.ndarray) -> list[np.ndarray]:
    step = CELL + PAD
    rows = range(0, sheet.shape[0], step)
    return [sheet[y : y + CELL, x : x + CELL] for y in rows for x in range(0, sheet.shape[1], step)]


def test_a_pair_for_each_example(config_file: Path) -> None:
    sheet = augmented_sheet(*opened(config_file))
    side = COLUMNS * (CELL + PAD) - PAD
    assert sheet.shape == (side, side, 3)
    images = cells(sheet)
    assert len({image.tobytes() for image in images}) == 2 * EXAMPLES


def test_targets_lie_on_the_joints(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the joints inside the image; others are not drawn. Augmentation is that of the seed."""
    drawn: dict[str, list[np.ndarray]] = {"joints": [], "heatmaps": []}

    def draw_people(image: np.ndarray, joints: np.ndarray, skeleton: Any) -> np.ndarray:
        drawn["joints"].append(joints)
        return image

    def draw_heatmap(image: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
        drawn["heatmaps"].append(heatmaps)
        return image

    monkeypatch.setattr("swahr.engine.augmented_sheet.draw_people", draw_people)
    monkeypatch.setattr("swahr.engine.augmented_sheet.draw_heatmap", draw_heatmap)
    first = augmented_sheet(*opened(config_file))
    shown = 0
    for joints, heatmaps in zip(drawn["joints"], drawn["heatmaps"], strict=True):
        size = heatmaps.shape[-1]
        for person in joints:
            for k in np.flatnonzero(person[:, 2] > 0):
                x, y = (person[k, :2] * size / CELL).astype(int)
                assert heatmaps[k, y, x] == 1
                shown += 1
    assert shown > 50
    assert not np.array_equal(augmented_sheet(*opened(config_file, "TRAIN.SEED", 7)), first)


def test_masked_regions_are_dark(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, dataset = opened(config_file)
    plain = cells(augmented_sheet(cfg, dataset, count=1))[0].astype(int)

    def masking(cfg: Any, skeleton: Any) -> Any:
        affine = TRANSFORMS["affine"](cfg, skeleton)
        flip = TRANSFORMS["flip"](cfg, skeleton)

        def transform(sample: Any, rng: Any) -> Any:
            sample = flip(affine(sample, rng), rng)
            for mask in sample.masks:
                mask[:, : mask.shape[1] // 2] = 0
            return sample

        return transform

    monkeypatch.setattr("swahr.engine.augmented_sheet.build_transforms", masking)
    masked = cells(augmented_sheet(cfg, dataset, count=1))[0].astype(int)
    assert np.array_equal(masked[:, CELL // 2 + 30 :], plain[:, CELL // 2 + 30 :])
    assert masked[:, : CELL // 2 - 30].mean() < 0.7 * plain[:, : CELL // 2 - 30].mean()
