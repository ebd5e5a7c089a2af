"""What was found in one image: people and their keypoints, to draw, save and convert."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swahr import visualize
from swahr.data.images import Image
from swahr.engine.people_file import to_annotations
from swahr.inference.predictor import Prediction
from swahr.skeleton import Skeleton

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Result:
    """The P people of one image; K keypoints in the order of `names`.

    source: the path or name of the image. image: (H, W, 3) uint8 RGB.
    keypoints: (P, K, 2) float32, x and y in image pixels, NaN where a joint was not found.
    keypoint_scores: (P, K) float32, the heatmap's value at the joint, 0 where it was not found.
    scores: (P,) float32, the mean over the joints' scores before refinement: higher is surer.
    tags: (P, T) float32, the mean tag of each person, one for each pass and each resolution whose
    tags are used, times TEST.TAG_SCALE; None from decoders without tags.
    """

    source: str
    image: Image
    keypoints: Floats
    keypoint_scores: Floats
    scores: Floats
    tags: Floats | None
    skeleton: Skeleton

    @property
    def names(self) -> tuple[str, ...]:
        """The K names of the keypoints."""
        return self.skeleton.keypoints

    @cached_property
    def boxes(self) -> Floats:
        """(P, 4): left, top, right and bottom of the found joints, in image pixels; NaN for people
        without any.
        """
        # Other than nanmin, fmin.reduce does not warn where all are NaN.
        low, high = (function.reduce(self.keypoints, 1) for function in (np.fmin, np.fmax))
        return np.concatenate([low, high], 1)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        scores = ", ".join(f"{score:.2f}" for score in self.scores[:5])
        more = ", ..." if len(self) > 5 else ""
        people = f"{self._people()} (scores {scores}{more})" if len(self) else "nobody"
        return f"Result({self.source!r}, {width} x {height} px: {people})"

    def _repr_html_(self) -> str:
        """The drawn image, as notebooks show it."""
        data = base64.b64encode(visualize.encode(self.draw(), ".jpg")).decode()
        source = f"data:image/jpeg;base64,{data}"
        return f'<img alt="{self._people()}" style="max-width:100%" src="{source}">'

    def _people(self) -> str:
        return "1 person" if len(self) == 1 else f"{len(self)} people"

    def _points(self) -> Floats:
        """(P, K, 3): x, y and score, all 0 where a joint was not found."""
        points = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], -1)
        return np.nan_to_num(points)

    def select(self, chosen: NDArray[np.bool_]) -> Result:
        """The result of some of the people only. chosen: (P,) bool, such as scores > 0.3."""
        return replace(
            self,
            keypoints=self.keypoints[chosen],
            keypoint_scores=self.keypoint_scores[chosen],
            scores=self.scores[chosen],
            tags=None if self.tags is None else self.tags[chosen],
        )

    def draw(self, threshold: float = 0.0) -> Image:
        """A copy of the image with skeletons on it, without joints at or below the threshold."""
        return visualize.draw_people(
            self.image, self._points(), self.skeleton, self.scores, threshold=threshold
        )

    def save(self, path: str | Path, threshold: float = 0.0) -> Path:
        """Write the drawn image and return its path, whose ending chooses the format.

        Raises ValueError for an ending of no image format, WriteError if the file cannot be
        written.
        """
        visualize.save_image(Path(path), self.draw(threshold))
        return Path(path)

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """One annotation a person as in COCO's files, by the rules of `swahr predict`: visibility 2
        for joints that were found, 0 for others; people with no joint in the image are dropped.
        """
        height, width = self.image.shape[:2]
        prediction = Prediction(self._points(), self.scores)
        people = to_annotations(prediction, (width, height), -math.inf, 0.0)
        return [
            {"id": number, "image_id": image_id, **person}
            for number, person in enumerate(people, start=1)
        ]

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each person and keypoint.

        Raises ImportError without pandas.
        """
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
        """supervision's KeyPoints, with (0, 0) where a joint was not found.

        Since version 0.29 they have the people's scores too, and which joints were found. Raises
        ImportError without supervision.
        """
        try:
            import supervision
        except ImportError:
            raise ImportError("to_supervision needs supervision: pip install supervision") from None
        values: dict[str, Any] = {"confidence": self.keypoint_scores}
        if "keypoint_confidence" in signature(supervision.KeyPoints).parameters:
            values = {
                "keypoint_confidence": self.keypoint_scores,
                "detection_confidence": self.scores,
                "visible": self.keypoint_scores > 0,
            }
        xy = np.nan_to_num(self.keypoints)
        return supervision.KeyPoints(xy=xy, class_id=np.zeros(len(self), int), **values)


def make_result(
    source: str, image: Image, prediction: Prediction, skeleton: Skeleton, threshold: float = 0.0
) -> Result:
    """The people of an image whose score is at least the threshold."""
    sure = prediction.scores >= threshold
    values = prediction.keypoints[sure]
    found = values[..., 2] > 0
    return Result(
        source=source,
        image=image,
        keypoints=np.where(found[..., None], values[..., :2], np.float32(np.nan)),
        keypoint_scores=np.where(found, values[..., 2], np.float32(0)),
        scores=prediction.scores[sure],
        tags=None if prediction.tags is None else prediction.tags[sure],
        skeleton=skeleton,
    )
