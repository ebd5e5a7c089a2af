"""Assignments against the munkres package, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from munkres import Munkres

from swahr.codec.assignment import solve
from swahr.codec.grouping import NO_MATCH_COST


def agree(costs: np.ndarray) -> bool:
    """Whether `solve` gives each row the column that munkres gives it; (n, m) costs are padded as
    each side does it.
    """
    rows, columns = costs.shape
    if rows > columns:
        costs = np.concatenate([costs, np.full((rows, rows - columns), NO_MATCH_COST)], 1)
    want = dict(Munkres().compute(costs.tolist()))
    padded = np.zeros((costs.shape[1], costs.shape[1]))
    padded[:rows] = costs
    return solve(padded)[:rows].tolist() == [want[row] for row in range(rows)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_optimum_is_the_one_munkres_takes(
    rows: int, columns: int, levels: int, seed: int
) -> None:
    """Whole-numbered costs, of which many are equal, square and rectangular both ways."""
    assert agree(np.random.default_rng(seed).integers(0, levels, (rows, columns)).astype(float))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_costs_as_the_decoder_makes_them(rows: int, columns: int, seed: int) -> None:
    """round(distance) x 100 - score: differences are rounded, some scores are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, 9, (rows, 1)).astype(np.float32) / np.float32(9)
    assert agree(rng.integers(0, 4, (rows, columns)) * 100 - scores.astype(float))


@pytest.mark.parametrize(
    "costs",
    [
        [[0.0]],
        [[NO_MATCH_COST]],
        [[5, 5], [5, 5]],
        [[1, 2, 2], [2, 1, 1], [1, 1, 3]],
        [[1e30, 2e30], [1e30, 1e30]],
        [[0, 0, 0, 0]],
        [[1], [0], [2]],
    ],
)
def test_small_cases(costs: list[list[float]]) -> None:
    assert agree(np.array(costs, float))


def test_an_assignment_by_hand() -> None:
    """The cheapest for all is not the cheapest for each: 1 + 2 + 2 = 5."""
    assert solve(np.array([[1.0, 2, 9], [2, 9, 9], [1, 4, 2]])).tolist() == [1, 0, 2]
