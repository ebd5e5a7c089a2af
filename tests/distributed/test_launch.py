"""How tools end: exit statuses and last lines, also where stdout cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swahr.distributed import launch
from swahr.distributed.launch import exit_status, is_known, main_with_exit_status

FULL_DISK = Path("/dev/full")


def swahr(*arguments: str, stdout: int, **variables: str) -> tuple[int, str]:
    """The exit status and the errors of a command that writes to a file."""
    done = subprocess.run(
        [sys.executable, "-m", "swahr", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (["--version"], ""),
        (["--version"], "1"),
        (["flops", "--list-keys"], ""),  # SystemExit after more than a buffer
        (["flops", "--cfg", "none.yaml", "--help"], ""),
    ],
)
def test_a_reader_that_has_gone_is_no_error(arguments: list[str], unbuffered: str) -> None:
    """As in `swahr info demo | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert swahr(*arguments, stdout=writer, PYTHONUNBUFFERED=unbuffered) == (141, "")
    finally:
        os.close(writer)


def test_an_error_is_told_though_the_reader_has_gone() -> None:
    """With its own status, and nothing about what was printed before it."""
    program = """
from swahr.cli import CommandError
from swahr.distributed.launch import main_with_exit_status

def main():
    print("a line")
    raise CommandError("wrong")

main_with_exit_status(main)
"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": ""},
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (2, "wrong\n")


@pytest.mark.skipif(not FULL_DISK.exists(), reason="needs /dev/full")
def test_output_that_does_not_fit_on_the_disk_is_one_line() -> None:
    with FULL_DISK.open("wb") as file:
        ended = swahr("--version", stdout=file.fileno(), PYTHONUNBUFFERED="")
    assert ended == (3, "stdout: cannot be written (No space left on device)\n")


def test_other_pipes_that_break_keep_their_traceback() -> None:
    """Such as that of a worker which has died."""
    error = BrokenPipeError(32, "Broken pipe")
    assert exit_status(error) == 1 and not is_known(error)


def reads(path: Path, module: str) -> Callable[[], object]:
    """A function of a module of that name, which reads a file."""
    namespace: dict[str, Any] = {"__name__": module, "path": path}
    exec("def main():\n    return path.read_text()", namespace)
    main: Callable[[], object] = namespace["main"]
    return main


def test_an_error_of_the_system_about_a_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example a folder that this user may not enter, wherever it is looked into."""
    path = tmp_path / "none"
    with pytest.raises(SystemExit) as ended:
        main_with_exit_status(reads(path, "swahr.data.made"))
    assert ended.value.code == 3
    assert capsys.readouterr().err == f"{path}: No such file or directory\n"


def test_a_file_that_a_users_own_module_misses_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main_with_exit_status(reads(tmp_path / "none", "my_hooks"))


def test_an_error_of_the_system_without_a_file_keeps_its_traceback() -> None:
    def main() -> None:
        raise OSError(12, "Cannot allocate memory")

    with pytest.raises(OSError, match="Cannot allocate memory"):
        main_with_exit_status(main)


@pytest.mark.parametrize(
    ("rank", "local_rank", "line"),
    [
        (0, 0, ""),
        (4, 0, "ranks here: 4 to 5 of 6; rank 0, on another node, logs\n"),
        (5, 1, ""),
    ],
)
def test_a_node_that_logs_nothing_says_so(
    rank: int,
    local_rank: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = {"RANK": rank, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": 2, "WORLD_SIZE": 6}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    launch._say_where_rank_0_is()
    assert capsys.readouterr().err == line
