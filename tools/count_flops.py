#!/usr/bin/env python
"""`swahr flops` from a clone, see lib/swahr/commands/flops.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.flops import main
from swahr.distributed.launch import main_with_exit_status

if __name__ == "__main__":
    main_with_exit_status(main)
