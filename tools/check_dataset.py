#!/usr/bin/env python
"""`swahr check` from a clone, see lib/swahr/commands/check.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.check import main, run  # noqa: F401

if __name__ == "__main__":
    raise SystemExit(run())
