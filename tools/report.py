#!/usr/bin/env python
"""`swahr report` from a clone, see lib/swahr/commands/report.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.report import main
from swahr.distributed.launch import main_with_exit_status

if __name__ == "__main__":
    main_with_exit_status(main)
