"""load_config: YAML files and KEY VALUE pairs over the defaults, checked as a whole, frozen."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from yacs.config import CfgNode

from swahr.config.errors import ConfigError, Problem
from swahr.config.keys import flatten, unflatten
from swahr.config.paths import resolve_path
from swahr.config.read import BASE, Reader, Setting
from swahr.config.rules import find_problems, without_effect
from swahr.config.schema import defaults
from swahr.config.values import coerce

logger = logging.getLogger("swahr")


def load_config(path: str | os.PathLike[str], opts: Sequence[Any] = ()) -> CfgNode:
    """The frozen configuration of a YAML file, with KEY VALUE pairs (`opts`) on top.

    A file may name another one, relative to itself, to build upon: `_BASE_: other.yaml`. Raises
    ConfigError with every problem of the whole, one line each: unknown keys (naming the nearest
    known one), wrong types, settings at odds with each other. Keys that were set and have no effect
    are logged in one line.
    """
    reader = Reader()
    reader.read_file(resolve_path(path))
    reader.read_pairs(opts)
    given = {setting.key: setting for setting in reader.settings}
    values, problems = _typed(reader.settings)
    problems = reader.problems + problems
    _apply_mixed_precision(values, given)
    _apply_scale_heads(values)
    _join_data_dir(values)
    cfg = unflatten(values)
    problems += _consequences(cfg, given, problems, str(path))
    if problems:
        raise ConfigError(problems)
    _log_without_effect(cfg, given)
    cfg.freeze()
    return cfg


def _typed(settings: Sequence[Setting]) -> tuple[dict[str, Any], list[Problem]]:
    """The defaults with the settings on top, each with its key's type, and those that have no such
    type.
    """
    plain = flatten(defaults)
    values = dict(plain)
    problems = []
    for key, value, where, _ in settings:
        try:
            values[key] = coerce(value, plain[key])
        except ValueError as error:
            problems.append(Problem((key,), str(error), where))
    return values, problems


def _apply_mixed_precision(values: dict[str, Any], given: dict[str, Setting]) -> None:
    """FP16.ENABLED and AMP.* say the same: what was set last decides, AMP.* within a file, and both
    show the result.
    """

    def layer(key: str) -> int:
        return given[key].layer if key in given else -1

    if layer("FP16.ENABLED") > layer("AMP.ENABLED"):
        values["AMP.ENABLED"] = values["FP16.ENABLED"]
    if values["FP16.ENABLED"] and layer("FP16.ENABLED") > layer("AMP.DTYPE"):
        values["AMP.DTYPE"] = "fp16"
    values["FP16.ENABLED"] = values["AMP.ENABLED"] and values["AMP.DTYPE"] == "fp16"


def _apply_scale_heads(values: dict[str, Any]) -> None:
    """Without scale maps there is nothing to adapt targets with."""
    values["LOSS.SCALE_ADAPTIVE"] = values["LOSS.SCALE_ADAPTIVE"] and values["MODEL.SCALE_HEADS"]


def _join_data_dir(values: dict[str, Any]) -> None:
    """Put DATA_DIR before its paths, and empty it, so that a configuration that was saved can be
    read again.
    """
    for key in ("DATASET.ROOT", "MODEL.PRETRAINED", "TEST.MODEL_FILE"):
        if values[key]:
            values[key] = os.path.join(values["DATA_DIR"], values[key])
    values["DATA_DIR"] = ""


def _consequences(
    cfg: CfgNode, given: dict[str, Setting], found: Sequence[Problem], path: str
) -> Iterator[Problem]:
    """Problems of the settings as a whole, save those that follow from the ones already found."""
    broken = tuple(key for problem in found for key in problem.keys)
    if any(not problem.keys for problem in found) or BASE in broken:
        return  # a file or the command line could not be read, so that any setting may be missing
    for problem in find_problems(cfg):
        if not any(
            key == bad or key.startswith(f"{bad}.") for key in problem.keys for bad in broken
        ):
            where = next((given[key].where for key in problem.keys if key in given), path)
            yield problem._replace(where=where)


def _log_without_effect(cfg: CfgNode, given: dict[str, Setting]) -> None:
    plain = flatten(defaults)
    values = flatten(cfg)
    idle = [
        f"{key} ({reason})"
        for key, reason in without_effect(cfg)
        if key in given and values[key] != plain[key]
    ]
    if idle:
        logger.warning("no effect: %s", ", ".join(idle))
