"""Freed memory is reused, unless the variables of the C library say otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are not changed"
)

BLOCK = 1 << 24  # bytes
SCRIPT = """
import ctypes, resource
from swahr.allocator import keep_memory
keep_memory({limit})
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use_blocks(count):
    for _ in range(count):
        block = libc.malloc(ctypes.c_size_t({block}))
        libc.memset(block, 1, {block})
        libc.free(block)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use_blocks(5)
before = faults()
use_blocks(20)
print((faults() - before) * resource.getpagesize())
"""


def cleared_bytes(limit: int) -> int:
    """Bytes that the system had to clear anew for twenty blocks."""
    script = SCRIPT.format(limit=limit, block=BLOCK)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def test_blocks_below_the_limit_are_reused() -> None:
    assert cleared_bytes(2 * BLOCK) < BLOCK


def test_blocks_above_the_limit_go_back() -> None:
    assert cleared_bytes(BLOCK // 2) >= 10 * BLOCK


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
    ],
)
def test_variables_of_the_c_library_decide(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert cleared_bytes(2 * BLOCK) >= 10 * BLOCK
