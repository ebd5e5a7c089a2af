"""Which configuration and which weights a file or folder stands for.

A source is the folder of a run, a folder of `swahr publish`, the YAML file of an experiment, a file
of weights or an exported network (.onnx). Checkpoints of training hold their configuration, and so
do exported networks. Published files of weights hold tensors only, whose names and shapes tell the
network. "demo" is the small network that comes with the project.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import yaml

from swahr.config import load_config, load_text, paths, resolve_path
from swahr.engine import checkpoint, provenance
from swahr.engine.provenance import RUN_WEIGHTS, checkpoint_entry, find_weights, run_weights
from swahr.exported import is_exported
from swahr.models.published_names import describe_settings
from swahr.models.weights import read_state_dict
from swahr.words import counted

DEMO = "demo"
DEMO_FOLDER = Path(__file__).resolve().parents[1] / "demo"  # models/demo of the repository
PUBLISHED_WEIGHTS = provenance.PUBLISHED_WEIGHTS
PUBLISHED_CONFIG = paths.PUBLISHED_CONFIG
PUBLISHED_SKELETON = checkpoint.SKELETON
OF_RUNS = (*RUN_WEIGHTS, checkpoint.NEWEST, checkpoint.PREVIOUS)
# Keypoints of a network -> the data sets that published networks with so many are of.
DATA_SETS = {17: ("coco_kpt", "coco"), 14: ("crowd_pose_kpt", "crowd_pose")}
# How the published networks are tested, apart from what `_published_test` gives.
PUBLISHED_TEST: dict[str, Any] = {
    "TEST.FLIP_TEST": True,
    "TEST.PROJECT2IMAGE": True,
    "TEST.NMS_KERNEL": 5,
    "TEST.NMS_PADDING": 2,
    "DATASET.MAX_NUM_PEOPLE": 30,
}


class LoadError(ValueError):
    """A model that cannot be loaded; the message says in one line what would be right."""


class ModelFiles(NamedTuple):
    """A network that can be built. kind: what the source is, for people."""

    cfg: Any
    weights: Path
    kind: str


def find_model(
    source: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    opts: Sequence[str] = (),
) -> ModelFiles:
    """The configuration and the weights of a source.

    source: a path, or "demo" where there is no file or folder of that name. weights: in place of
    the source's own. opts: KEY VALUE pairs on top of the configuration. Raises LoadError,
    ConfigError or CheckpointError.
    """
    for name, given in (("source", source), ("weights", weights)):
        if given is not None and not str(given):
            raise LoadError(f"{name} is empty; it must be a path")
    path = resolve_path(source)
    if str(source) == DEMO and not path.exists():
        path = DEMO_FOLDER
    is_experiment = path.suffix.lower() in (".yaml", ".yml")
    if weights is not None or not is_experiment:
        _refuse_other_weights(source if weights is None else weights, opts)
    if is_experiment:
        cfg = load_config(path, opts)
        found = find_weights(cfg, path) if weights is None else resolve_path(weights)
        return ModelFiles(cfg, found, "the configuration of an experiment")
    if not path.exists():
        raise LoadError(f"{source}: no such file or folder")
    if path.is_dir():
        return _of_folder(path, None if weights is None else resolve_path(weights), opts)
    if weights is not None:
        raise LoadError(
            f"{source}: is a file of weights, and weights={str(weights)!r} names another one; "
            "give a YAML file or a folder with the latter"
        )
    return _of_weights(path, opts)


def _refuse_other_weights(given: str | os.PathLike[str], opts: Sequence[str]) -> None:
    """Raise LoadError where settings name weights besides those that are given."""
    if any(str(word).partition("=")[0] == "TEST.MODEL_FILE" for word in opts):
        raise LoadError(f"TEST.MODEL_FILE: the weights are those of {given} already; leave it out")


def _of_folder(folder: Path, weights: Path | None, opts: Sequence[str]) -> ModelFiles:
    if (folder / checkpoint.CONFIG).is_file():
        cfg = _config_of_run(folder, opts)
        weights = weights or run_weights(folder)
        if weights is None:
            raise LoadError(f"{folder}: the run has neither {' nor '.join(RUN_WEIGHTS)} yet")
        return ModelFiles(cfg, weights, "the folder of a run")
    if (folder / PUBLISHED_CONFIG).is_file():
        values = read_description(folder)["config"]
        if (folder / PUBLISHED_SKELETON).is_file():
            values = {**values, "DATASET.SKELETON": str(folder / PUBLISHED_SKELETON)}
        cfg = _load_values(values, folder / PUBLISHED_CONFIG, opts)
        return ModelFiles(cfg, weights or folder / PUBLISHED_WEIGHTS, "a published model")
    raise LoadError(
        f"{folder}: is neither the folder of a run ({checkpoint.CONFIG} is missing) nor of a "
        f"published model ({PUBLISHED_CONFIG} is missing)"
    )


def read_description(folder: Path) -> dict[str, Any]:
    """config.json of a published model; LoadError if it is not one."""
    path = folder / PUBLISHED_CONFIG
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise LoadError(f"{path}: cannot be read as JSON ({reason})") from None
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise LoadError(f"{path}: has no entry 'config' with the settings of a network")
    return content


def _config_of_run(folder: Path, opts: Sequence[str]) -> Any:
    """The configuration of a run's folder, with the skeleton file beside it if there is one."""
    skeleton = folder / checkpoint.SKELETON
    own = skeleton if skeleton.is_file() else None
    return load_config(folder / checkpoint.CONFIG, opts, own)


def _skeleton_of_checkpoint(path: Path) -> Path | None:
    """The skeleton that a checkpoint holds, in a file that lasts as long as this process; None if
    it holds none.
    """
    text = checkpoint_entry(path, "skeleton", str)
    if not text:
        return None
    file = Path(_lasting_folder(), f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml")
    file.write_text(text, encoding="utf-8")
    return file


@cache
def _lasting_folder() -> str:
    folder = mkdtemp(prefix="swahr-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _of_weights(path: Path, opts: Sequence[str]) -> ModelFiles:
    if is_exported(path):
        return ModelFiles(load_config(path, opts), path, "an exported network")
    text = checkpoint_entry(path, "config", str)
    if text:
        cfg = load_text(text, str(path), opts, _skeleton_of_checkpoint(path))
        return ModelFiles(cfg, path, "a checkpoint of training")
    if run := run_of(path):
        return ModelFiles(_config_of_run(run, opts), path, "a run's weights")
    settings = {"RUN_NAME": path.stem} | published_settings(path)
    return ModelFiles(_load_values(settings, path, opts), path, "weights without a configuration")


def run_of(weights: Path) -> Path | None:
    """The folder of the run whose weights a file is; None if it lies in none."""
    is_of_run = weights.name in OF_RUNS or checkpoint.is_earlier_best(weights.name)
    return weights.parent if is_of_run and (weights.parent / checkpoint.CONFIG).is_file() else None


def published_settings(path: Path) -> dict[str, Any]:
    """The settings, by their dotted names, that the tensors of a file tell, and how networks like
    it were published to be tested.

    Widths below 48 are tested at 512 px, others at 640 px; tensors do not tell the input size.
    Raises LoadError where the tensors tell no network, or keypoints of no known skeleton.
    """
    found = describe_settings(read_state_dict(path))
    remedy = f"name its configuration: swahr.load(YAML, weights={str(path)!r})"
    if not found:
        raise LoadError(f"{path}: its tensors are not those of an HRNet; {remedy}")
    if "MODEL.SCALE_HEADS" not in found:
        raise LoadError(
            f"{path}: is a backbone without keypoint heads, which finds nobody; training can start "
            "from it (MODEL.PRETRAINED)"
        )
    joints = found.get("MODEL.NUM_JOINTS")
    if joints is None:
        raise LoadError(f"{path}: its tensors do not tell the number of keypoints; {remedy}")
    if joints not in DATA_SETS:
        given = counted(joints, "keypoint")
        raise LoadError(f"{path}: has {given}, so its skeleton is not known; {remedy}")
    train, test = DATA_SETS[joints]
    return {
        **found,
        **PUBLISHED_TEST,
        **_published_test(found),
        "DATASET.DATASET": train,
        "DATASET.DATASET_TEST": test,
        "DATASET.NUM_JOINTS": joints,
    }


def _published_test(found: Mapping[str, Any]) -> dict[str, Any]:
    stages = found["MODEL.EXTRA.DECONV.NUM_DECONVS"] + 1
    width = found["MODEL.EXTRA.STAGE2.NUM_CHANNELS"][0]
    # SWAHR-W32 on COCO is the one network with another threshold.
    is_swahr = found["MODEL.SCALE_HEADS"] and width < 48 and found["MODEL.NUM_JOINTS"] == 17
    return {
        "LOSS.NUM_STAGES": stages,
        "TEST.WITH_AE": found["LOSS.WITH_AE_LOSS"],
        "TEST.DETECTION_THRESHOLD": 0.12 if is_swahr else 0.1,
        "DATASET.INPUT_SIZE": 640 if width >= 48 else 512,
    }


def _load_values(values: Mapping[str, Any], path: Path, opts: Sequence[str]) -> Any:
    """The configuration of settings by their dotted names. path: of the file that has them."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise LoadError(f"{path}: {section} in {name} is a setting, and has none below it")
        node[last] = value
    return load_text(yaml.safe_dump(tree), str(path), opts)
