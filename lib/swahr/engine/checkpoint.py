"""Checkpoints that survive: whole or not there at all, the last two kept, enough in them to go on
exactly.

checkpoint.pth.tar has the layout of the published code, which can read it: epoch, model, state_dict
(with the 'module.' of DistributedDataParallel), best_state_dict (without), perf, optimizer. What
else an exact continuation needs stands beside these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swahr.files import replacing
from swahr.models.weights import CheckpointError, verify_checksums

NEWEST = "checkpoint.pth.tar"
PREVIOUS = "checkpoint_previous.pth.tar"
SET_ASIDE = "checkpoint_replaced.pth.tar"
BEST = "model_best.pth.tar"
FINAL = "final_state.pth.tar"
WRAPPER = "module."


@dataclass
class Progress:
    """How far training has come.

    epoch, step: the next step to take, counted from 0; step counts within the epoch. step_images:
    images that a step takes, all processes together. perf, best_perf: AP of the last and of the
    best validation, None before the first. to_validate: whether the epoch before `epoch` still has
    to be validated. bad_steps: steps left out, since the loss was no finite number. seconds: of
    training, all starts together.
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
    """torch.save to a file that is whole or not there at all; WriteError if it cannot be written (a
    full disk).

    previous: the name under which the file that was there is kept.
    """
    with replacing(path, previous=previous) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what torch.save makes of the system's own error
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def save_checkpoint(
    folder: Path,
    *,
    name: str,
    weights: Mapping[str, Tensor],
    optimizer: dict,
    scaler: dict,
    seed: int,
    progress: Progress,
) -> None:
    """Write checkpoint.pth.tar; the one before becomes checkpoint_previous.pth.tar. weights: of the
    bare model.
    """
    content = {
        "epoch": progress.epoch,
        "model": name,
        "state_dict": {WRAPPER + key: value for key, value in weights.items()},
        "best_state_dict": dict(weights),
        "perf": -1.0 if progress.perf is None else progress.perf,
        "optimizer": optimizer,
        "scaler": scaler,
        "seed": seed,
        "progress": asdict(progress),
    }
    write_whole(content, folder / NEWEST, previous=folder / PREVIOUS)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, ours or the published code's, on the CPU, with the file's
    `path`; CheckpointError.

    `state_dict` is that of the bare model, `progress` a Progress.
    """
    verify_checksums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # damaged files fail in as many ways as there are readers in torch.load
        kind = type(error).__name__
        raise CheckpointError(
            f"{path}: damaged, cut short, or more than plain data, so refused ({kind})"
        ) from None
    for key in ("epoch", "state_dict", "optimizer"):
        if not isinstance(content, dict) or key not in content:
            raise CheckpointError(f"{path}: is no checkpoint of training, for it has no {key!r}")
    content["state_dict"] = {
        key.removeprefix(WRAPPER): value for key, value in content["state_dict"].items()
    }
    known = {field.name for field in fields(Progress)}
    saved = {
        key: value
        for key, value in content.get("progress", {"epoch": content["epoch"]}).items()
        if key in known
    }
    content["progress"], content["path"] = Progress(**saved), path
    return content


def resume(
    folder: Path, restore: Callable[[dict[str, Any]], None], warn: Callable[[str], None]
) -> Path | None:
    """Restore the newest checkpoint that can be used, and return its path; None where there is none
    at all.

    restore puts the content of `read_checkpoint` to use, or raises CheckpointError or ValueError
    where it does not fit. A checkpoint that cannot be used is named through warn; CheckpointError
    if there are checkpoints and none can be used.
    """
    paths = [path for path in (folder / NEWEST, folder / PREVIOUS) if path.exists()]
    for path in paths:
        try:
            restore(read_checkpoint(path))
            return path
        except (ValueError, KeyError, TypeError) as error:
            warn(
                str(error)
                if isinstance(error, CheckpointError)
                else f"{path}: is of another run ({_reason(error)})"
            )
    if paths:
        raise CheckpointError(
            f"{folder}: no checkpoint there can be used; AUTO_RESUME False starts anew"
        )
    return None


def remove_parts(folder: Path) -> None:
    """Remove what a run that was killed had written of its next file."""
    for path in folder.glob(".*.pth.tar.*"):
        path.unlink(missing_ok=True)


def set_aside(folder: Path) -> Path | None:
    """Move an earlier run's checkpoints out of a new one's way; the newest is kept, under the path
    returned.
    """
    (folder / PREVIOUS).unlink(missing_ok=True)
    if not (folder / NEWEST).exists():
        return None
    os.replace(folder / NEWEST, folder / SET_ASIDE)
    return folder / SET_ASIDE


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
