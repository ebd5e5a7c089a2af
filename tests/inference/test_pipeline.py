from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

from swahr.data.images import Image, ImageError
from swahr.inference.pipeline import find_people, prefetch, thread_pool
from swahr.inference.predictor import ImageGeometry, PredictionError
from tests.inference.toy_predictor import image, predictor

IMAGES = {
    "a": image(64, 64, [(20, 20)]),
    "b": image(128, 64, [(20, 20), (100, 30)]),
    "c": image(64, 64, []),
    "thin": np.zeros((30000, 2, 3), np.uint8),
}


class Images:
    def read(self, image_id: str) -> Image:
        if image_id not in IMAGES:
            raise ImageError(f"{image_id}: cannot be read")
        return IMAGES[image_id]


def test_the_people_are_those_of_the_predictor() -> None:
    people = predictor(batch_size=2)
    results = list(find_people(Images(), people, [["a", "b", "c"], ["a"]]))
    assert [result.image_id for result in results] == ["a", "c", "b", "a"]
    for result in results:
        [expected] = people([IMAGES[result.image_id]])
        np.testing.assert_array_equal(result.prediction.keypoints, expected.keypoints)
        np.testing.assert_array_equal(result.prediction.scores, expected.scores)
    assert [len(result.prediction.scores) for result in results] == [1, 0, 2, 1]


def test_the_geometry_of_an_image_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    people = predictor(scales=(0.5, 1, 2), batch_size=2)
    sizes = []
    geometries = people.geometries

    def counting(width: int, height: int) -> ImageGeometry:
        sizes.append((width, height))
        return geometries(width, height)

    monkeypatch.setattr(people, "geometries", counting)
    list(find_people(Images(), people, [["a", "b", "c"]]))
    assert sizes == [(64, 64), (128, 64), (64, 64)]


@pytest.mark.parametrize(
    ("image_id", "error", "message"),
    [
        ("none", ImageError, "none: cannot be read"),
        ("thin", PredictionError, "image thin: an image of 2 x 30000 pixels is too long and thin"),
    ],
)
def test_an_image_that_cannot_be_used_stops_or_is_skipped(
    image_id: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(find_people(Images(), predictor(), [[image_id]]))
    results = list(find_people(Images(), predictor(), [[image_id, "a"]], skip_bad=True))
    assert [result.image_id for result in results] == ["a", image_id]
    assert results[1].prediction is None and results[1].problem.startswith(message)


def test_images_before_an_error_are_found() -> None:
    found = []
    with pytest.raises(ImageError):
        for result in find_people(Images(), predictor(), [["a"], ["b"], ["c"], ["none"]]):
            found.append(result.image_id)
    assert found == ["a", "b", "c"]


@pytest.mark.parametrize(("look_ahead", "taken_first"), [(False, ["a"]), (True, ["a", "b", "c"])])
def test_without_look_ahead_results_come_before_the_next_group_is_asked_for(
    look_ahead: bool, taken_first: list[str]
) -> None:
    taken = []

    def groups() -> Iterator[list[str]]:
        for name in ("a", "b", "c"):
            taken.append(name)
            yield [name]

    found = find_people(Images(), predictor(), groups(), look_ahead=look_ahead)
    assert next(found).image_id == "a" and taken == taken_first
    assert [result.image_id for result in found] == ["b", "c"]


def test_prefetch_keeps_the_order_and_the_depth() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(6):
            taken.append(i)
            yield i

    with ThreadPoolExecutor(3) as pool:
        results = prefetch(pool, lambda i: i * i, items(), 2)
        assert next(results) == 0 and taken == [0, 1, 2]
        assert list(results) == [1, 4, 9, 16, 25]
        assert list(prefetch(pool, str, [], 2)) == []


def test_prefetch_gives_the_results_before_an_error_of_the_items() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ZeroDivisionError

    results: list[Any] = []
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        for result in prefetch(pool, str, items(), 5):
            results.append(result)
    assert results == ["1", "2"]


def test_work_that_has_not_begun_is_cancelled_at_an_error() -> None:
    cancelled = Event()
    with pytest.raises(ZeroDivisionError), thread_pool(1) as pool:
        pool.submit(cancelled.wait, 10)
        waiting = pool.submit(int)
        waiting.add_done_callback(lambda _: cancelled.set())
        raise ZeroDivisionError
    assert waiting.cancelled()


def test_a_pool_has_at_least_one_thread() -> None:
    with thread_pool(0) as pool:
        assert pool.submit(int).result() == 0
