"""torch.compile, and one line where it cannot work."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import Any

import torch

# On each kind of device: the variable that names the compiler, and the names tried without it.
COMPILERS = {
    "cpu": ("CXX", ("clang++",) if sys.platform == "darwin" else ("g++",)),
    "cuda": ("CC", ("clang", "gcc")),
}


class CompileError(ValueError):
    """torch.compile cannot work here; the message is one line."""


def compile_network(network: Any, key: str, device: torch.device, mode: str = "default") -> Any:
    """torch.compile, for a setting called `key`.

    Raises CompileError where the machine lacks the compiler that torch would call at the first
    pass, or the variable that names it is no command.
    """
    variable, usual = COMPILERS.get(device.type, ("", ()))
    command = os.environ.get(variable, "")
    try:
        named = shlex.split(command)[:1]
    except ValueError as error:  # such as: No closing quotation
        raise CompileError(
            f"{key}: the variable {variable} is no command: {command} ({error})"
        ) from None
    names = named or usual
    if names and not any(map(shutil.which, names)):
        given = f"{variable}={named[0]}" if named else " or ".join(usual)
        raise CompileError(
            f"{key}: torch.compile needs a compiler, and there is no {given} on this machine; "
            f"install it, name another in the variable {variable}, or switch {key} off"
        )
    return torch.compile(network, mode=mode)
