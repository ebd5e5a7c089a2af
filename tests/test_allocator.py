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
SCRIPT = f"""
import resource, numpy as np
from swahr.allocator import keep_memory
keep_memory({{limit}})
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones({BLOCK}, np.uint8)
before = faults()
for _ in range(20):
    np.ones({BLOCK}, np.uint8)
print((faults() - before) * resource.getpagesize())
"""


def cleared_bytes(limit: int) -> int:
    """Bytes that the system had to clear anew for twenty blocks."""
    script = SCRIPT.format(limit=limit)
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
