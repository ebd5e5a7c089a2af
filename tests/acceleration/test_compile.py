"""torch.compile on a machine with and without a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from swahr.acceleration.compile import CompileError, compile_network

CPU = torch.device("cpu")


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes in which something was compiled; no compiler is found."""
    asked: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda network, mode: asked.append(mode) or network)
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    return asked


@pytest.mark.parametrize(
    ("device", "variable", "given", "says"),
    [
        (CPU, "CXX", "", "there is no (g|clang)\\+\\+ on this machine; .* in the variable CXX, "),
        (CPU, "CXX", "/no/such/c++ -O2", "there is no CXX=/no/such/c\\+\\+ on this machine"),
        (torch.device("cuda"), "CC", "", "there is no clang or gcc on this machine"),
    ],
)
def test_one_line_where_there_is_no_compiler(
    device: torch.device,
    variable: str,
    given: str,
    says: str,
    modes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, given)
    with pytest.raises(CompileError, match=f"^TEST.COMPILE: torch.compile needs .*{says}") as error:
        compile_network(nn.Identity(), "TEST.COMPILE", device)
    assert not modes and "\n" not in str(error.value)


@pytest.mark.parametrize(("device", "variable"), [(CPU, "CXX"), (torch.device("cuda"), "CC")])
def test_one_line_where_the_compiler_cannot_be_read(
    device: torch.device, variable: str, modes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, '"g++ -O2')
    line = f'TRAIN.COMPILE: the variable {variable} is no command: "g++ -O2 (No closing quotation)'
    with pytest.raises(CompileError) as error:
        compile_network(nn.Identity(), "TRAIN.COMPILE", device)
    assert str(error.value) == line and not modes


def test_any_of_the_compilers_will_do(
    modes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gcc", "own"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    compile_network(nn.Identity(), "TEST.COMPILE", torch.device("cuda"))
    monkeypatch.setenv("CXX", "own --fast")
    compile_network(nn.Identity(), "TRAIN.COMPILE", CPU, "max-autotune")
    assert modes == ["default", "max-autotune"]
