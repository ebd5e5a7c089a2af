#!/usr/bin/env python
"""`swahr dlc` from a clone, see lib/swahr/commands/dlc.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.dlc import main

if __name__ == "__main__":
    raise SystemExit(main())
