"""Stdout that cannot be written: its reader has gone, or the disk is full."""

from __future__ import annotations

import os
import select
import sys

STDOUT = 1  # its file descriptor
NO_READER = 141  # exit status where nobody reads stdout any more: 128 + SIGPIPE, as in shells


class OutputError(OSError):
    """Stdout could not be written, for instance to a full disk; the message is one line."""


def flush_stdout() -> None:
    """Raises BrokenPipeError where the reader has gone, else OutputError."""
    if sys.stdout is None:  # closed by the shell: >&-
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout: cannot be written ({error.strerror or error})") from None


def drop_stdout() -> None:
    """Flush; drop what cannot be written, which the interpreter would try once more."""
    try:
        flush_stdout()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def has_no_reader(error: BaseException) -> bool:
    """Whether an error says that the reader of stdout has gone. Other pipes and sockets break with
    the same error.
    """
    if not isinstance(error, BrokenPipeError) or not hasattr(select, "poll"):  # not on Windows
        return False
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
