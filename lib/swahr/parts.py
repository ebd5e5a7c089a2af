"""Exchangeable parts: plain dicts from a name to a build function, and modules of a user that add
to them.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


class PartError(ValueError):
    """A part of an unknown name, or a module that cannot be imported; the message is one line."""


def choose(parts: Mapping[str, Part], name: str, key: str) -> Part:
    """The part of that name; PartError if there is none. key: the setting that gives the name."""
    if name not in parts:
        unknown_part(key, name, parts)
    return parts[name]


def unknown_part(key: str, name: str, parts: Iterable[str]) -> NoReturn:
    """Raise PartError, which lists the names of the parts. key: the setting that gives the name."""
    known = ", ".join(parts)
    raise PartError(
        f"{key} is {name!r}; it is one of {known}; a module of your own is named with --import"
    )


def import_modules(names: Iterable[str]) -> None:
    """Import modules of a user by name, so that they add to the dicts of parts and to the settings.

    The current folder is searched too. Raises PartError, with the module's last line of code that
    failed, if an import fails.
    """
    for name in names:
        _check_module_name(name)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # last, so that its files hide no installed package
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise PartError(f"--import {name}: {_describe(error)}") from error


def _check_module_name(name: str) -> None:
    """Raise PartError for several names in one, and for the path of a file in place of a name."""
    names = [part.strip() for part in name.split(",") if part.strip()]
    if len(names) > 1:
        right = " ".join(f"--import {part}" for part in names)
        raise PartError(f"--import {name}: repeat the flag for each module: {right}")
    path = Path(name)
    if path.suffix != ".py" and len(path.parts) < 2:
        return
    folder = "" if len(path.parts) < 2 else f", and start in {path.parent} or add it to PYTHONPATH"
    raise PartError(f"--import {name}: give the module's name: --import {path.stem}{folder}")


def _describe(error: BaseException) -> str:
    """The error in one line, with the file and line of the user's code that raised it."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    inner = (importlib.__file__, __file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in inner and not frame.filename.startswith("<frozen")
    ]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return text + place


def with_modules(function: Callable[..., Result], names: Sequence[str]) -> Callable[..., Result]:
    """The function, preceded by `import_modules`, for processes that are started to call it."""
    return partial(_import_and_call, tuple(names), function) if names else function


def _import_and_call(names: tuple[str, ...], function: Callable[..., Any], *args: Any) -> Any:
    import_modules(names)
    return function(*args)
