"""The loop of depthwise.py, compiled for this machine's processor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swahr.jit import kernel


@kernel
def sum_products(padded: NDArray, gradient: NDArray, total: NDArray) -> None:
    """Fill total (C, k, k) with the sums over B, H and W of gradient (B, C, H, W) times the value
    of padded (B, C, H + k - 1, W + k - 1) that each tap of the filter sees there.
    """
    images, channels, height, width = gradient.shape
    taps = total.shape[1]
    columns = np.empty(width, gradient.dtype)  # a sum each, so that neighbours share a vector
    for channel in range(channels):
        for tap_y in range(taps):
            for tap_x in range(taps):
                columns[:] = 0
                for image in range(images):
                    for y in range(height):
                        row = gradient[image, channel, y]
                        seen = padded[image, channel, y + tap_y, tap_x : tap_x + width]
                        for x in range(width):
                            columns[x] += row[x] * seen[x]
                total[channel, tap_y, tap_x] = columns.sum()
