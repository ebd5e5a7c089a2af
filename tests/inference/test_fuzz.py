"""Images of every size and maps of every content: people lie in the network's input, or the image
is refused in one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from swahr import geometry
from swahr.codec.decode import AssociativeDecoder
from swahr.codec.maps import Maps
from swahr.inference import predictor as module
from swahr.inference.predictor import Prediction, PredictionError, PreparedBatch
from swahr.models.network import StageOutput
from tests.inference.toy_predictor import predictor

# Of an input. The limit is lowered to it, so that no example is slow.
MOST_PIXELS = 1 << 17
sides = st.tuples(st.integers(1, 2000), st.integers(1, 3000)) | st.tuples(
    st.integers(1, 3000), st.integers(1, 2000)
)
seeds = st.integers(0, 2**32 - 1)
contents = st.sampled_from(["constant", "equal maxima", "crowd", "noise", "huge", "negative"])


@pytest.fixture(scope="module", autouse=True)
def small_inputs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_INPUT_PIXELS", MOST_PIXELS)
        yield


def heat(rng: np.random.Generator, content: str, people: int, shape: tuple[int, ...]) -> Tensor:
    """Heatmaps (B, 2, h, w)."""
    maps = np.zeros(shape, np.float32)
    if content == "constant":
        maps += rng.choice([-1.0, 0.0, 0.5, 1.0])
    elif content in ("equal maxima", "crowd"):
        # `people` peaks of each joint, or as many as there are pixels.
        for joint in maps.reshape(-1, *shape[2:]):
            joint.flat[rng.permutation(joint.size)[:people]] = (
                1 if content == "equal maxima" else rng.random() + 0.3
            )
    else:
        maps += rng.normal(0, {"noise": 1, "huge": 1e37, "negative": 1}[content], shape)
        maps = -np.abs(maps) if content == "negative" else maps
    return torch.from_numpy(maps.astype(np.float32))


def identities(rng: np.random.Generator, people: int, shape: tuple[int, ...]) -> Tensor:
    """Tags of that many people."""
    return torch.from_numpy((3.0 * rng.integers(0, people + 1, shape)).astype(np.float32))


class AnyMaps:
    """A network of two resolutions, a quarter and half of its input, whose maps do not depend on
    it.
    """

    def __init__(self, content: str, people: int, seed: int) -> None:
        self.content = content
        self.people = people
        self.rng = np.random.default_rng(seed)

    def __call__(self, images: Tensor) -> list[StageOutput]:
        shapes = [
            (len(images), 2, images.shape[2] // factor, images.shape[3] // factor)
            for factor in (4, 2)
        ]
        first, second = (heat(self.rng, self.content, self.people, shape) for shape in shapes)
        return [
            StageOutput(None, first, identities(self.rng, self.people, shapes[0])),
            StageOutput(None, second, None),
        ]


def decoder(people: int, **rules: Any) -> AssociativeDecoder:
    return AssociativeDecoder(grouping_order=(0, 1), max_people=max(people, 1), **rules)


def check(found: Prediction, low: np.ndarray, high: np.ndarray, which: str = "all") -> None:
    """Finite, and between two corners; which: "all" keypoints, or only those "found", since the
    others have no position.
    """
    assert np.isfinite(found.keypoints).all() and np.isfinite(found.scores).all()
    points = found.keypoints[..., :2][
        found.keypoints[..., 2] > 0 if which == "found" else ...
    ].reshape(-1, 2)
    slack = 1e-3 + 1e-5 * np.abs([low, high]).max()  # of the float32 corners that fix the warp
    assert (points >= low - slack).all() and (points <= high + slack).all()


def plane(
    placement: geometry.InputGeometry, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The corners, in image pixels, of a map of `size` (w, h), one of its pixels farther out."""
    corners = [[-1, -1], [size[0], size[1]]]
    return tuple(geometry.to_image(corners, placement.center, placement.box_scale, size))  # type: ignore[return-value]


@given(
    sides,
    contents,
    st.integers(0, 300),
    st.sampled_from([(1.0,), (0.5, 1.0), (2.0, 0.5, 1.0)]),
    st.booleans(),
    st.booleans(),
    seeds,
)
@example((1, 1), "equal maxima", 300, (1.0,), True, True, 0)
@example((3000, 2000), "crowd", 300, (0.5, 1.0), True, True, 0)
@example((2000, 3000), "constant", 0, (1.0,), False, False, 0)
@settings(max_examples=40, deadline=None)
def test_people_lie_in_the_network_input(
    size: tuple[int, int],
    content: str,
    people: int,
    scales: Sequence[float],
    flip: bool,
    project: bool,
    seed: int,
) -> None:
    """From an image to people; images that would become too large are refused in one line."""
    toy = predictor(scales=scales, flip_index=(1, 0) if flip else None, project=project)
    toy.model = AnyMaps(content, people, seed)
    toy.decoder = decoder(people)
    geometries = toy.geometries(*size)
    width, height = geometries.input_size
    if width * height > MOST_PIXELS:
        with pytest.raises(
            PredictionError, match=r"^an image of \d+ x \d+ pixels is too long and thin: .*$"
        ):
            toy([np.zeros((size[1], size[0], 3), np.uint8)])
        return
    [found] = toy([np.zeros((size[1], size[0], 3), np.uint8)])
    map_size = geometries.full_size if project else (width // 2, height // 2)
    check(found, *plane(geometries.scales[-1], map_size))
    assert content != "constant" or len(found.keypoints) <= max(people, 1) * 2


@given(
    sides,
    contents,
    st.integers(0, 300),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.booleans(),
    seeds,
)
@example((1, 1), "crowd", 300, 1, True, True, 0)
@example((3000, 2000), "equal maxima", 300, 1, True, True, 0)
@settings(max_examples=60, deadline=None)
def test_people_lie_in_the_image_if_maps_are_zero_outside_it(
    size: tuple[int, int],
    content: str,
    people: int,
    factor: int,
    adjust: bool,
    refine: bool,
    seed: int,
) -> None:
    """Up to one pixel, of the map if that is larger. factor: input pixels to one of the map."""
    rng = np.random.default_rng(seed)
    toy = predictor()
    toy.decoder = decoder(people, adjust=adjust, refine=refine)
    geometries = toy.geometries(*size)
    [placement] = geometries.scales
    if placement.size[0] * placement.size[1] > MOST_PIXELS:
        return
    width, height = (side // factor for side in placement.size)
    maps = heat(rng, content, people, (1, 2, height, width))
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    points = geometry.to_image(pixels, placement.center, placement.box_scale, (width, height))
    points = points.reshape(height, width, 2)
    inside = ((points >= 0) & (points <= np.subtract(size, 1))).all(-1)
    maps *= torch.from_numpy(inside)
    tags = identities(rng, people, (1, 2, height, width))[..., None]
    [found] = toy.decode(PreparedBatch([], [geometries]), Maps(maps, tags))
    pixel = max(1.0, placement.box_scale[0] * geometry.BOX_UNIT / width)
    check(found, np.full(2, -pixel), np.subtract(size, 1) + pixel, "found")
    assert inside.any() or not len(found.keypoints)
