"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed
into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


class WriteError(OSError):
    """A file that could not be written; the message names it and says why, and that what was there
    before is whole.
    """


@contextmanager
def replacing(
    path: str | Path, durable: bool = True, previous: Path | None = None
) -> Iterator[BinaryIO]:
    """A file open for writing that takes the place of `path` once the block ends well; until then,
    and after an
    error, a reader sees what was there before. Folders are made. Raises WriteError where the system
    cannot write it.

    durable: wait until it is on the disk, so that it lasts through a power cut; False for what is
    quickly made again. previous: the name under which the file that was there is kept.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(beside, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(
            f"{path}: could not be written ({reason}); what was there is whole"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def make_folder(path: str | Path) -> Path:
    """The folder, made if it is not there; WriteError where the system cannot make it."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"{path}: the folder cannot be made ({error.strerror or error})"
        ) from error
    return path


def write_bytes(path: str | Path, data: bytes, durable: bool = True) -> None:
    """Write a whole file; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file in UTF-8; see `replacing`."""
    write_bytes(path, text.encode())


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(handle)
    finally:
        os.close(handle)


def shorten(value: Any) -> str:
    """A value from outside, for a message: printable, on one line, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
