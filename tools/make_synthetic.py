#!/usr/bin/env python
"""`swahr synthetic` from a clone, see lib/swahr/commands/synthetic.py."""

import sys

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.synthetic import main

if __name__ == "__main__":  # the processes that draw import this file, and do without PyTorch
    from swahr.distributed.launch import main_with_exit_status

    main_with_exit_status(lambda: sys.exit(main()))
