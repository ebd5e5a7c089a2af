"""An exported network against PyTorch, on an image and its mirror image: maps and people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from swahr.codec.associative import People
from swahr.codec.doubles import similarities
from swahr.codec.maps import Maps
from swahr.data.images import Image
from swahr.exported import HEATMAPS, TAGS, ExportedError
from swahr.inference.predictor import Predictor


class Bounds(NamedTuple):
    """maps: largest difference of a map's value, as a fraction of the map's largest value.
    oks: from this similarity on, two people are the same. share: of the people of each network, how
    many must be among those of the other.
    """

    maps: float
    oks: float
    share: float


# float16 has 11 bits: each of some hundred convolutions in a row rounds by up to 5e-4.
# People whose score is near the threshold may then be found by one of the two only.
BOUNDS = {"float32": Bounds(1e-4, 0.99, 1.0), "float16": Bounds(1e-2, 0.9, 0.9)}


class Agreement(NamedTuple):
    """maps: the largest difference, as a fraction of the largest value. people: found in both
    images by each network.
    """

    maps: float
    people: int


def compare(
    exported: Predictor,
    reference: Predictor,
    image: Image,
    bounds: Bounds,
    sigmas: Sequence[float],
) -> Agreement:
    """How far an exported network agrees with the reference. Raises ExportedError if not within the
    bounds.

    sigmas: of the K decoded joints. Both predictors have the same settings.
    """
    images = [image, np.ascontiguousarray(image[:, ::-1])]
    largest = 0.0
    count = 0
    for predictor in (exported, reference):
        predictor.batch_size = len(images)  # so that a batch is tried too
    for _, batch in reference.prepare(images):
        given = exported.whole_maps(batch)
        expected = reference.whole_maps(batch)
        largest = max([largest, *_differences(given, expected, bounds.maps)])
        for found, wanted in zip(exported.whole_decoder(given), reference.whole_decoder(expected)):
            _check_people(found, wanted, bounds, sigmas, largest)
            count += len(wanted.scores)
    return Agreement(largest, count)


def _differences(given: Maps, expected: Maps, bound: float) -> Iterator[float]:
    for name, maps, wanted in _pairs(given, expected):
        error = float((maps - wanted).abs().max())
        difference = error / max(float(wanted.abs().max()), torch.finfo(torch.float32).tiny)
        if not difference <= bound:  # NaN too
            raise ExportedError(
                f"{name} differ from PyTorch's by {difference:.1e} of the largest value; at most "
                f"{bound:.0e} is rounding"
            )
        yield difference


def _pairs(given: Maps, expected: Maps) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    yield HEATMAPS, given.heatmaps, expected.heatmaps
    if given.tags is not None and expected.tags is not None:
        yield TAGS, given.tags, expected.tags
    for name, maps in given.extra.items():
        yield name, maps, expected.extra[name]


def _check_people(
    found: People, wanted: People, bounds: Bounds, sigmas: Sequence[float], difference: float
) -> None:
    """Raises ExportedError where too few are the same. difference: the largest one of the maps."""
    given = len(found.scores)
    expected = len(wanted.scores)
    both = np.concatenate([found.keypoints, wanted.keypoints])
    alike = similarities(both, sigmas)[:given, given:] >= bounds.oks
    least = bounds.share * max(given, expected)
    same = min(alike.any(0).sum(), alike.any(1).sum()) if alike.size else 0
    if same < least:
        raise ExportedError(
            f"{given} people are found and PyTorch's are {expected}, of which {same} are the same "
            f"(OKS of at least {bounds.oks}); {bounds.share:.0%} must be; the maps agree (they "
            f"differ by {difference:.1e} of the largest value), so that only near ties came out "
            "otherwise: give --image FILE with people that the network knows, or train it longer"
        )
