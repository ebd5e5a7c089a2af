"""The panel of what the network sees, on a toy network whose maps are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from swahr.codec.maps import Maps
from swahr.codec.peaks import Peaks
from swahr.engine.explain import CELL, COLUMNS, MARGIN, explain, plot_tags
from swahr.inference.predictor import PredictionError, Predictor
from swahr.models.network import StageOutput
from swahr.skeleton import Skeleton
from swahr.visualize import draw_people, person_colors
from tests.inference.toy_predictor import colours, image, predictor

SKELETON = Skeleton("toy", ("head", "tail"), (), (0.1, 0.1), limbs=((0, 1),))
PHOTO = image(96, 64, [(20, 16), (70, 24)], shade=90)


def with_scales(images: Tensor) -> list[StageOutput]:
    return [stage._replace(scales=stage.heatmaps - 0.5) for stage in colours(images)]


def count(panel: np.ndarray, color: Sequence[int]) -> int:
    """Number of pixels of exactly this colour."""
    return int((panel == color).all(axis=2).sum())


def test_the_people_are_those_of_the_predictor() -> None:
    model = predictor()
    [expected] = model([PHOTO])
    found = explain(model, PHOTO, SKELETON).prediction
    assert len(found.scores) == 2
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_every_person_is_seen_in_its_colour() -> None:
    panel = explain(predictor(), PHOTO, SKELETON).panel
    assert panel.shape[1] == COLUMNS * CELL and panel.dtype == np.uint8
    assert all(count(panel, person_colors(person)[0]) > 20 for person in (0, 1))


def test_people_have_the_same_number_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one was found twice: the first of the two that grouping made is dropped here."""
    drawn = []

    def draw(*args: Any, ids: Any) -> np.ndarray:
        drawn.append(list(ids))
        return draw_people(*args, ids=ids)

    monkeypatch.setattr("swahr.engine.explain.draw_people", draw)
    monkeypatch.setattr("swahr.codec.associative.without_doubles", lambda *people: np.array([1]))
    model = predictor()
    for oks_nms in (0, 0.3):
        model.decoder.oks_nms = oks_nms
        model.decoder.sigmas = SKELETON.sigmas
        explain(model, PHOTO, SKELETON)
    assert drawn == [[0, 1], [1]]


def test_people_below_the_threshold_are_not_drawn() -> None:
    everybody = explain(predictor(), PHOTO, SKELETON).panel
    nobody = explain(predictor(), PHOTO, SKELETON, threshold=10).panel
    assert everybody.shape == nobody.shape
    changed = (everybody != nobody).any(axis=2)
    assert changed[:CELL, :CELL].any() and not changed[:, CELL + 2 :].any()


def test_scale_maps_have_a_place_where_the_network_has_them() -> None:
    plain = explain(predictor(), PHOTO, SKELETON).panel
    model = predictor()
    model.model = with_scales
    scaled = explain(model, PHOTO, SKELETON).panel
    fourth = np.s_[30:100, 3 * (CELL + 2) + 10 : 4 * CELL - 10]
    assert (plain[fourth] == 255).all() and not (scaled[fourth] == 255).all()


def test_decoders_that_do_not_group_have_a_shorter_panel() -> None:
    class Alone:
        """A decoder that shows nothing of its way."""

        def __init__(self, model: Predictor) -> None:
            self.decoder = model.decoder

        def __call__(self, maps: Maps) -> object:
            return self.decoder(maps)

    model = predictor()
    full = explain(model, PHOTO, SKELETON).panel
    model.decoder = Alone(model)  # type: ignore[assignment]
    assert explain(model, PHOTO, SKELETON).panel.shape[0] < full.shape[0] - CELL


def test_images_of_any_size_and_those_that_are_too_thin() -> None:
    for size in ((1, 1), (50, 400)):
        assert explain(predictor(), np.zeros((*size, 3), np.uint8), SKELETON).panel.ndim == 3
    with pytest.raises(PredictionError, match="too long and thin"):
        explain(predictor(), np.zeros((20000, 1, 3), np.uint8), SKELETON)


def two_joints_of_two_people(names: tuple[str, str]) -> np.ndarray:
    """The plot of two joints of two people with the tags 0 and 10, in the order tail, head."""
    tags = np.array([[[0.0], [10.0]], [[10.0], [0.0]]], np.float32)
    shape = tags.shape[:2]
    peaks = Peaks(
        np.zeros(shape, np.int64),
        np.ones(shape, np.float32),
        np.zeros((*shape, 2), np.float32),
        tags,
        np.array([2, 2]),
    )
    return plot_tags(peaks, np.array([[0, 1], [1, 0]]), (1, 0), names)


def test_tags_are_plotted_at_their_values_in_the_colours_of_people() -> None:
    plot = two_joints_of_two_people(("head", "tail"))
    half = plot.shape[0] // 2
    low, high = (person_colors(person)[0] for person in (0, 1))
    assert count(plot[:half], high) > 20 and count(plot[half:], low) > 20
    assert count(plot[:half], low) == count(plot[half:], high) == 0


@pytest.mark.parametrize("name", ["h", "the_left_hand" * 20])
def test_the_name_of_a_joint_is_whole_and_centred_below_its_line(name: str) -> None:
    """Also a name that needs a smaller font. The line of `head` is the right one."""
    plot = two_joints_of_two_people((name, "tail"))
    width = plot.shape[1]
    below = plot[-MARGIN + 4 :, width // 2 :]
    text = width // 2 + np.flatnonzero((below < 255).any(axis=(0, 2)))
    line = MARGIN + (width - 2 * MARGIN) * 3 / 4
    assert abs((text.min() + text.max()) / 2 - line) < 4 and text.max() < width - MARGIN
