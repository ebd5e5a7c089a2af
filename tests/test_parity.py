"""The published system's figures, where ../shared is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_all_published_figures_come_out_the_same(shared: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(shared / "parity" / "check.py"), "--project", str(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    failures = [line for line in done.stdout.splitlines() if not line.startswith("ok")]
    assert done.returncode == 0 and failures[-1].endswith(" 0 failed"), "\n".join(
        [*failures, done.stderr]
    )
