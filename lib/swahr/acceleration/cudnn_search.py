"""cuDNN's search for the fastest algorithms (CUDNN.BENCHMARK), bounded.

cuDNN searches again for every input size and batch. A data set has about a dozen sizes, and a
search takes as long as many passes, so that only sizes that come often are worth one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

PASSES = 4  # of a size before it is searched
SIZES = 8  # that are searched


class BoundedSearch:
    """Where cuDNN may search, it does for sizes that come often, for the first SIZES of them.

    Other sizes take cuDNN's own choice, which needs no search.
    """

    def __init__(self) -> None:
        self.passes: Counter[tuple[int, ...]] = Counter()
        self.searched: set[tuple[int, ...]] = set()

    @contextmanager
    def of(self, shape: Sequence[int]) -> Iterator[None]:
        """For one pass over inputs of this shape."""
        flags = torch.backends.cudnn
        allowed = flags.benchmark
        flags.benchmark = allowed and self._is_worth(tuple(shape))
        try:
            yield
        finally:
            flags.benchmark = allowed

    def _is_worth(self, shape: tuple[int, ...]) -> bool:
        self.passes[shape] += 1
        if self.passes[shape] > PASSES and len(self.searched) < SIZES:
            self.searched.add(shape)
        return shape in self.searched
