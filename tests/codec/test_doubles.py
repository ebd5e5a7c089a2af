"""OKS-NMS, against plain loops and on people who were found twice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from swahr.codec.decode import AssociativeDecoder, build_decoder
from swahr.codec.doubles import similarities, without_doubles
from swahr.codec.maps import Maps
from swahr.config import load_config
from swahr.skeleton import COCO
from tests.oracles.crowds import crowd

SIGMAS = (0.05, 0.1, 0.025, 0.08)


def slow_similarity(first: np.ndarray, second: np.ndarray) -> float:
    def joints(person: np.ndarray) -> list[int]:
        return [k for k in range(len(person)) if person[k][2] > 0]

    def area(person: np.ndarray) -> float:
        xs = [person[k][0] for k in joints(person)]
        ys = [person[k][1] for k in joints(person)]
        if not xs:
            return 0.0
        width, height = max(xs) - min(xs), max(ys) - min(ys)
        return max(width, height / 10) * max(height, width / 10)

    fewer = min(len(joints(first)), len(joints(second)))
    total = 0.0
    for k in joints(first):
        if k in joints(second):
            d2 = (first[k][0] - second[k][0]) ** 2 + (first[k][1] - second[k][1]) ** 2
            a = (max(area(first), area(second)) or 32.0 * 32.0) + np.spacing(1)
            total += math.exp(-d2 / (2 * a * (2 * SIGMAS[k]) ** 2))
    return total / fewer if fewer else 0.0


def slow_nms(people: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    stay: list[int] = []
    for person in sorted(range(len(people)), key=lambda i: -scores[i]):
        if all(slow_similarity(people[person], people[other]) <= threshold for other in stay):
            stay.append(person)
    return sorted(stay)


@pytest.mark.parametrize("seed", range(8))
def test_vectorised_equals_the_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    people = random.uniform(0, 60, (5, 4, 3)).astype(np.float32)
    people = np.concatenate([people, people + random.normal(0, 2, people.shape)])
    people[..., 2] = random.uniform(0, 1, people.shape[:2]) * (random.random((10, 4)) < 0.8)
    people[0, :, 2] = 0
    people[1, 1:, 2] = 0
    people[2, :, 1] = 30  # in a line
    scores = random.integers(1, 6, len(people)) / 5  # some are equal
    expected = [[slow_similarity(a, b) for b in people] for a in people]
    np.testing.assert_allclose(similarities(people, SIGMAS), expected, atol=1e-9)
    for threshold in (0.1, 0.5, 0.9):
        stay = without_doubles(people, scores, SIGMAS, threshold)
        assert stay.tolist() == slow_nms(people, scores, threshold)


def test_a_part_of_a_person_goes_and_two_halves_stay() -> None:
    whole = np.array([[[0, 0, 1], [40, 0, 1], [0, 80, 1], [40, 80, 1]]], np.float32)
    part = whole + [1, 1, 0]
    part[0, 2:] = 0
    other = whole.copy()
    other[0, :2] = 0
    scores = np.array([0.3, 0.9])
    assert without_doubles(np.concatenate([part, whole]), scores, SIGMAS, 0.5).tolist() == [1]
    assert without_doubles(np.concatenate([part, other]), scores, SIGMAS, 0.5).tolist() == [0, 1]
    assert without_doubles(whole[:0], np.zeros(0), SIGMAS, 0.5).tolist() == []


def test_the_decoder_drops_doubles_only_if_it_is_told_to() -> None:
    heatmaps, tags = crowd(4, size=(64, 96), joints=4)
    order = range(4)
    found = AssociativeDecoder(grouping_order=order, tag_threshold=0.001)(Maps(heatmaps, tags))[0]
    few = AssociativeDecoder(grouping_order=order, tag_threshold=0.001, oks_nms=0.3, sigmas=SIGMAS)(
        Maps(heatmaps, tags)
    )[0]
    stay = slow_nms(found.keypoints, found.scores, 0.3)
    assert 0 < len(stay) < len(found.scores)
    for got, all_of_them in zip(few, found):
        np.testing.assert_array_equal(got, all_of_them[stay])


def test_the_setting_and_the_sigmas_reach_the_decoder() -> None:
    main = "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"
    decoder = build_decoder(load_config(main, ["TEST.OKS_NMS=0.7", "TEST.SUBPIXEL=True"]), COCO)
    assert (decoder.oks_nms, decoder.sigmas, decoder.subpixel) == (0.7, COCO.sigmas, True)  # type: ignore[attr-defined]
    published = build_decoder(load_config(main), COCO)
    assert (published.oks_nms, published.subpixel) == (0, False)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="sigmas has length 1; oks_nms needs 4"):
        AssociativeDecoder(grouping_order=range(4), oks_nms=0.5, sigmas=(0.1,))
