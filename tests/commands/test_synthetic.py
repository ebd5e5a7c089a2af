"""`swahr synthetic`: flags that do not go together, and numbers out of range."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swahr.commands import synthetic
from tests.commands.exit_status import status_of

OF_VIDEO = "--video takes --seed, --size, --frames, --people"


def test_the_flags_that_made_a_benchmark_may_stand_beside_verify() -> None:
    args = synthetic.parse_args(["--verify", "--preset", "benchmark-v1", "--workers", "2"])
    assert args.verify


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--video --train 5", f"--train: {OF_VIDEO}"),
        ("--video --preset calm", f"--preset: {OF_VIDEO}"),
        ("--video --workers 2", f"--workers: {OF_VIDEO}"),
        ("--frames 2", "--frames: it needs --video"),
        ("--people 2 --preset calm", "--people: it needs --video"),
        ("--verify --seed 1", "--seed: --verify takes no flag but --out"),
        ("--verify --preset calm", "--preset: --verify takes no flag but --out"),
        ("--video --verify", "argument --verify: not allowed with argument --video"),
        ("--preset benchmark-v1 --people 2", "--people: it needs --video"),
        ("--video --seed -1", "--seed -1: it must be at least 0"),
        ("--video --frames 0", "--frames 0: it must be at least 1"),
        ("--seed -1", "--seed -1: it must be at least 0"),
        ("--workers 0", "--workers 0: it must be at least 1"),
        ("--train 0", "--train 0: it must be at least 1"),
    ],
)
def test_flags_that_are_wrong_are_one_line(
    flags: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        synthetic.main(["--out", str(tmp_path), *flags.split()])
    assert ended.value.code == 2
    assert f"error: {line}" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [["--video"], ["--train", "1"]])
def test_images_that_fill_the_memory_are_refused(
    kind: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "a"), *kind, "--size", "100000", "64"]
    assert status_of(synthetic.main, arguments) == 2
    assert capsys.readouterr().err == "--size: 100000 px; a side has at most 4096 px\n"


@pytest.mark.parametrize("program", ["swahr.commands.synthetic", "swahr.cli", "make_synthetic"])
def test_the_processes_that_draw_do_without_pytorch(program: str) -> None:
    """They import the command, and the program that was started."""
    code = f"import sys, {program}; sys.exit('torch' in sys.modules)"
    tools = Path(__file__).resolve().parents[2] / "tools"
    assert subprocess.run([sys.executable, "-c", code], cwd=tools).returncode == 0


def test_values_of_flags_that_were_not_given() -> None:
    args = synthetic.parse_args(["--val", "3"])
    assert (args.train, args.val, args.preset, args.size) == (2000, 3, "benchmark", None)
