"""The data sets of a configuration, with its root and its skeleton."""

from __future__ import annotations

from typing import Any

from swahr.config import configured_skeleton, resolve_path
from swahr.data.keypoints import KeypointDataset, build_dataset


def build_training_set(cfg: Any) -> KeypointDataset:
    """The data set DATASET.TRAIN. Raises as build_dataset does."""
    return _build(cfg, cfg.DATASET.TRAIN, train=True)


def build_validation_set(cfg: Any, *, need_images: bool = True) -> KeypointDataset:
    """The data set DATASET.TEST; raises as build_dataset does. need_images: see there."""
    return _build(cfg, cfg.DATASET.TEST, train=False, need_images=need_images)


def _build(cfg: Any, split: str, **options: bool) -> KeypointDataset:
    return build_dataset(
        cfg,
        split,
        root=resolve_path(cfg.DATASET.ROOT),
        skeleton=configured_skeleton(cfg),
        **options,
    )
