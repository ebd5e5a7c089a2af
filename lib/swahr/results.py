"""What was found in one image: people and their keypoints, to draw, save and convert."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swahr import visualize
from swahr.skeleton import Skeleton

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Result:
    """The P people of one image; K keypoints in the order of `names`.

    source: the path or name of the image. image: (H, W, 3) uint8 RGB.
    keypoints: (P, K, 2) float32, x and y in image pixels, NaN where a joint was not found.
    keypoint_scores: (P, K) float32, the heatmap's value at the joint, 0 where it was not found.
    scores: (P,) float32, the mean over the joints' scores before refinement: higher is surer.
    """

    source: str
    image: Image
    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    skeleton: Skeleton

    @property
    def names(self) -> tuple[str, ...]:
        """The K names of the keypoints."""
        return self.skeleton.keypoints

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(P, 4): left, top, right and bottom of the found joints, in image pixels."""
        if not len(self):
            return np.zeros((0, 4), np.float32)
        corners = [np.nanmin(self.keypoints, 1), np.nanmax(self.keypoints, 1)]
        return np.concatenate(corners, 1).astype(np.float32)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        scores = ", ".join(f"{score:.2f}" for score in self.scores[:5])
        more = ", ..." if len(self) > 5 else ""
        people = "nobody" if not len(self) else f"{len(self)} people (scores {scores}{more})"
        return f"Result({self.source!r}, {width} x {height} px: {people})"

    def _repr_html_(self) -> str:
        """The drawn image, as notebooks show it."""
        data = base64.b64encode(visualize.encode(self.draw(), ".jpg")).decode()
        source = f"data:image/jpeg;base64,{data}"
        return f'<img alt="{len(self)} people" style="max-width:100%" src="{source}">'

    def draw(self, threshold: float = 0.0) -> Image:
        """A copy of the image with skeletons on it, without joints at or below the threshold."""
        points = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], -1)
        return visualize.draw_people(
            self.image, points, self.skeleton, self.scores, threshold=threshold
        )

    def save(self, path: str | Path, threshold: float = 0.0) -> Path:
        """Write the drawn image; the ending of the path chooses the format."""
        visualize.save_image(Path(path), self.draw(threshold))
        return Path(path)

    def to_coco(self, image_id: int = 1, category_id: int = 1) -> list[dict[str, Any]]:
        """One annotation per person as in COCO's files; found joints have visibility 2."""
        people: list[dict[str, Any]] = []
        for points, found, score in zip(self.keypoints, self.keypoint_scores, self.scores):
            present = found > 0
            rows = np.where(present[:, None], np.nan_to_num(points), 0)
            flat = np.column_stack([rows, 2 * present]).reshape(-1)
            corner = rows[present].min(0) if present.any() else np.zeros(2)
            size = rows[present].max(0) - corner if present.any() else np.zeros(2)
            people.append(
                {
                    "id": len(people) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "keypoints": [round(float(value), 4) for value in flat],
                    "keypoint_scores": [round(float(value), 6) for value in found],
                    "num_keypoints": int(present.sum()),
                    "bbox": [round(float(value), 4) for value in (*corner, *size)],
                    "area": round(float(size[0] * size[1]), 4),
                    "iscrowd": 0,
                    "score": float(score),
                }
            )
        return people

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row per person and keypoint; needs pandas."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install pandas") from None
        people, joints = np.divmod(np.arange(self.keypoint_scores.size), len(self.names))
        return pandas.DataFrame(
            {
                "person": people,
                "person_score": self.scores[people],
                "keypoint": [self.names[joint] for joint in joints],
                "x": self.keypoints[..., 0].reshape(-1),
                "y": self.keypoints[..., 1].reshape(-1),
                "score": self.keypoint_scores.reshape(-1),
            }
        )

    def to_supervision(self) -> Any:
        """supervision's KeyPoints; needs supervision."""
        try:
            import supervision
        except ImportError:
            raise ImportError("to_supervision needs supervision: pip install supervision") from None
        return supervision.KeyPoints(
            xy=np.nan_to_num(self.keypoints),
            confidence=self.keypoint_scores,
            class_id=np.zeros(len(self), int),
        )


def make_result(
    source: str,
    image: Image,
    keypoints: NDArray[np.floating],
    scores: ArrayLike,
    skeleton: Skeleton,
) -> Result:
    """A Result from the predictor's keypoints (P, K, 3), x, y and score, and its scores (P,)."""
    values = np.asarray(keypoints, np.float32).reshape(-1, skeleton.num_keypoints, 3)
    found = values[..., 2] > 0
    points = np.where(found[..., None], values[..., :2], np.float32(np.nan))
    return Result(
        source,
        image,
        points,
        np.where(found, values[..., 2], np.float32(0)),
        np.asarray(scores, np.float32),
        skeleton,
    )
