"""The assignment problem, solved to the same optimum among equal ones as by munkres 1.1.4.

J. Munkres, Algorithms for the Assignment and Transportation Problems, 1957: reduce the rows, star
zeros, cover their columns; prime uncovered zeros until a chain of primes and stars gives one more
row a star; if no zero is uncovered, shift the smallest uncovered cost. If several optima are
equally good, the order of the scans and the rounding of every subtraction decide which one results,
and the results of the published decoder depend on it. This module scans and rounds as that package
does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swahr.jit import kernel


@kernel
def solve(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Square costs (n, n), overwritten -> for each row its column, at the least total cost."""
    n = costs.shape[0]
    star_of_row = np.full(n, -1)
    star_of_column = np.full(n, -1)
    prime_of_row = np.full(n, -1)
    row_covered = np.zeros(n, np.bool_)
    column_covered = np.zeros(n, np.bool_)
    stars = 0
    for i in range(n):
        least = costs[i].min()
        for j in range(n):
            costs[i, j] -= least
        for j in range(n):
            if costs[i, j] == 0 and star_of_column[j] < 0:
                star_of_row[i] = j
                star_of_column[j] = i
                stars += 1
                break
    while stars < n:
        for i in range(n):
            row_covered[i] = False
            column_covered[i] = star_of_column[i] >= 0
        row = _prime_until_free(costs, star_of_row, prime_of_row, row_covered, column_covered)
        # Each prime of the chain becomes a star: prime, star in its column, prime in its row, ...
        while row >= 0:
            column = prime_of_row[row]
            previous = star_of_column[column]
            star_of_row[row] = column
            star_of_column[column] = row
            row = previous
        stars += 1
    return star_of_row


@kernel
def _prime_until_free(costs, star_of_row, prime_of_row, row_covered, column_covered) -> int:  # type: ignore[no-untyped-def]
    """Prime uncovered zeros, making new ones as needed, until one lies in a row without a star;
    returns that row.
    """
    row = 0
    column = 0
    while True:
        row, column = _find_zero(costs, row, column, row_covered, column_covered)
        if row < 0:
            _shift(costs, row_covered, column_covered)
            row = 0
            column = 0
            continue
        prime_of_row[row] = column
        if star_of_row[row] < 0:
            return row
        column = star_of_row[row]
        row_covered[row] = True
        column_covered[column] = False


@kernel
def _find_zero(costs, first_row, first_column, row_covered, column_covered):  # type: ignore[no-untyped-def]
    """The last uncovered zero, with columns counted from first_column, of the first row that has
    one, with rows counted from first_row; -1, -1 if there is none.
    """
    n = costs.shape[0]
    for i in range(n):
        row = (first_row + i) % n
        if row_covered[row]:
            continue
        for j in range(n):
            column = (first_column - 1 - j) % n
            if costs[row, column] == 0 and not column_covered[column]:
                return row, column
    return -1, -1


@kernel
def _shift(costs, row_covered, column_covered):  # type: ignore[no-untyped-def]
    """Add the smallest uncovered cost to the covered rows and subtract it from the uncovered
    columns.
    """
    n = costs.shape[0]
    least = np.inf
    for i in range(n):
        if not row_covered[i]:
            for j in range(n):
                if not column_covered[j]:
                    least = min(least, costs[i, j])
    for i in range(n):
        for j in range(n):
            if row_covered[i]:
                costs[i, j] += least
            # In a covered row and an uncovered column both are done: the rounding decides results.
            if not column_covered[j]:
                costs[i, j] -= least
