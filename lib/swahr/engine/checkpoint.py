"""Checkpoints that survive: whole or not there at all, the last two kept, enough in them to go on exactly.

checkpoint.pth.tar has the layout of the published code, which can read it: epoch, model, state_dict (with the 'module.'
of DistributedDataParallel), best_state_dict (without), perf, optimizer. What else an exact continuation needs stands
beside these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swahr.models.weights import CheckpointError

NEWEST, PREVIOUS, SET_ASIDE = "checkpoint.pth.tar", "checkpoint_previous.pth.tar", "checkpoint_replaced.pth.tar"
BEST, FINAL = "model_best.pth.tar", "final_state.pth.tar"
WRAPPER = "module."


class CheckpointWriteError(OSError):
    """A file that could not be written; the message names it, says why, and that the ones before are whole."""


@dataclass
class Progress:
    """How far training has come.

    epoch, step: the next step to take, counted from 0; step counts within the epoch. step_images: images that a step
    takes, all processes together. perf, best_perf: AP of the last and of the best validation, None before the first.
    to_validate: whether the epoch before `epoch` still has to be validated. bad_steps: steps skipped, since the loss
    was no finite number.
    """

    epoch: int = 0
    step: int = 0
    step_images: int = 0
    perf: float | None = None
    best_perf: float | None = None
    to_validate: bool = False
    bad_steps: int = 0
    seconds: float = 0.0


def write_whole(content: Any, path: Path, previous: Path | None = None) -> None:
    """torch.save beside the path, flushed to the disk, then renamed: a reader sees the old file or the new one, never part.

    previous: the name under which the old file is kept. Raises CheckpointWriteError, for instance when the disk is full.
    """
    beside = path.with_name(f".{path.name}.part")  # one name, so that a run killed again and again leaves one part behind
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(beside, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        beside.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        raise CheckpointWriteError(f"{path}: could not be written ({_reason(cause or error)}); earlier files are whole") from error


def save_checkpoint(folder: Path, *, name: str, weights: Mapping[str, Tensor], optimizer: dict, scaler: dict, seed: int,
                    progress: Progress) -> None:
    """Write checkpoint.pth.tar; the one that was there becomes checkpoint_previous.pth.tar. weights: of the bare model.
    """
    content = {
        "epoch": progress.epoch, "model": name, "state_dict": {WRAPPER + key: value for key, value in weights.items()},
        "best_state_dict": dict(weights), "perf": -1.0 if progress.perf is None else progress.perf,
        "optimizer": optimizer, "scaler": scaler, "seed": seed, "progress": asdict(progress),
    }
    write_whole(content, folder / NEWEST, previous=folder / PREVIOUS)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, ours or the published code's, on the CPU; `progress` is a Progress, `path` the file.
    Raises CheckpointError.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files fail in as many ways as there are readers in torch.load
        raise CheckpointError(f"{path}: damaged, cut short or no checkpoint ({_reason(error)})") from None
    for key in ("epoch", "state_dict", "optimizer"):
        if not isinstance(content, dict) or key not in content:
            raise CheckpointError(f"{path}: is no checkpoint of training, for it has no {key!r}")
    content["state_dict"] = {key.removeprefix(WRAPPER): value for key, value in content["state_dict"].items()}
    known = {field.name for field in fields(Progress)}
    saved = {key: value for key, value in content.get("progress", {"epoch": content["epoch"]}).items() if key in known}
    content["progress"], content["path"] = Progress(**saved), path
    return content


def resume(folder: Path, restore: Callable[[dict[str, Any]], None], warn: Callable[[str], None]) -> Path | None:
    """Restore the newest checkpoint that can be used, and return its path; None where there is none at all.

    restore puts the content of `read_checkpoint` to use, or raises CheckpointError or ValueError where it does not fit.
    A checkpoint that cannot be used is named through warn; CheckpointError if there are checkpoints and none can be
    used.
    """
    paths = [path for path in (folder / NEWEST, folder / PREVIOUS) if path.exists()]
    for path in paths:
        try:
            restore(read_checkpoint(path))
            return path
        except (ValueError, KeyError, TypeError) as error:
            warn(str(error) if isinstance(error, CheckpointError) else f"{path}: is of another run ({_reason(error)})")
    if paths:
        raise CheckpointError(f"{folder}: no checkpoint there can be used; AUTO_RESUME False starts anew")
    return None


def set_aside(folder: Path) -> Path | None:
    """Move the checkpoints of an earlier run out of the way of one that starts anew; the newest is kept, under the path
    returned.
    """
    (folder / PREVIOUS).unlink(missing_ok=True)
    if not (folder / NEWEST).exists():
        return None
    os.replace(folder / NEWEST, folder / SET_ASIDE)
    return folder / SET_ASIDE


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power cut, where the system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems cannot
        pass
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
