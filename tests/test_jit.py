"""The cache of compiled kernels, on a small package that has this project's jit.py."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swahr import jit

INNER = """
from swahr.jit import kernel


@kernel
def inner(x):
    return x + {added}
"""
OUTER = """
from swahr.inner import inner
from swahr.jit import callback, kernel
from numba import types


@kernel
def outer(x):
    return 10.0 * inner(x)


def pointed_at(x):
    return 100.0 * inner(x)
"""
USE = """
import ctypes
from numba import types
from swahr import outer
called = outer.callback(outer.pointed_at, types.float64(types.float64))
pointed_at = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(called.address)
print(outer.outer(1.0), pointed_at(1.0))
print(sum(outer.outer.stats.cache_hits.values()), called._cache_hits)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "swahr"
    folder.mkdir()
    shutil.copy(jit.__file__, folder)
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text(INNER.format(added=1.0))
    (folder / "outer.py").write_text(OUTER)
    return folder


def used(package: Path, before: str = "") -> tuple[list[str], str]:
    """What a new process computes, how often it found machine code, and what it said."""
    done = subprocess.run(
        # -B: Python's own cache takes an edit within a second, of the same length, for none.
        [sys.executable, "-B", "-c", before + USE],
        env={"PYTHONPATH": str(package.parent), "HOME": str(package.parent)},
        cwd=package.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_machine_code_is_kept(package: Path) -> None:
    assert used(package) == (["20.0 200.0", "0 0"], "")
    assert used(package) == (["20.0 200.0", "1 1"], "")


def test_an_edit_of_a_kernel_reaches_those_that_call_it(package: Path) -> None:
    used(package)
    (package / "inner.py").write_text(INNER.format(added=2.0))
    assert used(package)[0] == ["30.0 300.0", "0 0"]
    assert used(package)[0] == ["30.0 300.0", "1 1"]


def test_other_files_do_not_count(package: Path) -> None:
    used(package)
    (package / "another.py").write_text("value = 1")
    assert used(package)[0] == ["20.0 200.0", "1 1"]


FULL_DISK = """
from numba.core import caching

def full(self, *arguments):
    raise OSError(28, "No space left on device")

caching.IndexDataCacheFile.{method} = full
"""


@pytest.mark.parametrize("method", ["save", "_save_index"])
def test_a_full_disk_costs_time_only(package: Path, method: str) -> None:
    values, said = used(package, FULL_DISK.format(method=method))
    assert values == ["20.0 200.0", "0 0"]
    assert said == (
        "compiled code is not cached, so every process compiles anew: "
        "[Errno 28] No space left on device\n"
    )


def test_a_cache_that_cannot_be_read_costs_time_only(package: Path) -> None:
    used(package)
    broken = FULL_DISK.format(method="load")
    values, said = used(package, broken)
    assert values == ["20.0 200.0", "0 0"] and said.count("\n") == 1


def test_no_folder_for_the_cache(package: Path) -> None:
    nowhere = """
from numba.core import caching

caching.CacheImpl._locator_classes = []
"""
    values, said = used(package, nowhere)
    assert values[0] == "20.0 200.0"
    assert said == (
        "compiled code is not cached, so every process compiles anew: "
        "no folder for it can be written to\n"
    )
