"""Files and folders a configuration names: where they are looked for, which are missing, where a
run's own go.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from swahr.config.errors import ConfigError, Problem
from swahr.files import write_text
from swahr.skeleton import SKELETON_OF, SKELETONS, Skeleton, get_skeleton

REPOSITORY = Path(__file__).resolve().parents[3]


def resolve_path(path: str | os.PathLike[str]) -> Path:
    """Where a relative path of the configuration is: in the current folder if it exists there, else
    in the repository.

    DATASET.ROOT, DATASET.SKELETON, MODEL.PRETRAINED, TEST.MODEL_FILE and the YAML files themselves
    are found this way.
    """
    given = Path(path)
    if str(given).startswith("~"):
        given = Path(os.path.expanduser(given))
    if given.is_absolute() or os.path.lexists(given) or not os.path.lexists(REPOSITORY / given):
        return given
    return REPOSITORY / given


def configured_skeleton(cfg: Any) -> Skeleton:
    """The skeleton of the annotations (so without a centre): of DATASET.SKELETON, else of the data
    set DATASET.DATASET.

    Raises SkeletonError where there is none of that name, or its file does not describe one.
    """
    name = cfg.DATASET.SKELETON or SKELETON_OF[cfg.DATASET.DATASET]
    return get_skeleton(name if name in SKELETONS else str(resolve_path(name)))


def check_files(
    cfg: Any, *, pretrained: bool = False, model_file: bool = False, dataset: bool = False
) -> None:
    """Raise ConfigError, one line for each, if files that a command needs are missing.

    pretrained: MODEL.PRETRAINED, for training. model_file: TEST.MODEL_FILE, for testing. Neither
    needs to be set. dataset: the folder DATASET.ROOT (what must be in it is the data set's own
    affair).
    """
    problems = []
    if pretrained and cfg.MODEL.PRETRAINED and not resolve_path(cfg.MODEL.PRETRAINED).is_file():
        remedy = (
            "models/README.md says where to get it; set MODEL.PRETRAINED '' to train from scratch"
        )
        problems.append(_missing("MODEL.PRETRAINED", "file", cfg.MODEL.PRETRAINED, remedy))
    if model_file and cfg.TEST.MODEL_FILE and not resolve_path(cfg.TEST.MODEL_FILE).is_file():
        remedy = "models/README.md says where to get the published ones"
        problems.append(_missing("TEST.MODEL_FILE", "file", cfg.TEST.MODEL_FILE, remedy))
    if dataset and not (cfg.DATASET.ROOT and resolve_path(cfg.DATASET.ROOT).is_dir()):
        problems.append(
            _missing(
                "DATASET.ROOT", "folder", cfg.DATASET.ROOT, "data/README.md says what belongs there"
            )
        )
    if problems:
        raise ConfigError(problems)


def _missing(key: str, kind: str, path: str, remedy: str) -> Problem:
    return Problem((key,), f"no {kind} {path!r} here or in {REPOSITORY}; {remedy}")


def output_dir(cfg: Any, cfg_path: str | os.PathLike[str]) -> Path:
    """Folder of a run's checkpoints and results, not made here: OUTPUT_DIR/<data set>/<model>/<YAML
    file's name>.
    """
    return Path(
        cfg.OUTPUT_DIR or "output", cfg.DATASET.DATASET, cfg.MODEL.NAME, Path(cfg_path).stem
    )


def log_dir(cfg: Any, cfg_path: str | os.PathLike[str], when: float | None = None) -> Path:
    """Folder of a run's TensorBoard logs, not made here: LOG_DIR/<data set>/<model>/<YAML file's
    name>_<date and time>.

    when: the time in Unix seconds; now if None.
    """
    start = time.strftime("%Y-%m-%d-%H-%M-%S", time.localtime(when))
    return Path(
        cfg.LOG_DIR or "log", cfg.DATASET.DATASET, cfg.MODEL.NAME, f"{Path(cfg_path).stem}_{start}"
    )


def save_config(cfg: Any, path: str | os.PathLike[str]) -> None:
    """Write the whole configuration as YAML for load_config; the folder is made, the file renamed
    into place.
    """
    write_text(Path(path), cfg.dump())
