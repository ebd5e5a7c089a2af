"""Annotations and detections made so that every error in them is known.

A person is five keypoints 100 px apart with a constant of 0.05 and an area of 100 x 100 px: a
keypoint that is d px off has the similarity exp(-d^2 / 200), which is 0.85 at 5.70 px and 0.5 at
11.77 px.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from swahr.skeleton import Skeleton

SKELETON = Skeleton(
    "made",
    ("nose", "left_hand", "right_hand", "left_foot", "right_foot"),
    ((1, 2), (3, 4)),
    (0.05,) * 5,
    ((0, 1), (0, 2), (0, 3), (0, 4)),
)
POINTS = np.array([[100, 50], [50, 150], [150, 150], [50, 250], [150, 250]], float)
OFFSET = 1000  # px between two people
NEARLY = 1.0  # px by which good keypoints are off in `found`: ks 0.995


def person(number: int, image: int = 1, place: int = 0, **fields: Any) -> dict[str, Any]:
    """A person at the place-th OFFSET, all keypoints labelled."""
    points = POINTS + [place * OFFSET, 0]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "keypoints": np.insert(points, 2, 2, axis=1).ravel().tolist(),
        "num_keypoints": 5,
        "iscrowd": 0,
        "bbox": [place * OFFSET + 50, 50, 100, 200],
        "area": 100 * 100,
        **fields,
    }


def unlabel(annotation: dict[str, Any], keypoint: int) -> dict[str, Any]:
    """The annotation with a keypoint that is not labelled, but still has its coordinates."""
    keypoints = list(annotation["keypoints"])
    keypoints[3 * keypoint + 2] = 0
    return {**annotation, "keypoints": keypoints}


def truth(*people: dict[str, Any], images: int = 1) -> dict[str, Any]:
    listed = [
        {"id": i, "file_name": f"{i}.png", "width": 2400, "height": 300}
        for i in range(1, images + 1)
    ]
    names = list(SKELETON.keypoints)
    return {
        "images": listed,
        "annotations": list(people),
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }


def found(
    image: int = 1,
    place: float = 0,
    score: float = 0.9,
    move: dict[int, tuple[float, float]] | None = None,
    off: float = NEARLY,
) -> dict[str, Any]:
    """A detection at the place-th OFFSET, `off` px right of the truth; move: {keypoint: its x, y
    less the true place's}.
    """
    points = POINTS + [place * OFFSET + off, 0]
    for keypoint, shift in (move or {}).items():
        points[keypoint] = POINTS[keypoint] + [place * OFFSET, 0] + np.array(shift)
    return {
        "image_id": image,
        "category_id": 1,
        "keypoints": np.insert(points, 2, 0.7, axis=1).ravel().tolist(),
        "score": score,
    }


def random_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Crowded images of people of many sizes, with crowd regions and people without labels, and
    detections of every quality.
    """
    random = np.random.default_rng(seed)
    people: list[dict[str, Any]] = []
    records = []
    images = 12
    for image in range(1, images + 1):
        for _ in range(random.integers(0, 6)):
            size = 2 ** random.uniform(-2, 1)
            corner = random.uniform(0, 300, 2)
            points = POINTS * size + corner
            flags = random.integers(0, 3, 5)
            kind = random.choice(3, p=(0.8, 0.1, 0.1))
            if kind:
                flags[:] = 0
            labelled = np.concatenate([points * (flags > 0)[:, None], flags[:, None]], axis=1)
            box = [*(corner + 50 * size), 100 * size, 200 * size]
            fields = {
                "keypoints": labelled.ravel().tolist(),
                "num_keypoints": int((flags > 0).sum()),
                "iscrowd": int(kind == 1),
                "bbox": [float(value) for value in box],
                "area": float(8000 * size * size),
            }
            people.append(person(len(people) + 1, image, **fields))
            for _ in range(random.integers(0, 9)):
                noise = random.normal(0, random.choice([2, 8, 40]) * size, (5, 2))
                guess = np.insert(points + noise, 2, 1, axis=1).ravel().tolist()
                score = round(float(random.random()), 2)  # some are equal
                records.append({**found(image, score=score), "keypoints": guess})
    return truth(*people, images=images), records
