"""The command `swahr`: it runs what tools/ run, and says what is wrong in one line."""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import swahr
from swahr import cli
from swahr.cli import COMMANDS, CommandError, run
from swahr.parts import PartError

ROOT = Path(__file__).resolve().parents[1]
# Commands that load a configuration -> arguments, of which no file is there.
CONFIGURED = {
    "train": ["--cfg", "none.yaml"],
    "val": ["--cfg", "none.yaml"],
    "predict": ["none.jpg", "--weights", "none.pth"],
    "report": ["none.json", "--annotations", "none.json"],
    "check": ["--cfg", "none.yaml"],
    "score": ["--cfg", "none.yaml", "none.json"],
    "export": ["none.pth", "--output", "none.onnx"],
    "info": ["none.pth"],
    "publish": ["none.pth", "--out", "none"],
    "ablation": ["none.yaml"],
    "flops": ["--cfg", "none.yaml"],
}
OTHERS = {"synthetic", "benchmark", "dlc", "lsp", "crowdpose"}
TOOLS = sorted(path for path in (ROOT / "tools").glob("*.py") if path.stem != "_init_paths")
NAMES = ["train", "val", "predict", "report", "check", "score", "benchmark", "info", "synthetic"]


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores sys.argv and sys.path, which commands change."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run([name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: swahr {name} ") and "--help" in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_in_the_help_are_whole_lines(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that ends in one backslash in a docstring goes on in the next, with its blanks."""
    with pytest.raises(SystemExit):
        run([name, "--help"])
    text = capsys.readouterr().out.partition("\noptions:")[0]
    assert not re.search(r"^ {4}\S.*\S {5,}[^\s#]", text.partition("\npositional")[0], re.MULTILINE)


def test_every_command_loads_a_configuration_or_does_not() -> None:
    assert {*CONFIGURED, *OTHERS} == set(COMMANDS)


@pytest.mark.parametrize("name", CONFIGURED)
def test_commands_import_modules_before_they_load_a_configuration(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((PartError, SystemExit)) as ended:
        run([name, *CONFIGURED[name], "--import", "no_such_module"])
    said = f"{ended.value}\n{capsys.readouterr().err}"
    assert "--import no_such_module: ModuleNotFoundError: " in said and "none." not in said


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_ctrl_c_in_a_tool_is_one_line(
    tool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.syspath_prepend(str(tool.parent))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", interrupted)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_intermixed_args", interrupted)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        runpy.run_path(str(tool), run_name="__main__")
    assert isinstance(ended.value, SystemExit) and ended.value.code == 130
    assert capsys.readouterr().err == "stopped by SIGINT\n"


def test_ctrl_c_while_pytorch_is_imported_is_one_line() -> None:
    program = """
import runpy, sys

class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
sys.argv = ["swahr", "--version"]
runpy.run_module("swahr", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped by SIGINT\n")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run(arguments)
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in NAMES)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--version"])
    assert capsys.readouterr().out == f"swahr {swahr.__version__}\n"


def test_an_unknown_command_is_one_line() -> None:
    with pytest.raises(CommandError, match="^swahr fly: no such command; it is one of train, val"):
        run(["fly"])


def test_the_exit_status_is_that_of_the_command(tmp_path: Path) -> None:
    """`swahr info` of a file that does not load ends with 1."""
    (tmp_path / "empty.pth").touch()
    with pytest.raises(SystemExit) as ended:
        run(["info", str(tmp_path / "empty.pth")])
    assert ended.value.code == 1


def test_a_package_without_the_repository_cannot_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "REPOSITORY", tmp_path)
    with pytest.raises(CommandError, match="^swahr benchmark: needs a clone of the repository"):
        run(["benchmark", "--help"])


@pytest.mark.parametrize(
    "program", [["-m", "swahr", "score"], [str(ROOT / "tools/score_results.py")]]
)
def test_the_package_and_the_tools_are_programs(program: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    command = [sys.executable, *program, "--cfg", str(missing), "results.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"{missing}: cannot be read") and done.stderr.count("\n") == 1


def test_tools_hold_no_code_of_their_own() -> None:
    """Each imports its command, so that an installed package has all of them."""
    for path in (ROOT / "tools").glob("*.py"):
        if path.name not in ("_init_paths.py", "benchmark.py"):
            assert "from swahr.commands." in path.read_text(), path
            assert len(path.read_text().splitlines()) < 15, path
