"""Imported first by every tool: puts lib/ on the path, so that the tools run from a clone without
`pip install -e .`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIB = str(ROOT / "lib")
if LIB not in sys.path:
    sys.path.insert(0, LIB)
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # benchmarks/ and tests/oracles, for tools/benchmark.py
# Processes that a tool starts (one per GPU, data loading workers) find the package too.
if LIB not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [LIB, os.environ.get("PYTHONPATH", "")])
    )
