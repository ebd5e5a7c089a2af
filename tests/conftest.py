"""Puts lib/ and the repository on the path, and says where the reference data is."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
for folder in (ROOT, ROOT / "lib"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
# Subprocesses that tests start find the package too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT / "lib"), str(ROOT), os.environ.get("PYTHONPATH", "")]
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference figures and real images; tests that ask for it are skipped where it
    is not.
    """
    if not (SHARED / "golden").is_dir():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def collector_passes_over_modules() -> None:
    """Keeps the garbage collector from visiting what was imported so far: 0.3 s a collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Restores the project's loggers, which tools and runs set up, after each test."""
    yield
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "swahr":
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
