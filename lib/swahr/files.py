"""Atomic writes: a file is written under another name, flushed to the disk, and then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


class WriteError(OSError):
    """A file could not be written. The message names it and the reason; the file that was there
    before is unchanged.
    """


@contextmanager
def replacing(
    path: str | Path, durable: bool = True, previous: Path | None = None
) -> Iterator[BinaryIO]:
    """A file open for writing that replaces `path` when the block ends without an error.

    Until then, and after an error, a reader sees the previous file. Missing folders are made.
    durable: wait until the file is on the disk, so that it survives a power cut; False for files
    that are quickly made again. previous: the name under which the previous file is kept. Raises
    WriteError if the system cannot write the file, and for a device or a pipe, such as /dev/null,
    which the new file would replace.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError("it is a device or a pipe")
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(
            f"{path}: could not be written ({reason}); what was there is whole"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system in the block become a WriteError that names the file."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def why_unreadable(path: Path) -> str:
    """Why a file cannot be opened, for the end of a message; "" if it can be."""
    try:
        if path.is_dir():
            return "is a folder, not a file"
        if path.exists() and not path.is_file():  # opening a pipe would wait
            return "is not a regular file"
        path.open("rb").close()
    except FileNotFoundError:
        return "no such file"
    except PermissionError:
        return "may not be read by this user"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return ""


def make_folder(path: str | Path) -> Path:
    """Make the folder if it is missing, and return it; WriteError if the system cannot."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"{path}: the folder cannot be made ({error.strerror or error})"
        ) from error
    return path


def write_bytes(path: str | Path, data: bytes, durable: bool = True) -> None:
    """Write a file; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8 with the line ends of `text`; see `replacing`."""
    write_bytes(path, text.encode())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot do it
            os.fsync(handle)
    finally:
        os.close(handle)


def shorten(value: Any) -> str:
    """A value from outside, for a message: printable, on one line, at most 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, deep lists
        text = f"a value of type {type(value).__name__}"
    text = " ".join(line.strip() for line in text.splitlines())
    return text if len(text) <= 60 else f"{text[:57]}..."
