"""Where a run starts: anew, from its own last checkpoint, or from a checkpoint that is named."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swahr.config import defaults, resolve_path
from swahr.distributed import comm
from swahr.engine import checkpoint
from swahr.engine.checkpoint import Progress, RefusedResume, RunIdentity, restore_optimizer
from swahr.engine.hooks import KEEP_BEST, Hook, build_hooks
from swahr.engine.run_folder import (
    changed_settings,
    changed_skeleton,
    changes_what_is_learnt,
    changes_what_is_measured,
    own_skeleton,
)
from swahr.engine.schedule import TrainingError
from swahr.engine.train_step import LossScaler
from swahr.files import naming
from swahr.models.network import PoseNetwork
from swahr.models.weights import CheckpointError, load_pretrained, load_state

logger = logging.getLogger("swahr")


def new_identity(cfg: Any, launchers: Sequence[str]) -> RunIdentity:
    """What the checkpoints of a fresh start say of the run, the same on every process."""
    return RunIdentity(
        name=cfg.MODEL.NAME,
        seed=cfg.TRAIN.SEED,
        config=saved_config(cfg),
        run_id=comm.all_gather(uuid.uuid4().hex)[0],
        launchers=list(launchers),
        skeleton=own_skeleton(cfg),
    )


def saved_config(cfg: Any) -> str:
    """The configuration as checkpoints and config.yaml have it: RESUME_CHANGED (--allow-changes)
    counts for the start that it was given for.
    """
    saved = cfg.clone()
    saved.defrost()
    saved.RESUME_CHANGED = False
    return str(saved.dump())


def continues_own_run(cfg: Any, folder: Path, launchers: Sequence[str]) -> bool:
    """Whether the run resumes from its own last checkpoint, if there is one in the folder; the same
    answer on every process.

    AUTO_RESUME says so. Processes of an elastic launcher do it without AUTO_RESUME too, if the
    checkpoint was written by the same job: the launcher has started them again. launchers: of this
    job.
    """
    if cfg.AUTO_RESUME:
        return True
    # How often it started them is not asked: a node does not count restarts for another one.
    restarted = comm.ELASTIC_RUN in os.environ and checkpoint.is_of_job(folder, launchers)
    return any(comm.all_gather(restarted))


class Start(NamedTuple):
    """Where training begins.

    progress: the position. hooks: by name. path: the checkpoint that was read; None for a fresh
    start. written_by: what that says of its run. other_measure: settings that decide what is
    measured and differ from the checkpoint's.
    """

    progress: Progress
    hooks: dict[str, Hook]
    path: Path | None = None
    written_by: RunIdentity | None = None
    other_measure: Sequence[str] = ()


def start_or_resume(
    cfg: Any,
    folder: Path,
    model: PoseNetwork,
    optimizer: torch.optim.Optimizer,
    scaler: LossScaler,
    identity: RunIdentity,
    *,
    resumes_own: bool,
) -> Start:
    """Fill the parts from a checkpoint, or else the network from MODEL.PRETRAINED.

    identity: what the checkpoints of this start would say of the run; it becomes that of a run that
    is resumed. resumes_own: see `continues_own_run`. In this order:

    1. With resumes_own, the run's last checkpoint.
    2. TRAIN.RESUME: the file TRAIN.CHECKPOINT.
    3. A fresh start.
    """
    if comm.is_main():
        checkpoint.remove_parts(folder)
    if not cfg.TRAIN.RESUME and not (resumes_own and checkpoint.existing(folder)):
        load_start_weights(cfg, model)
    hooks = build_hooks(cfg, model)

    def restore(content: dict[str, Any], keep_best: bool = True) -> Start:
        path = content["path"]
        changed = refuse_other_settings(cfg, content["identity"], path)
        other_measure = [key for key in changed if changes_what_is_measured(key)]
        load_state(model, content["state_dict"], str(path))
        restore_optimizer(optimizer, content["optimizer"], path)
        scaler.load_state_dict(content.get("scaler", {}))
        progress = content["progress"]
        states = content.get("hooks", {})
        if other_measure or not keep_best:
            states = {name: state for name, state in states.items() if name not in KEEP_BEST}
            progress.best_perf = None
        for name, hook in hooks.items():
            hook.load_state_dict(states.get(name, {}))
        return Start(progress, hooks, path, content["identity"], other_measure)

    start = checkpoint.resume(folder, restore, logger.warning) if resumes_own else None
    if start is not None and start.written_by is not None:
        identity.run_id = start.written_by.run_id or identity.run_id
        identity.logs = Path(start.written_by.logs).name
    elif cfg.TRAIN.RESUME:
        # The best weights of that run are not in this folder.
        start = restore(checkpoint.read_checkpoint(_named_checkpoint(cfg)), keep_best=False)
    else:
        start = Start(Progress(epoch=cfg.TRAIN.BEGIN_EPOCH), hooks)
    # Every process has read its checkpoint once all have answered here.
    if len(set(comm.all_gather((start.progress.epoch, start.progress.step)))) > 1:
        raise CheckpointError(
            f"{folder}: not every process finds the same checkpoint there; OUTPUT_DIR must be on a "
            "file system that all nodes share"
        )
    if start.path is not None:
        logger.info(
            "resuming from %s: epoch %d after step %d",
            start.path,
            start.progress.epoch + 1,
            start.progress.step,
        )
    return start


def tidy_folder(folder: Path, start: Start, *, resumes_own: bool) -> None:
    """Rename what this start would otherwise overwrite, once every process has read its checkpoint.

    Of a run that resumes: best weights of another measure, and a newest checkpoint that was passed
    over. Otherwise what an earlier run left is moved to a folder of its own. Raises WriteError.
    """
    if resumes_own and start.other_measure:
        keep_best_of_other_measure(folder, start.other_measure)
    if not comm.is_main():
        return
    if not resumes_own:
        if aside := checkpoint.set_aside(folder):
            logger.info("AUTO_RESUME is False: what an earlier run left is kept in %s", aside)
    elif start.path == folder / checkpoint.PREVIOUS and (kept := checkpoint.keep_unusable(folder)):
        logger.warning("%s is kept as %s", checkpoint.NEWEST, kept)


def keep_best_of_other_measure(folder: Path, changed: Sequence[str]) -> None:
    """Rename the best weights so far, because figures to come cannot be compared with theirs.

    changed: the settings that decide what is measured.
    """
    best = folder / checkpoint.BEST
    name = time.strftime(checkpoint.EARLIER_BEST)
    kept = ""
    if comm.is_main() and best.exists():
        with naming(best):
            renamed = best.rename(checkpoint.unused_path(folder / name))
        kept = f"; the best weights are kept in {renamed}"
    logger.warning(
        "%s changed: earlier figures do not count for the best%s", ", ".join(changed), kept
    )


def load_start_weights(cfg: Any, model: PoseNetwork) -> None:
    """MODEL.PRETRAINED, if it names a file."""
    if cfg.MODEL.PRETRAINED:
        source = resolve_path(cfg.MODEL.PRETRAINED)
        layers = cfg.MODEL.EXTRA.PRETRAINED_LAYERS
        logger.info("%s: %s", source, load_pretrained(model, source, layers))


def _named_checkpoint(cfg: Any) -> Path:
    if not cfg.TRAIN.CHECKPOINT:
        raise TrainingError(
            "TRAIN.RESUME is True and TRAIN.CHECKPOINT names no file to resume from; "
            "AUTO_RESUME True resumes from the run's own last checkpoint"
        )
    return resolve_path(cfg.TRAIN.CHECKPOINT)


def refuse_other_settings(
    cfg: Any, written_by: RunIdentity, path: Path
) -> dict[str, tuple[Any, Any]]:
    """Name the settings in which a checkpoint's run differs from this one.

    Returns {key: (value of the checkpoint's run, value now)}. Raises RefusedResume if they change
    what the network learns, unless RESUME_CHANGED.
    """
    if not written_by.config:  # the published code's, or an older version's
        if written_by.seed not in (None, cfg.TRAIN.SEED):
            logger.warning("TRAIN.SEED is %d in %s, and is now another", written_by.seed, path)
        return {}
    changed = changed_settings(written_by.config, saved_config(cfg), defaults().dump())
    changed |= changed_skeleton(written_by.skeleton, own_skeleton(cfg))
    for key, (before, now) in changed.items():
        logger.warning("%s: %s in %s, now %s", key, before, path.name, now)
    refused = [
        f"{key} {before} (now {now})"
        for key, (before, now) in changed.items()
        if changes_what_is_learnt(key)
    ]
    if refused and not cfg.RESUME_CHANGED:
        explained = ""
        if "TRAIN.END_EPOCH" in changed:
            explained = ", also with the learning rate that the new END_EPOCH gives each epoch"
        raise RefusedResume(
            f"{path}: was written with other settings: {', '.join(refused)}; RESUME_CHANGED True "
            f"(--allow-changes) resumes with the new ones{explained}; AUTO_RESUME False starts anew"
        )
    return changed


def adopt_position(progress: Progress, step_images: int, steps_per_epoch: int) -> None:
    """Convert a position in an epoch from steps of another size to steps of this run's, in-place.

    The size changes with the number of processes, images or accumulated batches. step_images:
    images of a step of this run, all processes together. steps_per_epoch: of this run.
    """
    if progress.step_images not in (0, step_images):
        seen = progress.step * progress.step_images
        logger.info(
            "a step was %d images and is now %d: resuming after %d images",
            progress.step_images,
            step_images,
            seen,
        )
        progress.step = min(seen // step_images, steps_per_epoch)
    progress.step_images = step_images
