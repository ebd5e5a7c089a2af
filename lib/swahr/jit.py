"""Compiled loops: one set of Numba options and one cache for all of them.

Kernels release the GIL, so images can be decoded in threads, and never start threads of their own.
The first call of each compiles it: about ten seconds for all kernels of the decoder. The machine
code is cached beside the module, or in the user's cache folder if that is read-only, and later
processes load it in a fraction of a second.

Numba alone recompiles a kernel if its own file changed, not if that of a kernel it calls did. Here
the cache also belongs to a digest of all files of the package that define kernels. Kernels outside
the package that call kernels of another file outside it have Numba's rule only.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import sigutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc

logger = logging.getLogger("swahr")


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call, with IEEE arithmetic in the order of the source."""
    compiled = njit(nogil=True, error_model="numpy")(function)
    _enable_cache(compiled, function)
    return compiled


def callback(function: Callable[..., Any], signature: Any) -> Any:
    """Compile `function` now, for one Numba signature.

    C code can call its .address as long as the result is referenced.
    """
    options = {"error_model": "numpy"}
    compiled = CFunc(function, sigutils.normalize_signature(signature), {}, options)
    _enable_cache(compiled, function)
    compiled.compile()
    return compiled


def _enable_cache(compiled: Any, function: Callable[..., Any]) -> None:
    try:
        compiled._cache = _KernelCache(function)
    except RuntimeError:  # no folder can be written to
        _warn_once("no folder for it can be written to")


class _KernelCache(FunctionCache):
    """Numba's cache on disk, invalidated by a change of any kernel of the package.

    A cache that cannot be read or written costs time, not the run.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(self._impl.locator.get_source_stamp(), sources_digest()),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except OSError as error:
            _warn_once(str(error))
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn_once(str(error))


@cache
def sources_digest() -> str:
    """Hexadecimal digits that change with any file of the package that defines kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        source = path.read_bytes()
        if b"swahr.jit" in source or path == Path(__file__):
            digest.update(source)
    return digest.hexdigest()


_warnings: list[str] = []


def _warn_once(problem: str) -> None:
    if not _warnings:
        logger.warning("compiled code is not cached, so every process compiles anew: %s", problem)
    _warnings.append(problem)
