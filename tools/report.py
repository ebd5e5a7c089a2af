#!/usr/bin/env python
"""`swahr report` from a clone, see lib/swahr/commands/report.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.report import run

if __name__ == "__main__":
    raise SystemExit(run())
