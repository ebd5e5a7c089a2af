#!/usr/bin/env python
"""`swahr dlc` from a clone, see lib/swahr/commands/dlc.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.dlc import main
from swahr.distributed.launch import main_with_exit_status

if __name__ == "__main__":
    main_with_exit_status(main)
