"""Compiled loops: one set of Numba options for all of them.

Kernels release the GIL, so images can be decoded in threads, and never start threads of their own.
The first call of each compiles it (about ten seconds for all of the decoder's, once per machine and
version: the code is kept beside the module, or in the user's cache folder where that cannot be
written); later processes load it in a fraction of a second. Only the modules that turn images into
people import Numba; training does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cfunc, njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call, with IEEE arithmetic kept in the order written."""
    return _kept(lambda **options: njit(nogil=True, error_model="numpy", **options)(function))


def callback(function: Callable[..., Any], signature: Any) -> Any:
    """Compile `function` now, for one Numba signature; C code can call its .address as long as the
    result is kept.
    """
    return _kept(lambda **options: cfunc(signature, error_model="numpy", **options)(function))


def _kept(compiled: Callable[..., Any]) -> Any:
    try:
        return compiled(cache=True)
    except (
        RuntimeError
    ):  # no folder in which compiled code could be kept: every process compiles for itself
        return compiled()
