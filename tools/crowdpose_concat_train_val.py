#!/usr/bin/env python
"""`swahr crowdpose` from a clone, see lib/swahr/commands/crowdpose.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.crowdpose import main
from swahr.distributed.launch import main_with_exit_status

if __name__ == "__main__":
    main_with_exit_status(main)
