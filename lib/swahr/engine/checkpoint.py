"""Checkpoints: written whole or not at all, the last two kept, with all that an exact resume needs.

checkpoint.pth.tar has the layout of the published code, which can read it: epoch, model, state_dict
(with the 'module.' of DistributedDataParallel), best_state_dict (without), perf, optimizer. The
other entries are this project's: scaler, seed, progress, hooks (with the figures of validation),
config, skeleton, version, run_id, launchers, logs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from swahr import __version__
from swahr.files import naming, replacing, why_unreadable
from swahr.models.weights import CheckpointError, verify_checksums

logger = logging.getLogger("swahr")
NEWEST = "checkpoint.pth.tar"
PREVIOUS = "checkpoint_previous.pth.tar"
BEST = "model_best.pth.tar"
EARLIER_BEST = "model_best_%Y-%m-%d_%H-%M-%S.pth.tar"  # BEST before the measure changed; strftime
UNUSABLE = "checkpoint_unusable_%Y-%m-%d_%H-%M-%S.pth.tar"  # a NEWEST that was passed over
FINAL = "final_state.pth.tar"
CONFIG = "config.yaml"
SKELETON = "skeleton.yaml"
RESULTS = "results.csv"
CURVES = "curves.png"
VAL_IMAGES = "val_images.jpg"
WRAPPER = "module."
# Entries of an optimiser's groups that say how it computes, not what; they come and go with
# PyTorch's versions.
_IMPLEMENTATION = {
    "foreach",
    "fused",
    "maximize",
    "capturable",
    "differentiable",
    "decoupled_weight_decay",
}
_PLAIN = (str, bytes, int, float, bool, type(None))  # what a file may have besides tensors
_SHAPED_STATE = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")

Restored = TypeVar("Restored")


class RefusedResume(ValueError):
    """A checkpoint that could be resumed but must not be: older ones are not tried."""


@dataclass
class Progress:
    """How far training has come.

    epoch, step: the next step, counted from 0; `step` counts within the epoch. step_images: images
    of a step, all processes together. perf, best_perf: the deciding figure (TRAIN.BEST_METRIC) of
    the last and of the best validation, None before the first. to_validate: whether the epoch
    before `epoch` still has to be validated. bad_steps: steps that were skipped as non-finite.
    seconds: of training, all starts together. epoch_sums: sums over the reported steps of this
    epoch, in a checkpoint over all that are done, by name; see progress.means_of_sums.
    """

    epoch: int = 0
    step: int = 0
    step_images: int = 0
    perf: float | None = None
    best_perf: float | None = None
    to_validate: bool = False
    bad_steps: int = 0
    seconds: float = 0.0
    epoch_sums: dict[str, float] = field(default_factory=dict)


@dataclass
class RunIdentity:
    """What a checkpoint says of the run that wrote it.

    name: MODEL.NAME. seed: TRAIN.SEED, None if unknown. config: the whole configuration as YAML, ''
    if unknown. run_id: drawn at the run's first start, kept by every resume. launchers: the
    processes that started this job's processes, see comm.launcher_id. logs: name of the folder of
    the run's TensorBoard log. skeleton: of DATASET.SKELETON, as the text of its file.
    """

    name: str = ""
    seed: int | None = None
    config: str = ""
    run_id: str = ""
    launchers: list[str] = field(default_factory=list)
    logs: str = ""
    skeleton: str = ""


def write_whole(content: Any, path: Path, previous: Path | None = None) -> None:
    """torch.save to a file that is whole or not there; WriteError if that fails (a full disk).

    previous: the name under which the file that was there is kept.
    """
    with replacing(path, previous=previous) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch.save wraps the system's own error
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def checkpoint_content(
    identity: RunIdentity,
    weights: Mapping[str, Tensor],
    optimizer: dict,
    scaler: dict,
    progress: Progress,
    hooks: Mapping[str, dict],
) -> dict[str, Any]:
    """What checkpoint.pth.tar holds.

    weights: of the bare model, under the published names. optimizer, scaler, hooks: state_dicts;
    those of the hooks by name.
    """
    return {
        "epoch": progress.epoch,
        "model": identity.name,
        "state_dict": {WRAPPER + key: value for key, value in weights.items()},
        "best_state_dict": dict(weights),
        "perf": -1.0 if progress.perf is None else progress.perf,
        "optimizer": optimizer,
        "scaler": scaler,
        "hooks": dict(hooks),
        "seed": identity.seed,
        "config": identity.config,
        "run_id": identity.run_id,
        "launchers": list(identity.launchers),
        "logs": identity.logs,
        "skeleton": identity.skeleton,
        "version": __version__,
        "progress": asdict(progress),
    }


class CheckpointWriter:
    """Writes the checkpoints of a run, if asked to in a thread.

    A thread lets the GPUs go on. The copies to the host are queued before the work of later steps,
    so that the file has the values of the moment of `write`, whatever these steps do. The thread
    waits for the copies and writes them. One file is written at a time. At the end of a `with`
    block the last file is there. Values that `read_checkpoint` would refuse to read are not
    written, see `plain_copy`.

    in_background: whether there is a thread. On a CPU it would only take time from the training.
    """

    def __init__(self, in_background: bool) -> None:
        self.in_background = in_background
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.error("%s", failure)  # the error that ends the run is told last

    def write(self, content: Any, path: Path, previous: Path | None = None) -> None:
        """write_whole, once an earlier file is done. Raises the error of that one too, and
        CheckpointError for values that are not plain data.
        """
        self.wait()
        if not self.in_background:
            write_whole(plain_copy(content), path, previous)
            return
        copied = copy_to_host(content)
        self._thread = threading.Thread(target=self._write, args=(copied, path, previous))
        self._thread.start()

    def wait(self) -> None:
        """Return once the last file is there. Raises its error, such as WriteError."""
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, copied: HostCopy, path: Path, previous: Path | None) -> None:
        try:
            copied.wait()
            write_whole(copied.content, path, previous)
        except BaseException as error:  # raised where the run waits
            self._error = error


class HostCopy(NamedTuple):
    """Plain data and tensors, copied to the host.

    done: passed once the copies from a GPU are complete; None if there are none.
    """

    content: Any
    done: torch.cuda.Event | None

    def wait(self) -> None:
        if self.done is not None:
            self.done.synchronize()


def copy_to_host(content: Any) -> HostCopy:
    """Copy dictionaries and lists with the tensors in them; the processor does not wait for a GPU.

    Tensors on a GPU go to pinned memory. A tensor that occurs twice is copied once. Raises
    CheckpointError as `plain_copy` does.
    """
    copies: dict[Any, Tensor] = {}
    on_gpu = False

    def copied_tensor(tensor: Tensor) -> Tensor:
        nonlocal on_gpu
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in copies:
            on_gpu = on_gpu or tensor.is_cuda
            host = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            copies[key] = host.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
        return copies[key]

    content = plain_copy(content, copied_tensor)
    done = torch.cuda.Event() if on_gpu else None
    if done is not None:
        done.record()
    return HostCopy(content, done)


def plain_copy(content: Any, copied: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
    """Dictionaries, lists and tuples with what is in them; tensors become `copied(tensor)`.

    Raises CheckpointError for values that `read_checkpoint` would refuse to read.
    """

    def copy(value: Any, name: str = "") -> Any:
        if isinstance(value, Mapping):
            return {copy(key, name): copy(entry, f"{name}.{key}") for key, entry in value.items()}
        if isinstance(value, list | tuple):
            entries = [copy(entry, name) for entry in value]
            return entries if isinstance(value, list) else tuple(entries)
        if isinstance(value, Tensor):
            return copied(value)
        if type(value) not in _PLAIN:
            kind = f"{type(value).__module__}.{type(value).__name__}"
            raise CheckpointError(
                f"{name[1:]}: a {kind} cannot be kept in a checkpoint; it must be plain data "
                "(int, float, str, list, dict) or a tensor"
            )
        return value

    return copy(content)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, ours or the published code's, on the CPU; CheckpointError.

    `state_dict` is that of the bare model, `progress` a Progress, `identity` a RunIdentity, and
    `path` the file.
    """
    if reason := why_unreadable(path):
        raise CheckpointError(f"{path}: {reason}")
    verify_checksums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in as many ways as it has readers
        kind = type(error).__name__
        raise CheckpointError(
            f"{path}: damaged, cut short, or more than plain data, so refused ({kind})"
        ) from None
    _check_types(content, path)
    content["state_dict"] = {
        key.removeprefix(WRAPPER): value for key, value in content["state_dict"].items()
    }
    saved = content.get("progress", {"epoch": content["epoch"]})
    known = {field.name for field in fields(Progress)}
    content["progress"] = Progress(**{key: saved[key] for key in saved if key in known})
    content["identity"] = RunIdentity(
        content.get("model", ""),
        content.get("seed"),
        content.get("config", ""),
        content.get("run_id", ""),
        content.get("launchers", []),
        content.get("logs", ""),
        content.get("skeleton", ""),
    )
    content["path"] = path
    return content


def _check_types(content: Any, path: Path) -> None:
    """CheckpointError unless every entry has the type that resuming relies on."""
    required: dict[str, Any] = {"epoch": int, "state_dict": Mapping, "optimizer": Mapping}
    optional: dict[str, Any] = {
        "scaler": Mapping,
        "hooks": Mapping,
        "seed": int,
        "config": str,
        "run_id": str,
        "launchers": list,
        "logs": str,
        "skeleton": str,
        "version": str,
        "progress": Mapping,
    }
    for key in required:
        if not isinstance(content, dict) or key not in content:
            raise CheckpointError(f"{path}: not a training checkpoint: it has no {key!r}")
    for key, kind in (required | optional).items():
        if key in content and not isinstance(content[key], kind):
            found = type(content[key]).__name__
            raise CheckpointError(f"{path}: not a training checkpoint: its {key!r} is a {found}")
    for name, value in content["state_dict"].items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            reason = f"that is a {type(value).__name__}, not a tensor"
            if not isinstance(name, str):
                reason = f"whose name is no text but a {type(name).__name__}"
            raise CheckpointError(
                f"{path}: not a training checkpoint: its 'state_dict' has an entry "
                f"{str(name)[:80]!r} {reason}"
            )
    progress = content.get("progress", {})
    types: dict[str, Any] = dict.fromkeys(("perf", "best_perf"), int | float | None)
    types["seconds"] = int | float
    types["epoch_sums"] = Mapping
    for entry in fields(Progress):
        if entry.name not in progress:
            continue
        value = progress[entry.name]
        numbers = value.values() if isinstance(value, Mapping) else ()
        if not isinstance(value, types.get(entry.name, int)) or not all(
            isinstance(number, int | float) for number in numbers
        ):
            raise CheckpointError(
                f"{path}: not a training checkpoint: its progress has {entry.name} {value!r}"
            )


def restore_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], path: Path
) -> None:
    """Load an optimiser's state_dict, without its settings (rate, momentum, weight decay, ...):
    those of this start stay. CheckpointError if it is of another optimiser or network.
    """
    kind = type(optimizer).__name__
    groups = state.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise CheckpointError(f"{path}: not a training checkpoint: its optimizer has no groups")
    known = set(optimizer.param_groups[0]) | _IMPLEMENTATION
    foreign = sorted({str(key) for group in groups for key in group} - known)
    if foreign:
        raise CheckpointError(
            f"{path}: written with another optimizer than {kind}: it has {', '.join(foreign)}"
        )
    settings = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    try:
        # Before it is loaded, as `fused` and `capturable` decide on which device the steps are.
        groups = [dict(group) for group in groups]
        for group, of_this_start in zip(groups, settings):
            group.update(of_this_start)
        optimizer.load_state_dict({**state, "param_groups": groups})
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: its optimizer does not fit the network: {_reason(error)}"
        ) from None
    for parameter, values in optimizer.state.items():
        for name in _SHAPED_STATE:
            value = values.get(name)
            if isinstance(value, Tensor) and value.shape != parameter.shape:
                raise CheckpointError(
                    f"{path}: its optimizer does not fit the network: {name} is of shape "
                    f"{list(value.shape)} for a parameter of {list(parameter.shape)}"
                )


def resume(
    folder: Path, restore: Callable[[dict[str, Any]], Restored], warn: Callable[[str], None]
) -> Restored | None:
    """What `restore` returns for the newest usable checkpoint; None if the folder has none at all.

    restore: puts the content of `read_checkpoint` to use, or raises CheckpointError, ValueError,
    KeyError, TypeError or AttributeError if it does not fit. warn: gets a line for each checkpoint
    that cannot be used. Raises CheckpointError if there are checkpoints and none can be used.
    """
    paths = existing(folder)
    for path in paths:
        try:
            return restore(read_checkpoint(path))
        except RefusedResume:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            known = isinstance(error, CheckpointError)
            warn(str(error) if known else f"{path}: is of another run ({_reason(error)})")
    if paths:
        raise CheckpointError(
            f"{folder}: no checkpoint there can be used; AUTO_RESUME False starts anew"
        )
    return None


def existing(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return [path for path in (folder / NEWEST, folder / PREVIOUS) if path.exists()]


def is_of_job(folder: Path, launchers: Sequence[str]) -> bool:
    """Whether the newest readable checkpoint was written by a job that these launchers started."""
    for path in existing(folder):
        try:
            written_by = read_checkpoint(path)["identity"].launchers
        except CheckpointError:
            continue
        return bool(set(written_by) & set(launchers))
    return False


def keep_unusable(folder: Path) -> Path | None:
    """Rename a newest checkpoint that was passed over, which would else replace the one before.

    Returns its new path; None if there is none.
    """
    newest = folder / NEWEST
    if not newest.exists():
        return None
    with naming(newest):
        return newest.rename(unused_path(folder / time.strftime(UNUSABLE)))


def remove_parts(folder: Path) -> None:
    """Remove incomplete files of a run that was killed while it wrote them."""
    for path in folder.glob(".*.pth.tar.*"):
        path.unlink(missing_ok=True)


def set_aside(folder: Path) -> Path | None:
    """Move an earlier run's checkpoints, weights, table and configuration to a new dated folder.

    Nothing that was set aside before is overwritten. Returns the new folder; None if there is
    nothing to keep. Raises WriteError.
    """
    weights = (NEWEST, PREVIOUS, BEST, FINAL)
    kept = [
        path
        for path in folder.glob("*.tar")
        if path.name in weights or is_earlier_best(path.name) or is_unusable(path.name)
    ]
    if not kept:
        return None
    aside = unused_path(folder / time.strftime("replaced_%Y-%m-%d_%H-%M-%S"))
    described_by = [folder / name for name in (CONFIG, SKELETON, RESULTS, CURVES, VAL_IMAGES)]
    with naming(aside):
        aside.mkdir()
        for path in [*kept, *(path for path in described_by if path.exists())]:
            os.replace(path, aside / path.name)
    return aside


def is_earlier_best(name: str) -> bool:
    """Whether a file has the name EARLIER_BEST of some time, also as `unused_path` gives it."""
    return fnmatch(name, "model_best_*.tar")


def is_unusable(name: str) -> bool:
    """Whether a file has the name UNUSABLE of some time, also as `unused_path` gives it."""
    return fnmatch(name, "checkpoint_unusable_*.tar")


def unused_path(path: Path) -> Path:
    """The path, or the first of NAME_2, NAME_3 ... (before the suffix) that does not exist."""
    candidate = path
    number = 2
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
        number += 1
    return candidate


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
