"""Maps over the image: where the network saw something, and which tag it has there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from swahr.engine.map_overlays import MapOverlays
from swahr.inference.predictor import PredictionError
from tests.inference.toy_predictor import image, predictor


def reddest(drawing: np.ndarray) -> tuple[int, int]:
    """x and y of the pixel whose heatmap is highest."""
    red = cv2.blur(drawing[..., 0].astype(float) - drawing[..., 2], (5, 5))
    y, x = np.unravel_index(red.argmax(), red.shape)
    return int(x), int(y)


@pytest.mark.parametrize("options", [{}, {"scales": [0.5, 1.0], "flip_index": None}])
@pytest.mark.parametrize("project", [True, False])
def test_heatmaps_lie_where_the_joint_is(options: dict, project: bool) -> None:
    """On a wide image, at half its size."""
    photo = image(200, 128, [(150, 60)], spread=6)
    photo[..., 1] = 0  # red joints only
    shown = cv2.resize(photo, (100, 64), interpolation=cv2.INTER_AREA)
    drawings = MapOverlays(predictor(project=project, **options))(photo, shown)
    assert drawings.keys() == {"heatmaps", "tags"}
    assert all(drawing.shape == shown.shape for drawing in drawings.values())
    x, y = reddest(drawings["heatmaps"])
    assert abs(x - 75) <= 3 and abs(y - 30) <= 3


def test_people_of_other_tags_have_other_colours() -> None:
    photo = image(128, 64, [(30, 15), (90, 15)], spread=6, shade=100)
    drawing = MapOverlays(predictor())(photo, photo)["tags"].astype(int)
    first = drawing[15, 30]
    second = drawing[15, 90]
    assert np.abs(first - second).max() > 100
    assert np.abs(drawing[35, 30] - first).max() < 60  # the same person's other joint


def test_an_image_that_the_network_cannot_take_is_named() -> None:
    thin = np.zeros((9999, 1, 3), np.uint8)
    with pytest.raises(PredictionError, match="is too long and thin"):
        MapOverlays(predictor())(thin, thin)
