"""The range of values in each tile of a stack of maps, with which the decoder can skip most
pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swahr.jit import kernel

TILE = 16  # pixels: a row of a tile is one cache line of float32

NOT_FINITE = (
    "heatmaps or tags of the network have non-finite values (NaN or infinity): its training has "
    "diverged, or its weights are damaged"
)

Floats = NDArray[np.float32]


class NonFiniteError(ValueError):
    """Maps that cannot be decoded; the message is NOT_FINITE."""


class TileBounds(NamedTuple):
    """min, max: (C, ceil(H / 16), ceil(W / 16), T), the smallest and the largest value of a tile.

    finite: whether every value is finite.
    """

    min: Floats
    max: Floats
    finite: bool


def tile_bounds(maps: Floats) -> TileBounds:
    """The bounds of every 16 x 16 tile of contiguous maps (C, H, W, T), in one pass over memory."""
    channels, height, width, values = maps.shape
    shape = (channels, -(-height // TILE), -(-width // TILE), values)
    smallest = np.empty(shape, np.float32)
    largest = np.empty(shape, np.float32)
    finite = _tile_bounds(maps.reshape(channels, height, width * values), values, smallest, largest)
    return TileBounds(smallest, largest, bool(finite))


@kernel
def _tile_bounds(rows: Floats, values: int, smallest: Floats, largest: Floats) -> bool:
    channels, height, length = rows.shape
    # Rows are merged value by value, which vectorises, and four at a time (the last row may be
    # read twice), which writes less often; then columns are merged to tiles.
    row_low = np.empty(length, np.float32)
    row_high = np.empty(length, np.float32)
    check = np.zeros(length, np.float32)  # the sum of value x 0: not 0 if any is non-finite
    zero = np.float32(0)
    for c in range(channels):
        for ty in range(smallest.shape[1]):
            first = ty * TILE
            last = min(ty * TILE + TILE, height) - 1
            for y in range(first, last + 1, 4):
                one = rows[c, y]
                two = rows[c, min(y + 1, last)]
                three = rows[c, min(y + 2, last)]
                four = rows[c, min(y + 3, last)]
                for i in range(length):
                    a = one[i]
                    b = two[i]
                    d = three[i]
                    e = four[i]
                    least = min(min(a, b), min(d, e))
                    most = max(max(a, b), max(d, e))
                    row_low[i] = min(least, row_low[i]) if y > first else least
                    row_high[i] = max(most, row_high[i]) if y > first else most
                    check[i] += a * zero + b * zero + (d * zero + e * zero)
            for tx in range(smallest.shape[2]):
                for t in range(values):
                    start = tx * TILE * values + t
                    least = row_low[start]
                    most = row_high[start]
                    for i in range(start + values, min(start + TILE * values, length), values):
                        least = min(least, row_low[i])
                        most = max(most, row_high[i])
                    smallest[c, ty, tx, t] = least
                    largest[c, ty, tx, t] = most
    return bool(np.all(check == zero))
