#!/usr/bin/env python
"""`swahr crowdpose` from a clone, see lib/swahr/commands/crowdpose.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.crowdpose import main

if __name__ == "__main__":
    raise SystemExit(main())
