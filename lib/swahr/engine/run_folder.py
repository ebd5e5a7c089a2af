"""The folder of a run: one live run at a time, earlier configurations kept, differences named."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from swahr.config import configured_skeleton
from swahr.engine.checkpoint import CONFIG, SKELETON, unused_path
from swahr.files import make_folder, naming, write_text
from swahr.skeleton import SKELETONS, skeleton_yaml

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
# Settings that decide where, how fast and how verbosely a run works, how it is validated and when
# it is saved, but not what the network learns. A trailing dot stands for a whole section.
NOT_LEARNT = (
    "OUTPUT_DIR",
    "LOG_DIR",
    "DATA_DIR",
    "RUN_NAME",
    "GPUS",
    "DEVICE",
    "WORKERS",
    "PRINT_FREQ",
    "AUTO_RESUME",
    "RESUME_CHANGED",
    "REQUIRES",
    "PIN_MEMORY",
    "RANK",
    "VERBOSE",
    "DIST_BACKEND",
    "DIST_TIMEOUT",
    "STOP_SECONDS",
    "MULTIPROCESSING_DISTRIBUTED",
    "CUDNN.",
    "MODEL.PRETRAINED",
    "DATASET.ROOT",
    "DATASET.DATA_FORMAT",
    "DATASET.DATASET_TEST",
    "DATASET.TEST",
    "DATASET.MAX_NUM_PEOPLE",
    "TRAIN.RESUME",
    "TRAIN.CHECKPOINT",
    "TRAIN.VAL_INTERVAL",
    "TRAIN.CHECKPOINT_MINUTES",
    "TRAIN.MAX_BAD_STEPS",
    "TRAIN.BEST_METRIC",
    "TRAIN.PATIENCE",
    "TRAIN.PLOTS",
    "TRAIN.CHANNELS_LAST",
    "TRAIN.CPU_KERNELS",
    "TRAIN.COMPILE",
    "TRAIN.CUDA_GRAPHS",
    "TEST.",
    "DEBUG.",
)
# Settings of NOT_LEARNT that change the figures of a validation, as those of TEST do.
MEASURE = ("TRAIN.BEST_METRIC", "DATASET.TEST", "DATASET.DATASET_TEST", "DATASET.MAX_NUM_PEOPLE")
# Keys of TEST that decide which weights are tested or how fast, but not which people are found.
SPEED_KEYS = ("MODEL_FILE", "IMAGES_PER_GPU", "LOG_PROGRESS", "CUDA_GRAPHS", "RESUME")


class RunInUseError(ValueError):
    """Another live run works in the folder; the message says which."""


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder for this process while the block runs; RunInUseError if another one has it.

    The system's file lock decides where there is one: it ends with the process that holds it.
    Elsewhere the process id in the file decides, and the lock of a process of this host that is
    gone is taken over.
    """
    path = make_folder(folder) / LOCK
    with naming(path):
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (open as long as the lock is held)
    with file:
        _acquire(file, path)
        try:
            file.seek(0)
            file.truncate()
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
            file.flush()
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def _acquire(file: Any, path: Path) -> None:
    file.seek(0)
    owner = _parse_owner(file.read())
    try:
        if fcntl is None:
            raise OSError("no file locks on this system")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise _in_use(path, owner) from None
    except OSError:  # a file system without locks
        if owner.get("host") not in (None, socket.gethostname()):
            raise _in_use(path, owner) from None
        if owner.get("pid") != os.getpid() and _is_alive(owner.get("pid")):
            raise _in_use(path, owner) from None
    if not path.exists() or not os.path.samestat(os.stat(path), os.fstat(file.fileno())):
        raise _in_use(path, owner)  # its owner removed it, and another run may have made a new one


def _parse_owner(text: str) -> dict[str, Any]:
    try:
        owner = json.loads(text)
    except ValueError:  # the file is new
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_use(path: Path, owner: dict[str, Any]) -> RunInUseError:
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'another host')}"
    return RunInUseError(
        f"{path.parent}: {who} is training there; give this run a name or an OUTPUT_DIR of its own "
        f"(if that process is gone, remove {path.name})"
    )


def keep_config(folder: Path, text: str, skeleton: str = "") -> None:
    """Write config.yaml; one that differs is kept as config_<date of its writing>.yaml.

    skeleton: the text of a skeleton file, written beside it; '' removes one that is there. Raises
    WriteError.
    """
    with naming(folder / SKELETON):
        if skeleton:
            write_text(folder / SKELETON, skeleton)
        else:
            (folder / SKELETON).unlink(missing_ok=True)
    path = folder / CONFIG
    with naming(path):
        if path.exists():
            if path.read_bytes() == text.encode():
                return
            written = time.localtime(path.stat().st_mtime)
            name = time.strftime("config_%Y-%m-%d_%H-%M-%S.yaml", written)
            path.rename(unused_path(folder / name))
        write_text(path, text)


def own_skeleton(cfg: Any) -> str:
    """The text of a skeleton file, if DATASET.SKELETON names a file; else ''."""
    name = cfg.DATASET.SKELETON
    return skeleton_yaml(configured_skeleton(cfg)) if name and name not in SKELETONS else ""


def changed_settings(before: str, now: str, defaults: str) -> dict[str, tuple[Any, Any]]:
    """{key: (value before, value now)} of two configurations, given as YAML.

    defaults: the default of every key, as YAML; it stands for keys that `before` lacks, as it was
    written by an older version. Keys that `now` lacks do not count. Raises ValueError, in one line,
    if `before` is not the YAML of a configuration.
    """
    old = _flatten(yaml.safe_load(defaults)) | _flatten(_read_settings(before))
    new = _flatten(yaml.safe_load(now))
    return {
        key: (old.get(key), value)
        for key, value in new.items()
        if key not in old or old[key] != value
    }


def changed_skeleton(before: str, now: str) -> dict[str, tuple[Any, Any]]:
    """What of DATASET.SKELETON decides what is learnt and differs in two texts of own_skeleton, as
    `changed_settings` gives it. {} where either is ''.
    """
    if not (before and now):
        return {}
    old = yaml.safe_load(before)
    new = yaml.safe_load(now)
    return {
        f"DATASET.SKELETON: {part}": (old.get(part), new[part])
        for part in ("keypoints", "flip_pairs")
        if old.get(part) != new[part]
    }


def changes_what_is_learnt(key: str) -> bool:
    """Whether a setting decides what the network learns; see NOT_LEARNT."""
    return not any(
        key == known or (known[-1] == "." and key.startswith(known)) for known in NOT_LEARNT
    )


def changes_what_is_measured(key: str) -> bool:
    """Whether figures of validations with two values of a setting cannot be compared."""
    section, _, name = key.partition(".")
    return key in MEASURE or (section == "TEST" and name not in SPEED_KEYS)


def _read_settings(text: str) -> dict[str, Any]:
    """The settings of a file that anybody may have edited; ValueError if it has none."""
    try:
        settings = yaml.safe_load(text)
    except Exception as error:  # PyYAML raises other types for wrong values and for deep nesting
        reason = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ValueError(f"cannot be read as YAML: {str(reason).splitlines()[0]}") from None
    if not isinstance(settings, dict):
        raise ValueError("no settings in it")
    return settings


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in (tree or {}).items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + str(key)] = value
    return flat
