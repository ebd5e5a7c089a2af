"""Where each setting of a loaded configuration was set, so that errors name the file and line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from swahr.config.errors import ConfigError, Problem

COMMAND_LINE = "command line"
_PLACES = "__places__"  # beside yacs' own attributes, so that it is copied and pickled with them


def set_places(cfg: Any, places: Mapping[str, str]) -> None:
    """Keep the place of each key that was set: 'FILE:LINE' or COMMAND_LINE."""
    cfg.__dict__[_PLACES] = dict(places)


def get_places(cfg: Any) -> dict[str, str]:
    """The place of each key that was set; {} for a configuration that was built by hand."""
    return cfg.__dict__.get(_PLACES, {})


def locate(problem: Problem, places: Mapping[str, str], file: str = "") -> Problem:
    """The problem with its place: that of the key that is wrong, if it was set.

    Otherwise that of the first key that makes it wrong, with this key's name, else the file.
    """
    wrong, *causes = problem.keys
    if wrong in places:
        return problem._replace(where=places[wrong])
    for cause in causes:
        if cause in places:
            return problem._replace(where=f"{places[cause]} ({cause})")
    return problem._replace(where=file)


def raise_problems(cfg: Any, problems: Iterable[Problem]) -> None:
    """Raise ConfigError, with the place of each problem, if there are any."""
    found = [locate(problem, get_places(cfg)) for problem in problems]
    if found:
        raise ConfigError(found)
