"""load_config: YAML files and KEY VALUE pairs over the defaults, checked as a whole, frozen."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from yacs.config import CfgNode

from swahr.config.errors import ConfigError, Problem
from swahr.config.paths import SAVED_CONFIG, configured_skeleton, refuse_models, resolve_path
from swahr.config.places import get_places, locate, raise_problems, set_places
from swahr.config.read import BASE, Reader, Setting
from swahr.config.rules import (
    OF_PYTORCH,
    find_problems,
    find_size_problems,
    find_untrained_maps,
    output_sizes,
    without_effect,
)
from swahr.config.schema import SCHEMA, default_values, flatten, unflatten
from swahr.config.values import coerce
from swahr.exported import describe_exported, is_exported
from swahr.skeleton import dataset_names

logger = logging.getLogger("swahr")

OWN_SKELETON = "in this file"  # DATASET.SKELETON in an exported network


def load_config(
    path: str | os.PathLike[str], opts: Sequence[Any] = (), skeleton: Path | None = None
) -> CfgNode:
    """The frozen configuration of a YAML file, with KEY VALUE pairs (`opts`) on top.

    skeleton: the file to read in place of the DATASET.SKELETON that the YAML file names.

    A file may name another one, relative to itself, to build upon: `_BASE_: other.yaml`. A list per
    stage with one entry is filled up to LOSS.NUM_STAGES entries. RUN_NAME is the file's name if
    nothing sets it. DATASET.OUTPUT_SIZE is [] if nothing sets it; see `fit_to_network`.

    Raises ConfigError with every problem, one line each: unknown keys (with the nearest known one),
    wrong types and values, settings that contradict each other, modules of REQUIRES that are not
    imported (nothing is imported here). Keys that were set and have no effect are logged in one
    line. What follows from DATASET.SKELETON is filled in, see `_follow_skeleton`.

    An exported network (.onnx) has its settings in it, see `_load_exported`.
    """
    file = resolve_path(path)
    if is_exported(file):
        return _load_exported(file, opts)
    refuse_models(file)
    reader = Reader()
    reader.read_file(file)
    if skeleton is not None:
        reader.replace_skeleton(skeleton)
    reader.read_pairs(opts)
    _check_required_modules(reader.settings)
    given = {setting.key: setting for setting in reader.settings}
    values, problems = _typed(reader.settings)
    problems = reader.problems + problems
    if "DATASET.OUTPUT_SIZE" not in given:
        values["DATASET.OUTPUT_SIZE"] = []
    values["RUN_NAME"] = values["RUN_NAME"] or Path(path).stem
    _apply_mixed_precision(values, given)
    _apply_scale_heads(values)
    _follow_skeleton(values, given)
    _count_center(values)
    _join_data_dir(values)
    _spread_over_stages(values)
    cfg = unflatten(values)
    set_places(cfg, {key: setting.where for key, setting in given.items()})
    problems += _problems_between_keys(cfg, problems, str(path))
    if problems:
        raise ConfigError(problems)
    _log_without_effect(cfg)
    cfg.freeze()
    return cfg


def load_text(
    text: str, name: str, opts: Sequence[Any] = (), skeleton: Path | None = None
) -> CfgNode:
    """load_config of a YAML text, as checkpoints and exported networks hold it. name: of the file
    that holds it, for messages, also those of later checks.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, SAVED_CONFIG)
        path.write_text(text, encoding="utf-8")
        try:
            cfg = load_config(path, opts, skeleton)
        except ConfigError as error:
            named = [problem.replace(str(path), f"{name}: config") for problem in error.problems]
            raise ConfigError(named) from None
        places = get_places(cfg).items()
        set_places(cfg, {key: where.replace(str(path), f"{name}: config") for key, where in places})
        return cfg


def _load_exported(file: Path, opts: Sequence[Any]) -> CfgNode:
    """The settings in an exported network, which name the file as TEST.MODEL_FILE, and as
    DATASET.SKELETON for keypoints of your own. Raises ExportedError or ConfigError.
    """
    tree = yaml.safe_load(describe_exported(file).settings)
    for key in SCHEMA:
        if key.startswith(OF_PYTORCH):  # no effect, and the file's user did not set them
            section, name = key.split(".")
            tree.get(section, {}).pop(name, None)
    tree["TEST"]["MODEL_FILE"] = str(file.absolute())
    if tree["DATASET"]["SKELETON"] == OWN_SKELETON:
        tree["DATASET"]["SKELETON"] = str(file.absolute())
    return load_text(yaml.safe_dump(tree), str(file), opts)


def fit_to_network(cfg: CfgNode, strides: Sequence[int], size_divisor: int) -> CfgNode:
    """The configuration with DATASET.OUTPUT_SIZE filled in from the network that was built from it.

    strides, size_divisor: of the network, see `rules.find_size_problems`. Raises ConfigError if the
    configured sizes do not fit the network.
    """
    raise_problems(cfg, find_size_problems(cfg, strides, size_divisor))
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASET.OUTPUT_SIZE = output_sizes(cfg.DATASET.INPUT_SIZE, strides)
    cfg.freeze()
    return cfg


def check_trained_maps(cfg: CfgNode, reads: Set[tuple[str, int]], *, starts_trained: bool) -> None:
    """Say which maps testing uses although no loss reads them: raise ConfigError, or log a line.

    reads: the maps that the losses read, as (name, stage). starts_trained: whether training starts
    from given weights, in which these maps may be trained already. A line is logged then, and where
    LOSS.TERMS names losses of the user's own, which may train these maps through others.
    """
    problems = list(find_untrained_maps(cfg, reads))
    if not starts_trained and set(cfg.LOSS.TERMS) <= set(SCHEMA["LOSS.TERMS"].default):
        raise_problems(cfg, problems)
    for problem in problems:
        logger.warning("%s", locate(problem, get_places(cfg)))


def _check_required_modules(settings: Sequence[Setting]) -> None:
    """Raise ConfigError if a module that a file requires is not imported.

    Nothing else is reported then: other problems may come from the keys that the module adds.
    """
    problems = []
    for key, value, where, _ in settings:
        if key != "REQUIRES":
            continue
        try:
            names = coerce(value, SCHEMA[key].default)
        except ValueError:
            continue  # reported with the other wrong types
        for name in names:
            if name and name not in sys.modules:
                text = (
                    f"needs the module {name}; add --import {name} to the command, or in Python "
                    f"import {name}"
                )
                problems.append(Problem((key,), text, where))
    if problems:
        raise ConfigError(problems)


def _typed(settings: Sequence[Setting]) -> tuple[dict[str, Any], list[Problem]]:
    """The defaults with the settings on top, and the problem of each setting of the wrong type."""
    values = default_values()
    problems = []
    for key, value, where, _ in settings:
        try:
            values[key] = coerce(SCHEMA[key].spelled(value), SCHEMA[key].default)
        except ValueError as error:
            problems.append(Problem((key,), str(error), where))
    return values, problems


def _apply_mixed_precision(values: dict[str, Any], given: dict[str, Setting]) -> None:
    """FP16.ENABLED and AMP.* say the same: the one set last decides, AMP.* within a file, and both
    show the result.
    """

    def layer(key: str) -> int:
        return given[key].layer if key in given else -1

    if layer("FP16.ENABLED") > layer("AMP.ENABLED"):
        values["AMP.ENABLED"] = values["FP16.ENABLED"]
    if values["FP16.ENABLED"] and layer("FP16.ENABLED") > layer("AMP.DTYPE"):
        values["AMP.DTYPE"] = "fp16"
    values["FP16.ENABLED"] = values["AMP.ENABLED"] and values["AMP.DTYPE"] == "fp16"
    # Saved configurations hold the default scale, 1, which stands for none given.
    switched = max(map(layer, ("AMP.ENABLED", "AMP.DTYPE", "FP16.ENABLED")))
    scale = "FP16.STATIC_LOSS_SCALE"
    if values["FP16.ENABLED"] and values[scale] == 1 and layer(scale) < switched:
        values["FP16.DYNAMIC_LOSS_SCALE"] = True


def _apply_scale_heads(values: dict[str, Any]) -> None:
    """Without scale maps there is nothing to adapt targets with."""
    values["LOSS.SCALE_ADAPTIVE"] = values["LOSS.SCALE_ADAPTIVE"] and values["MODEL.SCALE_HEADS"]


def _follow_skeleton(values: dict[str, Any], given: dict[str, Setting]) -> None:
    """Fill in the numbers of joints and the names of the data sets that DATASET.SKELETON implies.

    A key keeps its value if it was set where the skeleton was set or in a later layer: a base file
    about another data set does not count. `rules` reports a skeleton that cannot be read.
    """
    if not values["DATASET.SKELETON"]:
        return
    try:
        skeleton = configured_skeleton(unflatten(values))
    except (OSError, TypeError, ValueError):
        return
    joints = skeleton.num_keypoints + values["DATASET.WITH_CENTER"]
    train, test = dataset_names(skeleton)
    implied = {
        "MODEL.NUM_JOINTS": joints,
        "DATASET.NUM_JOINTS": joints,
        "DATASET.DATASET": train,
        "DATASET.DATASET_TEST": test,
    }
    layer = given["DATASET.SKELETON"].layer
    for key, value in implied.items():
        if key not in given or given[key].layer < layer:
            values[key] = value


def _count_center(values: dict[str, Any]) -> None:
    """Add the centre to the numbers of joints that lack it, as the published code does."""
    if not values["DATASET.WITH_CENTER"]:
        return
    try:
        joints = configured_skeleton(unflatten(values)).num_keypoints
    except (OSError, TypeError, ValueError, LookupError):  # `rules` reports it
        return
    for key in ("MODEL.NUM_JOINTS", "DATASET.NUM_JOINTS"):
        values[key] += values[key] == joints


def _join_data_dir(values: dict[str, Any]) -> None:
    """Put DATA_DIR before its paths, and empty it, so that a saved configuration can be loaded."""
    for key in ("DATASET.ROOT", "MODEL.PRETRAINED", "TEST.MODEL_FILE"):
        if values[key]:
            folder, path = map(os.path.expanduser, (values["DATA_DIR"], values[key]))
            values[key] = os.path.join(folder, path)
    values["DATA_DIR"] = ""


def _spread_over_stages(values: dict[str, Any]) -> None:
    """Repeat the entry of each list per stage that has only one."""
    stages = values["LOSS.NUM_STAGES"]
    if not SCHEMA["LOSS.NUM_STAGES"].accepts(stages):
        return
    for name, key in SCHEMA.items():
        if key.per_stage and len(values[name]) == 1:
            values[name] = values[name] * stages


def _problems_between_keys(cfg: CfgNode, found: Sequence[Problem], file: str) -> Iterator[Problem]:
    """Problems of the settings as a whole, except those that follow from the ones already found."""
    broken = tuple(key for problem in found for key in problem.keys)
    if any(not problem.keys for problem in found) or BASE in broken:
        return  # a file or the command line could not be read: any setting may be missing
    for problem in find_problems(cfg):
        if not any(
            key == bad or key.startswith(f"{bad}.") for key in problem.keys for bad in broken
        ):
            yield locate(problem, get_places(cfg), file)


def _log_without_effect(cfg: CfgNode) -> None:
    given = get_places(cfg)
    values = flatten(cfg)
    defaults = default_values() | {"LOSS.NUM_STAGES": cfg.LOSS.NUM_STAGES}
    _spread_over_stages(defaults)
    idle: dict[str, list[str]] = {}  # the keys of each reason
    for key, reason in without_effect(cfg):
        if key in given and values[key] != defaults[key]:
            idle.setdefault(reason, []).append(key)
    if idle:
        groups = (f"{', '.join(keys)} ({reason})" for reason, keys in idle.items())
        logger.warning("no effect: %s", "; ".join(groups))
