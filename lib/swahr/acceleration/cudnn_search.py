"""cuDNN's search for the fastest algorithms (CUDNN.BENCHMARK), bounded.

cuDNN searches again for every input size and batch. A data set has about a dozen sizes, and a
search takes as long as many passes, so that only sizes that come often are worth one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import torch

PASSES = 4  # of a size before it is searched
SIZES = 8  # that are searched
_turn = RLock()  # whether cuDNN searches is one setting of the whole process


class BoundedSearch:
    """Where cuDNN may search, it does for sizes that come often, for the first SIZES of them.

    Other sizes take cuDNN's own choice, which needs no search. Threads take turns with their
    passes, whichever network they are of.
    """

    def __init__(self) -> None:
        self.passes: Counter[tuple[int, ...]] = Counter()
        self.searched: set[tuple[int, ...]] = set()

    @contextmanager
    def of(self, shape: Sequence[int]) -> Iterator[None]:
        """For one pass over inputs of this shape."""
        flags = torch.backends.cudnn
        with _turn:
            if flags.benchmark:
                flags.benchmark = self._is_worth(tuple(shape))
                try:
                    yield
                finally:
                    flags.benchmark = True
                return
        yield

    def _is_worth(self, shape: tuple[int, ...]) -> bool:
        self.passes[shape] += 1
        if self.passes[shape] > PASSES and len(self.searched) < SIZES:
            self.searched.add(shape)
        return shape in self.searched
