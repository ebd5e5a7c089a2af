from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from swahr.files import (
    WriteError,
    make_folder,
    naming,
    replacing,
    shorten,
    sync_folder,
    why_unreadable,
    write_bytes,
    write_text,
)


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    write_text(path, "first ä")
    with replacing(path) as file:
        file.write(b"second")
        assert path.read_text(encoding="utf-8") == "first ä"
    assert path.read_bytes() == b"second" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"before")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_folders_are_not_opened_on_windows(tmp_path: Path) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError("Windows does not open folders")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.name", "nt")
        patch.setattr("os.open", refuse)
        sync_folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    assert make_folder(make_folder(tmp_path / "a" / "b")).is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file/a: the folder cannot be made"):
        make_folder(tmp_path / "file" / "a")


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        WriteError, match="file/a: could not be written .*; what was there is whole"
    ):
        write_bytes(tmp_path / "file" / "a", b"")


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    said = r"train.log: cannot be written \(Is a directory\)$"
    with pytest.raises(WriteError, match=said), naming(tmp_path / "train.log"):
        tmp_path.open("a")
    named = WriteError("named already")
    with pytest.raises(WriteError) as caught, naming(tmp_path):
        raise named
    assert caught.value is named


def test_a_full_disk_leaves_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a", b"before")
    monkeypatch.setattr(
        "os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(WriteError, match="a: could not be written .No space left on device."):
        write_bytes(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_the_file_that_was_there_can_be_kept_and_only_once_the_new_one_is_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    kept = tmp_path / "b"
    for text in (b"first", b"second"):
        with replacing(path, previous=kept) as file:
            file.write(text)
    with pytest.raises(KeyError), replacing(path, previous=kept) as file:
        raise KeyError
    assert (path.read_bytes(), kept.read_bytes()) == (b"second", b"first")


def test_a_value_in_a_message_is_one_line() -> None:
    assert shorten("a\nb") == r"'a\nb'"
    assert shorten(np.zeros((2, 1))) == "array([[0.], [0.]])"
    assert shorten("a" * 99) == f"'{'a' * 56}..."
    assert shorten(10**5000) == "a value of type int"


def test_why_a_file_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    assert why_unreadable(path) == "no such file"
    assert why_unreadable(tmp_path) == "is a folder, not a file"
    os.mkfifo(path)
    assert why_unreadable(path) == "is not a regular file"
    path.unlink()
    path.touch()
    assert why_unreadable(path) == ""
    for error, reason in (  # tests may run as a user that may read everything
        (PermissionError(13, "Permission denied"), "may not be read by this user"),
        (OSError(5, "Input/output error"), "cannot be read (Input/output error)"),
    ):
        monkeypatch.setattr(Path, "open", Mock(side_effect=error))
        assert why_unreadable(path) == reason


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Such as /dev/null, for who may write there."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(
        WriteError, match=f"^{pipe}: could not be written .it is a device or a pipe"
    ):
        write_text(pipe, "text")
    assert pipe.is_fifo()
