"""Training: what one process of a run does, from the first weights to the last."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from swahr.codec.targets import build_target_encoder
from swahr.config import configured_skeleton, log_dir, output_dir, resolve_path, save_config
from swahr.data.images import ImageError
from swahr.data.keypoints import build_dataset
from swahr.data.loaders import Batch, build_train_loader
from swahr.engine import checkpoint, distributed
from swahr.engine.checkpoint import CheckpointError, Progress
from swahr.engine.guard import StepGuard
from swahr.engine.optimization import DTYPES, Stepper, build_optimizer, build_scaler
from swahr.engine.progress import EpochBar, Meter, TensorBoard, setup_logging
from swahr.engine.schedule import build_schedule
from swahr.engine.signals import Interrupted, StopRequest, leave_signals_to_parent
from swahr.losses.criterion import build_criterion
from swahr.models.build import build_model
from swahr.models.weights import load_pretrained, load_state

logger = logging.getLogger("swahr")


@dataclass
class Run:
    """The parts of a run. model: bare, without wrappers; folder: of checkpoints and results; steps: of an epoch."""

    cfg: Any
    folder: Path
    device: torch.device
    model: nn.Module
    stepper: Stepper
    loader: DataLoader
    steps: int
    schedule: Callable[[int], float]
    progress: Progress
    guard: StepGuard
    stop: StopRequest
    board: TensorBoard
    saved_at: float = 0.0  # time.monotonic() of the last checkpoint


def train(cfg: Any, cfg_path: str | os.PathLike[str]) -> None:
    """Train as the configuration says, going on from the run's last checkpoint where AUTO_RESUME allows; called by
    every process.

    cfg_path: the YAML file, whose name names the run. Raises Interrupted after a signal, once a checkpoint is written.
    """
    start = time.monotonic()
    device = distributed.select_device(cfg.DEVICE)
    with distributed.process_group(device, cfg.DIST_BACKEND), StopRequest() as stop:
        folder, logs = output_dir(cfg, cfg_path), log_dir(cfg, cfg_path)
        setup_logging(folder / "train.log")
        run = build_run(cfg, folder, device, stop, TensorBoard(logs if distributed.is_main() else None))
        if distributed.is_main():
            save_config(cfg, folder / "config.yaml")
        while True:
            if run.progress.to_validate:
                validate_run(run)
            if run.progress.epoch >= cfg.TRAIN.END_EPOCH:
                break
            train_one_epoch(run)
        finish(run, logs, time.monotonic() - start)


def train_one_epoch(run: Run) -> None:
    """The epoch at hand, from the step at hand; leaves a checkpoint behind, at its end or where a signal stops it."""
    cfg, epoch, meter = run.cfg, run.progress.epoch, Meter()
    bad_images: set[int] = set()
    run.loader.batch_sampler.set_epoch(epoch, run.progress.step * cfg.TRAIN.ACCUMULATION_STEPS)
    with EpochBar(f"epoch {epoch + 1}/{cfg.TRAIN.END_EPOCH}", run.steps, run.progress.step) as bar:
        for batches in grouped(run.loader, cfg.TRAIN.ACCUMULATION_STEPS):
            step = epoch * run.steps + run.progress.step
            rate = run.schedule(step)
            batches = [batch.to(run.device, non_blocking=True) for batch in batches]
            result = run.stepper(batches, rate)
            run.guard.check(step, result.bad, run.stop.signal, batches, result.losses)
            meter.add(result.losses, result.bad)
            bad_images.update(image for batch in batches for image in batch.bad_ids)
            run.progress.step += 1
            bar.advance()
            if run.progress.step % cfg.PRINT_FREQ == 0 or run.progress.step == run.steps:
                report(run, bar, meter, rate)
            if run.guard.stop_signal:
                stop_here(run)
            save_if_due(run)
    report_bad_images(bad_images)
    every = cfg.TRAIN.VAL_INTERVAL
    run.progress.epoch, run.progress.step = epoch + 1, 0
    run.progress.to_validate = epoch + 1 == cfg.TRAIN.END_EPOCH or (every > 0 and (epoch + 1) % every == 0)
    save(run)


def validate_run(run: Run) -> None:
    """Validate the weights as they are, and keep them if they are the best so far."""
    from swahr.engine.validate import validate

    distributed.broadcast_buffers(run.model)
    with run.stop.at_once():
        stats = validate(run.cfg, run.model, folder=run.folder)
    progress = run.progress
    progress.perf, progress.to_validate = stats.get("AP"), False
    run.board.scalars({f"validation/{name}": value for name, value in stats.items()}, progress.epoch * run.steps)
    best = progress.perf is None or progress.best_perf is None or progress.perf > progress.best_perf
    if best:
        progress.best_perf = progress.perf
        if distributed.is_main():
            checkpoint.write_whole(run.model.state_dict(), run.folder / checkpoint.BEST)
    if progress.perf is not None:
        logger.info("epoch %d: AP %.4f%s", progress.epoch, progress.perf, ", the best so far" if best else "")
    save(run)


def build_run(cfg: Any, folder: Path, device: torch.device, stop: StopRequest, board: TensorBoard) -> Run:
    """Everything built from the configuration, with the weights and the progress of the run's last checkpoint, if there
    is one.
    """
    apply_backend_settings(cfg, device)
    skeleton = configured_skeleton(cfg) if not cfg.DATASET.WITH_CENTER else None
    dataset = build_dataset(cfg, cfg.DATASET.TRAIN, train=True, root=resolve_path(cfg.DATASET.ROOT), skeleton=skeleton)
    loader = build_train_loader(cfg, dataset, distributed.rank(), distributed.world_size())
    loader.worker_init_fn = leave_signals_to_parent(loader.worker_init_fn)
    torch.manual_seed(cfg.TRAIN.SEED)
    model = build_model(cfg)
    if cfg.MODEL.SYNC_BN and device.type == "cuda" and distributed.world_size() > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif cfg.MODEL.SYNC_BN and device.type == "cpu":
        logger.info("MODEL.SYNC_BN needs GPUs: on the CPU each process has the batch statistics of its own images")
    model = model.to(device, memory_format=torch.channels_last if cfg.TRAIN.CHANNELS_LAST else torch.preserve_format)
    optimizer, scaler = build_optimizer(cfg, model), build_scaler(cfg, device)
    replicas = distributed.world_size() * cfg.TRAIN.ACCUMULATION_STEPS
    steps = len(loader) // cfg.TRAIN.ACCUMULATION_STEPS
    progress = start_or_resume(cfg, folder, model, optimizer, scaler, replicas * cfg.TRAIN.IMAGES_PER_GPU, steps)
    stepper = Stepper(
        model=parallel(cfg, model, device), encoder=build_target_encoder(cfg), criterion=build_criterion(cfg), optimizer=optimizer,
        scaler=scaler, device=device, dtype=DTYPES[cfg.AMP.DTYPE] if cfg.AMP.ENABLED else None, channels_last=cfg.TRAIN.CHANNELS_LAST)
    guard = StepGuard(device, cfg.TRAIN.MAX_BAD_STEPS, folder, replay=lambda: {"state_dict": model.state_dict(), "config": cfg.dump()})
    guard.bad_steps = progress.bad_steps
    logger.info("%d images, %d steps of %d images an epoch (%d processes on %s)", len(dataset), steps, progress.step_images,
                distributed.world_size(), device.type)
    return Run(cfg, folder, device, model, stepper, loader, steps, build_schedule(cfg, steps, replicas), progress, guard, stop, board,
               saved_at=time.monotonic())


def parallel(cfg: Any, model: nn.Module, device: torch.device) -> nn.Module:
    """The model as training calls it: compiled where TRAIN.COMPILE, in DistributedDataParallel where there are several
    processes.
    """
    module = torch.compile(model) if cfg.TRAIN.COMPILE else model
    if not distributed.has_group():
        return module
    heads_without_loss = not all(cfg.LOSS.WITH_HEATMAPS_LOSS) or (cfg.MODEL.SCALE_HEADS and not cfg.LOSS.SCALE_ADAPTIVE)
    return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None,
                                   find_unused_parameters=heads_without_loss, gradient_as_bucket_view=True)


def start_or_resume(cfg: Any, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, step_images: int,
                    steps: int) -> Progress:
    """Where to go on. A process that an elastic launcher started again goes on even without AUTO_RESUME: it is the same
    run.
    """
    progress = Progress(epoch=cfg.TRAIN.BEGIN_EPOCH, step_images=step_images)

    def restore(content: dict[str, Any]) -> None:
        nonlocal progress
        load_state(model, content["state_dict"], "state_dict")
        optimizer.load_state_dict(content["optimizer"])
        scaler.load_state_dict(content.get("scaler", {}))
        progress = content["progress"]

    path = None
    if cfg.AUTO_RESUME or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        path = checkpoint.resume(folder, restore, logger.error)
    elif distributed.is_main() and (old := checkpoint.set_aside(folder)):
        logger.info("AUTO_RESUME is False: starting anew; the checkpoint of the run before is kept as %s", old)
    found = distributed.all_gather((progress.epoch, progress.step))
    if len(set(found)) > 1:
        raise CheckpointError(f"{folder}: the processes do not all find the same checkpoint there; OUTPUT_DIR must be on a file system "
                              "that all nodes share")
    if path is not None:
        adopt_position(progress, step_images, steps)
        logger.info("going on from %s: epoch %d, step %d", path, progress.epoch + 1, progress.step)
    elif cfg.MODEL.PRETRAINED:
        report = load_pretrained(model, resolve_path(cfg.MODEL.PRETRAINED), cfg.MODEL.EXTRA.PRETRAINED_LAYERS)  # type: ignore[arg-type]
        logger.info("%s: %s", cfg.MODEL.PRETRAINED, report)
    return progress


def adopt_position(progress: Progress, step_images: int, steps: int) -> None:
    """Turn a position counted in steps of another size (other numbers of processes, images or accumulation steps) into
    one in ours.
    """
    if progress.step_images not in (0, step_images):
        seen = progress.step * progress.step_images
        logger.info("a step was %d images and is %d now: going on after %d images", progress.step_images, step_images, seen)
        progress.step = min(seen // step_images, steps)
    progress.step_images = step_images


def apply_backend_settings(cfg: Any, device: torch.device) -> None:
    cudnn = torch.backends.cudnn
    cudnn.enabled, cudnn.benchmark, cudnn.deterministic = cfg.CUDNN.ENABLED, cfg.CUDNN.BENCHMARK, cfg.CUDNN.DETERMINISTIC


def grouped(loader: DataLoader, size: int) -> Iterator[list[Batch]]:
    """Batches, `size` at a time. An image that a worker could not read is reported without the worker's own traceback.
    """
    batches: list[Batch] = []
    try:
        for batch in loader:
            batches.append(batch)
            if len(batches) == size:
                yield batches
                batches = []
    except ImageError as error:
        raise ImageError(str(error).strip().splitlines()[-1].removeprefix("swahr.data.images.ImageError: ")) from None


def report(run: Run, bar: EpochBar, meter: Meter, rate: float) -> None:
    """Losses, learning rate, speed and time left, to the bar or the log and to TensorBoard. All processes together."""
    losses, speed = meter.read()
    step = run.progress.epoch * run.steps + run.progress.step
    images = speed * run.progress.step_images
    bar.tell(losses, rate, images, (run.cfg.TRAIN.END_EPOCH * run.steps - step) / speed)
    run.board.scalars({**{f"train/{name}": value for name, value in losses.items()}, "train/learning_rate": rate,
                       "train/images_per_second": images, "train/steps_left_out": float(run.guard.bad_steps)}, step)
    if run.guard.in_a_row:
        logger.warning("the loss or its gradient was not finite: %d steps left out so far, the last %d in a row",
                       run.guard.bad_steps, run.guard.in_a_row)


def report_bad_images(mine: set[int]) -> None:
    """Name the images that could not be read this epoch, of all processes."""
    bad = sorted(set().union(*distributed.all_gather(mine)))
    if bad:
        logger.warning("%d images could not be read, and others were taken in their place: %s%s", len(bad),
                       ", ".join(map(str, bad[:50])), " ..." if len(bad) > 50 else "")


def save(run: Run) -> None:
    """A checkpoint, written by the main process."""
    run.saved_at = time.monotonic()
    run.progress.bad_steps = run.guard.bad_steps
    if distributed.is_main():
        checkpoint.save_checkpoint(
            run.folder, name=run.cfg.MODEL.NAME, weights=run.model.state_dict(), optimizer=run.stepper.optimizer.state_dict(),
            scaler=run.stepper.scaler.state_dict(), seed=run.cfg.TRAIN.SEED, progress=run.progress)


def save_if_due(run: Run) -> None:
    """The checkpoint of every TRAIN.CHECKPOINT_MINUTES. The other processes wait for the main one at the next step, if
    at all.
    """
    minutes = run.cfg.TRAIN.CHECKPOINT_MINUTES
    if minutes > 0 and time.monotonic() - run.saved_at > minutes * 60:
        save(run)


def stop_here(run: Run) -> None:
    """A checkpoint, and the end, on all processes together."""
    save(run)
    distributed.barrier()  # a process that left early would take the one that writes with it
    raise Interrupted(run.guard.stop_signal, f" in epoch {run.progress.epoch + 1} after step {run.progress.step}; the checkpoint is "
                      f"written, and the same command with AUTO_RESUME True goes on from there: {run.folder / checkpoint.NEWEST}")


def finish(run: Run, logs: Path, seconds: float) -> None:
    """The final weights, and a table of what came of it all."""
    if not distributed.is_main():
        return
    checkpoint.write_whole(run.model.state_dict(), run.folder / checkpoint.FINAL)
    best = run.progress.best_perf
    rows = {
        "epochs": run.progress.epoch, "time of this start": timedelta(seconds=round(seconds)), "steps left out": run.guard.bad_steps,
        "best AP": "no validation" if best is None else f"{best:.4f}", "best weights": run.folder / checkpoint.BEST,
        "final weights": run.folder / checkpoint.FINAL, "checkpoint": run.folder / checkpoint.NEWEST, "TensorBoard": logs,
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()), flush=True)
