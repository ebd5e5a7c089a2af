"""How a command ends, as its process would."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import pytest

from swahr.distributed.launch import main_with_exit_status


def status_of(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    """The exit status of a command's main function; an unforeseen error goes up."""
    with pytest.raises(SystemExit) as ended:
        main_with_exit_status(lambda: sys.exit(main(arguments)))
    return int(ended.value.code or 0)
