#!/usr/bin/env python
"""`swahr synthetic` from a clone, see lib/swahr/commands/synthetic.py."""

import _init_paths  # noqa: F401  (first: it puts lib/ on the path)

# isort: split
from swahr.commands.synthetic import main

if __name__ == "__main__":
    raise SystemExit(main())
