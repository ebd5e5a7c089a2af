"""Training: what one process of a run does, from the first weights to the last."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from swahr.config import log_dir, output_dir, save_config
from swahr.data.loaders import Batch
from swahr.distributed import comm
from swahr.distributed.signals import Interrupted, StopRequest
from swahr.engine import checkpoint
from swahr.engine.progress import EpochBar, Meter, TensorBoard, save_panel, setup_logging
from swahr.engine.setup import Run, build_run
from swahr.engine.train_step import Sample
from swahr.models.weights import published_state

logger = logging.getLogger("swahr")
PANEL_IMAGES = 4


def train(cfg: Any, cfg_path: str | os.PathLike[str]) -> None:
    """Train as the configuration says, going on from the run's last checkpoint where AUTO_RESUME
    says so. Every process calls it.

    cfg_path: the YAML file, whose name names the run. Raises Interrupted after a signal, once a
    checkpoint is written.
    """
    device = comm.select_device(cfg.DEVICE)
    with comm.process_group(device, cfg.DIST_BACKEND), StopRequest() as stop:
        folder = output_dir(cfg, cfg_path)
        logs = log_dir(cfg, cfg_path)
        setup_logging(folder / "train.log")
        run = build_run(cfg, folder, device, stop, TensorBoard(logs if comm.is_main() else None))
        if comm.is_main():
            save_config(cfg, folder / "config.yaml")
        with shared_with_workers():
            while run.progress.to_validate or run.progress.epoch < cfg.TRAIN.END_EPOCH:
                if run.progress.to_validate:
                    validate_run(run)
                else:
                    train_one_epoch(run)
        if comm.is_main():
            finish(run, logs)


@contextmanager
def shared_with_workers() -> Iterator[None]:
    """Keep garbage collection away from what there is already, while the block runs.

    It writes into every object that it looks at, and what is written to is no longer shared with
    the loading workers.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def train_one_epoch(run: Run) -> None:
    """The epoch at hand, from the step at hand; leaves a checkpoint behind, at its end or where a
    signal stops it.
    """
    settings = run.cfg.TRAIN
    progress = run.progress
    meter = Meter()
    bad_images: set[int] = set()
    run.sampler.set_epoch(progress.epoch, progress.step * settings.ACCUMULATION_STEPS)
    with EpochBar(
        f"epoch {progress.epoch + 1}/{settings.END_EPOCH}", run.steps, progress.step
    ) as bar:
        for batches in grouped(run.loader, settings.ACCUMULATION_STEPS):
            step = progress.epoch * run.steps + progress.step
            rate = run.schedule(step)
            batches = [batch.to(run.device, non_blocking=True) for batch in batches]
            draw = panel_is_due(run, step)
            result = run.stepper(batches, rate, sample_size=PANEL_IMAGES if draw else 0)
            run.guard.check(step, result.bad, run.stop.signal, batches, result.losses)
            meter.add(result.losses, result.bad)
            bad_images.update(image for batch in batches for image in batch.bad_ids)
            progress.step += 1
            bar.advance()
            if progress.step % run.cfg.PRINT_FREQ == 0 or progress.step == run.steps:
                report(run, bar, meter, rate)
            if result.sample is not None:
                draw_panel(run, result.sample, step)
            if run.guard.stop_signal:
                stop_here(run)
            save_if_due(run)
    report_bad_images(bad_images)
    progress.epoch = progress.epoch + 1
    progress.step = 0
    due = settings.VAL_INTERVAL > 0 and progress.epoch % settings.VAL_INTERVAL == 0
    progress.to_validate = due or progress.epoch >= settings.END_EPOCH
    save(run)


def grouped(loader: DataLoader, size: int) -> Iterator[list[Batch]]:
    """Batches, `size` at a time."""
    batches: list[Batch] = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == size:
            yield batches
            batches = []


def validate_run(run: Run) -> None:
    """Validate the weights as they are, keep them if they are the best so far, and note that it is
    done.
    """
    from swahr.engine.validate import validate

    comm.broadcast_buffers(run.model)
    with run.stop.at_once():
        stats = validate(run.cfg, run.model, folder=run.folder, dataset=run.validation_set)
    progress = run.progress
    progress.perf = stats.get("AP")
    progress.to_validate = False
    run.board.scalars(
        {f"validation/{name}": value for name, value in stats.items()}, progress.epoch * run.steps
    )
    best = progress.perf is None or progress.best_perf is None or progress.perf > progress.best_perf
    if best:
        progress.best_perf = progress.perf
        if comm.is_main():
            checkpoint.write_whole(published_state(run.model), run.folder / checkpoint.BEST)
    if progress.perf is not None:
        logger.info(
            "epoch %d: AP %.4f%s",
            progress.epoch,
            progress.perf,
            ", the best so far" if best else "",
        )
    save(run)


def report(run: Run, bar: EpochBar, meter: Meter, rate: float) -> None:
    """Losses, learning rate, speed and time left, to the bar or the log and to TensorBoard. All
    processes together.
    """
    losses, speed = meter.read()
    step = run.progress.epoch * run.steps + run.progress.step
    images = speed * run.progress.step_images
    bar.tell(losses, rate, images, (run.cfg.TRAIN.END_EPOCH * run.steps - step) / speed)
    run.board.scalars(
        {f"train/{name}": value for name, value in losses.items()}
        | {
            "train/learning_rate": rate,
            "train/images_per_second": images,
            "train/steps_left_out": run.guard.bad_steps,
        },
        step,
    )
    if run.guard.consecutive:
        logger.warning(
            "the loss or its gradient was not finite: %d steps left out so far, the last %d in a row",
            run.guard.bad_steps,
            run.guard.consecutive,
        )


def panel_is_due(run: Run, step: int) -> bool:
    """Every PRINT_FREQ steps, but once an epoch at most, on the main process."""
    debug = run.cfg.DEBUG
    epoch = run.progress.epoch
    wanted = debug.DEBUG and (debug.SAVE_HEATMAPS_GT or debug.SAVE_HEATMAPS_PRED) and comm.is_main()
    return wanted and (step + 1) % run.cfg.PRINT_FREQ == 0 and run.drawn_epoch != epoch


def draw_panel(run: Run, sample: Sample, step: int) -> None:
    run.drawn_epoch = run.progress.epoch
    save_panel(
        run.folder / "panels" / f"epoch_{run.drawn_epoch + 1:03}.jpg",
        run.board,
        sample,
        step,
        scales=run.cfg.DEBUG.SAVE_HEATMAPS_PRED,
        tags=run.cfg.DEBUG.SAVE_TAGMAPS_PRED,
    )


def report_bad_images(mine: set[int]) -> None:
    """Name the images that could not be read this epoch, of all processes."""
    bad = sorted(set().union(*comm.all_gather(mine)))
    if bad:
        logger.warning(
            "%d images could not be read, and others were taken in their place: %s%s",
            len(bad),
            ", ".join(map(str, bad[:50])),
            " ..." if len(bad) > 50 else "",
        )


def save(run: Run) -> None:
    """A checkpoint, written by the main process."""
    now = time.monotonic()
    run.progress.seconds = run.progress.seconds + now - run.saved_at
    run.saved_at = now
    run.progress.bad_steps = run.guard.bad_steps
    if comm.is_main():
        checkpoint.save_checkpoint(
            run.folder,
            name=run.cfg.MODEL.NAME,
            weights=published_state(run.model),
            seed=run.cfg.TRAIN.SEED,
            optimizer=run.stepper.optimizer.state_dict(),
            scaler=run.stepper.scaler.state_dict(),
            progress=run.progress,
        )


def save_if_due(run: Run) -> None:
    """The checkpoint of every TRAIN.CHECKPOINT_MINUTES; the others wait for the main process with
    their next step.
    """
    minutes = run.cfg.TRAIN.CHECKPOINT_MINUTES
    if minutes > 0 and time.monotonic() - run.saved_at > 60 * minutes:
        save(run)


def stop_here(run: Run) -> None:
    """A checkpoint, and the end, on all processes together."""
    save(run)
    comm.barrier()  # a process that left early would take the one that writes with it
    raise Interrupted(
        run.guard.stop_signal,
        f" in epoch {run.progress.epoch + 1} after step {run.progress.step}; the same command with "
        f"AUTO_RESUME True goes on from {run.folder / checkpoint.NEWEST}",
    )


def finish(run: Run, logs: Path) -> None:
    """The final weights, and a table of what came of it all, on stdout."""
    checkpoint.write_whole(published_state(run.model), run.folder / checkpoint.FINAL)
    progress = run.progress
    rows = {
        "epochs": progress.epoch,
        "time": timedelta(seconds=round(progress.seconds)),
        "steps left out": progress.bad_steps,
        "best AP": "not known" if progress.best_perf is None else f"{progress.best_perf:.4f}",
        "best weights": run.folder / checkpoint.BEST,
        "final weights": run.folder / checkpoint.FINAL,
        "checkpoint": run.folder / checkpoint.NEWEST,
        "TensorBoard": logs,
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()), flush=True)
