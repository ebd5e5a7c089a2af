"""Compiled loops: one set of Numba options for the whole decoder.

Kernels release the GIL, so images can be decoded in threads, and never start threads of their own. The first call of
each compiles it (about ten seconds for all of them, once per machine and version: the code is kept beside the module,
or in the user's cache folder where that cannot be written); later processes load it in a fraction of a second. Only the
modules that turn maps into people import Numba; training does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call, with IEEE arithmetic kept in the order written."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder in which compiled code could be kept: every process compiles for itself
        return njit(nogil=True, error_model="numpy")(function)
