"""A tool whose process 1 fails in the middle of its work: failing_tool.py dist_train --cfg ...

The processes that the launcher spawns import this file too, so the mistake is in each of them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from swahr.distributed import comm
from swahr.distributed.launch import main_with_exit_status
from swahr.engine.step_monitor import StepMonitor
from swahr.evaluation.results import PartFiles


def make_mistake(part: type, name: str) -> None:
    """Let a method divide by zero in process 1."""
    original = getattr(part, name)

    def mistaken(self: Any, *arguments: Any, **options: Any) -> Any:
        if comm.rank() == 1:
            print("process 1 makes a mistake", flush=True)
            raise ZeroDivisionError("the failing rank")
        return original(self, *arguments, **options)

    setattr(part, name, mistaken)


make_mistake(StepMonitor, "check")  # of training, after a step
make_mistake(PartFiles, "append")  # of validation, after an image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
    main_with_exit_status(importlib.import_module(sys.argv.pop(1)).main)
