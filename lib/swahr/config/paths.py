"""Files and folders of a configuration: where they are searched, which are missing, and where the
files of a run go.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swahr.config.errors import ConfigError, Problem
from swahr.config.places import COMMAND_LINE, get_places, raise_problems
from swahr.files import why_unreadable, write_text
from swahr.skeleton import SKELETON_OF, SKELETONS, Skeleton, get_skeleton

REPOSITORY = Path(__file__).resolve().parents[3]
SAVED_CONFIG = "config.yaml"  # the configuration of a run, in its output folder
PUBLISHED_CONFIG = "config.json"  # the settings of a published model, in its folder
OF_WEIGHTS = (".pth", ".pt", ".tar", ".safetensors")  # endings of files


def resolve_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path, or the path relative to the current folder if it exists there, else to the
    repository.

    DATASET.ROOT, DATASET.SKELETON, MODEL.PRETRAINED, TRAIN.CHECKPOINT, TEST.MODEL_FILE and the YAML
    files themselves are found this way.
    """
    given = Path(path)
    if str(given).startswith("~"):
        given = Path(os.path.expanduser(given))
    if given.is_absolute() or os.path.lexists(given) or not os.path.lexists(REPOSITORY / given):
        return given
    return REPOSITORY / given


def refuse_models(path: Path) -> None:
    """Raise ConfigError, which says what would be right, for what is no YAML file but a folder, a
    published model or a file of weights.
    """
    folder = path if path.is_dir() else path.parent
    remedy = "`swahr val` and `swahr predict` take it as --weights"
    if path.is_dir() and (path / SAVED_CONFIG).is_file():
        text = f"is the folder of a run; give {path / SAVED_CONFIG}, or --weights {path}"
    elif path in (folder, folder / PUBLISHED_CONFIG) and _is_published(folder):
        text = f"is a published model; {remedy} {folder}"
    elif path.is_dir():
        text = "is a folder, not a YAML file"
    elif path.suffix.lower() in OF_WEIGHTS and path.is_file():
        text = f"is a file of weights; {remedy} {path}"
    else:
        return
    raise ConfigError([f"{path}: {text}"])


def _is_published(folder: Path) -> bool:
    """Whether the folder has the config.json of a published model."""
    try:
        return '"library_name"' in (folder / PUBLISHED_CONFIG).read_text(errors="replace")
    except OSError:
        return False


def configured_skeleton(cfg: Any) -> Skeleton:
    """The skeleton of the annotations, without a centre: that of DATASET.SKELETON, else of
    DATASET.DATASET.

    Raises SkeletonError if there is none of that name, or its file does not describe one.
    """
    name = cfg.DATASET.SKELETON or SKELETON_OF[cfg.DATASET.DATASET]
    return get_skeleton(name if name in SKELETONS else str(resolve_path(name)))


def check_files(
    cfg: Any, *, pretrained: bool = False, model_file: bool = False, dataset: bool = False
) -> None:
    """Raise ConfigError, with one line for each file that a command needs and that is missing.

    pretrained: what training starts from, MODEL.PRETRAINED and (with TRAIN.RESUME)
    TRAIN.CHECKPOINT. model_file: TEST.MODEL_FILE, for testing. None of them needs to be set.
    dataset: the folder DATASET.ROOT; what it must contain is checked when it is opened.
    """
    problems: list[Problem] = []
    if pretrained and cfg.MODEL.PRETRAINED:
        remedy = (
            "models/README.md says where to get it; set MODEL.PRETRAINED '' to train from scratch"
        )
        problems += _file_problems("MODEL.PRETRAINED", cfg.MODEL.PRETRAINED, remedy)
    if pretrained and cfg.TRAIN.RESUME and cfg.TRAIN.CHECKPOINT:
        remedy = "set TRAIN.RESUME False to start without it"
        problems += _file_problems("TRAIN.CHECKPOINT", cfg.TRAIN.CHECKPOINT, remedy)
    if model_file and cfg.TEST.MODEL_FILE:
        remedy = "models/README.md says where to get the published ones"
        problems += _file_problems("TEST.MODEL_FILE", cfg.TEST.MODEL_FILE, remedy)
    if dataset:
        problems += _folder_problems("DATASET.ROOT", cfg.DATASET.ROOT)
    raise_problems(cfg, problems)


def _file_problems(key: str, path: str, remedy: str) -> Iterator[Problem]:
    """The problem of a file that cannot be read, if it cannot."""
    found = resolve_path(path)
    if not os.path.exists(found):
        yield Problem((key,), f"no file {path!r}{_where_sought(path)}; {remedy}")
    elif why := why_unreadable(found):
        yield Problem((key,), f"{path!r} {why}")


def _folder_problems(key: str, path: str) -> Iterator[Problem]:
    """The problem of a data set's folder, if it has one."""
    found = resolve_path(path)
    if not path:
        yield Problem((key,), f"is empty; give {key}, the folder of the data set")
    elif not os.path.exists(found):
        remedy = "data/README.md says what belongs there"
        yield Problem((key,), f"no folder {path!r}{_where_sought(path)}; {remedy}")
    elif not found.is_dir():
        yield Problem((key,), f"{path!r} is not a folder")


def _where_sought(path: str) -> str:
    """The end of "no file PATH": the two folders of a relative path."""
    return "" if resolve_path(path).is_absolute() else f" here or in {REPOSITORY}"


def run_name(cfg: Any, cfg_path: str | os.PathLike[str]) -> str:
    """The name of a run: RUN_NAME, else the name of its YAML file."""
    return cfg.RUN_NAME or Path(cfg_path).stem


def output_dir(cfg: Any, cfg_path: str | os.PathLike[str]) -> Path:
    """Folder of a run's checkpoints and results: OUTPUT_DIR/<data set>/<model>/<run's name>.

    A run's own config.yaml means that run, so its folder, wherever it is; unless RUN_NAME or
    OUTPUT_DIR were changed on the command line. The folder is not made here.
    """
    name = run_name(cfg, cfg_path)
    file = resolve_path(cfg_path)
    moved = get_places(cfg).get("OUTPUT_DIR") == COMMAND_LINE
    if file.name == SAVED_CONFIG and file.parent.name == name and not moved:
        return file.parent
    folder = os.path.expanduser(cfg.OUTPUT_DIR or "output")
    return Path(folder, cfg.DATASET.DATASET, cfg.MODEL.NAME, name)


def log_dir(cfg: Any, cfg_path: str | os.PathLike[str], when: float | None = None) -> Path:
    """Folder of a run's TensorBoard logs: LOG_DIR/<data set>/<model>/<run's name>_<date and time>.

    when: the time in Unix seconds; now if None. The folder is not made here.
    """
    start = time.strftime("%Y-%m-%d-%H-%M-%S", time.localtime(when))
    name = f"{run_name(cfg, cfg_path)}_{start}"
    folder = os.path.expanduser(cfg.LOG_DIR or "log")
    return Path(folder, cfg.DATASET.DATASET, cfg.MODEL.NAME, name)


def save_config(cfg: Any, path: str | os.PathLike[str]) -> None:
    """Write the whole configuration, RUN_NAME included, as YAML for load_config.

    The folder is made; the file is renamed into place.
    """
    write_text(Path(path), cfg.dump())
