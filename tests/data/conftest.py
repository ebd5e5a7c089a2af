"""A small set of synthetic images and people, in COCO's tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.skeleton import COCO

SQUARE = [[4, 4, 12, 4, 12, 12, 4, 12]]


def person(number: int, image_id: int, rng: np.random.Generator, **fields: Any) -> dict[str, Any]:
    """A person whose keypoints lie in the image of 64 x 48 px, some without label."""
    points = np.column_stack(
        [rng.integers(2, 60, 17), rng.integers(2, 44, 17), rng.integers(0, 3, 17)]
    )
    points[points[:, 2] == 0] = 0
    points[0] = 20, 20, 2
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [2, 2, 58, 42],
        "area": 900.0,
        "segmentation": SQUARE,
        "keypoints": points.reshape(-1).tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    } | fields


def contents(people: Sequence[int]) -> dict[str, Any]:
    """An annotation file with one image for each entry, which says how many people are in it."""
    rng = np.random.default_rng(0)
    annotations = []
    for image_id, count in enumerate(people, 10):
        annotations += [person(100 * image_id + i + 1, image_id, rng) for i in range(count)]
    images = [
        {"id": i, "file_name": f"{i}.png", "width": 64, "height": 48}
        for i in range(10, 10 + len(people))
    ]
    category = {"id": 1, "name": "person", "keypoints": list(COCO.keypoints), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """write(people per image or contents of the file, split) -> the set's root."""

    def write(
        data: Sequence[int] | dict[str, Any] = (1, 0, 2, 31), split: str = "train2017"
    ) -> Path:
        data = data if isinstance(data, dict) else contents(data)
        folder = tmp_path / "images" / split
        folder.mkdir(parents=True, exist_ok=True)
        for image in data["images"]:
            pixels = np.random.default_rng(image["id"]).integers(0, 256, (48, 64, 3), np.uint8)
            cv2.imwrite(str(folder / image["file_name"]), pixels)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(data))
        return tmp_path

    return write


@pytest.fixture
def made() -> Callable[[Sequence[int]], dict[str, Any]]:
    return contents
