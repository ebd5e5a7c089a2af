"""cuDNN searches for sizes that come often, and no more than a few of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch

from swahr.acceleration.cudnn_search import PASSES, SIZES, BoundedSearch


def searches(bounded: BoundedSearch, shape: Sequence[int]) -> bool:
    """Whether cuDNN may search in a pass over this shape."""
    with bounded.of(shape):
        return torch.backends.cudnn.benchmark


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)


def test_a_size_that_comes_often_is_searched() -> None:
    bounded = BoundedSearch()
    seen = [searches(bounded, (1, 3, 64, 64)) for _ in range(PASSES + 2)]
    assert seen == [False] * PASSES + [True, True]
    assert not searches(bounded, (1, 3, 64, 128))
    assert torch.backends.cudnn.benchmark


def test_no_more_sizes_are_searched_than_allowed() -> None:
    bounded = BoundedSearch()
    found = [
        any([searches(bounded, (1, 3, side, side)) for _ in range(PASSES + 1)])
        for side in range(SIZES + 2)
    ]
    assert found == [True] * SIZES + [False] * 2
    assert searches(bounded, (1, 3, 0, 0))


def test_nothing_is_searched_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    bounded = BoundedSearch()
    assert not any([searches(bounded, (1, 3, 64, 64)) for _ in range(PASSES + 2)])
    assert not torch.backends.cudnn.benchmark


def test_the_setting_returns_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), BoundedSearch().of((1,)):
        raise ZeroDivisionError
    assert torch.backends.cudnn.benchmark


def test_a_network_within_a_network_needs_no_turn() -> None:
    with BoundedSearch().of((1,)):
        assert not searches(BoundedSearch(), (1,))
    assert torch.backends.cudnn.benchmark


def test_the_setting_is_that_of_one_pass_at_a_time() -> None:
    """Whichever threads and networks the passes are of; it is allowed again after the last one."""
    often = BoundedSearch()
    assert [searches(often, (1,)) for _ in range(PASSES + 1)][-1]
    begun = threading.Event()
    inside = threading.Event()
    first_has_ended = threading.Event()

    def second_pass() -> None:
        begun.set()
        with BoundedSearch().of((1,)):
            inside.set()
            first_has_ended.wait(30)

    thread = threading.Thread(target=second_pass)
    with often.of((1,)):
        thread.start()
        begun.wait(30)
        inside.wait(0.2)
        assert torch.backends.cudnn.benchmark
    first_has_ended.set()
    thread.join(30)
    assert inside.is_set() and torch.backends.cudnn.benchmark
