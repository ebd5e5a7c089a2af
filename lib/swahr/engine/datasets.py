"""The data sets of a configuration, with its root and its skeleton, and results on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from swahr.config import configured_skeleton, resolve_path
from swahr.data.keypoints import KeypointDataset, build_dataset
from swahr.data.values import whole_number
from swahr.words import counted

logger = logging.getLogger("swahr")


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


def adapt_records(records: Sequence[Any], dataset: KeypointDataset) -> list[Any]:
    """The records as the data set's own predictions would be: all in one category, and only of
    images that it uses.
    """
    adapted = []
    skipped = 0
    for record in records:
        if isinstance(record, dict):
            if whole_number(record.get("image_id")) in dataset.report.skipped_images:
                skipped += 1
                continue
            if whole_number(record.get("category_id")) in dataset.category_ids:
                record = record | {"category_id": dataset.category_id}
        adapted.append(record)
    if skipped:
        logger.warning("not scored, as the image was skipped: %s", counted(skipped, "result"))
    return adapted
