"""Which figures are defined."""

from __future__ import annotations

import pytest

from swahr.evaluation.figures import UNDEFINED, is_defined
from swahr.evaluation.metrics import format_table


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, True),
        (0.0, True),
        (-0.5, True),
        (UNDEFINED, False),
        (float("nan"), False),
        (None, False),
    ],
)
def test_figures_that_are_defined(value: float | None, expected: bool) -> None:
    assert is_defined(value) is expected


def test_a_table_has_figures_below_zero_and_dashes_for_undefined_ones() -> None:
    table = format_table("tiny", {"AP": 0.5, "gain": -0.25, "AP (L)": -1.0, "own": float("nan")})
    assert table.splitlines()[2] == "| tiny | 0.500 | -0.250 | - | - |"
