"""The parts of a training run, built from the configuration and set to where its last checkpoint
was.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from swahr.codec.targets import build_target_encoder
from swahr.config import configured_skeleton, resolve_path
from swahr.data.keypoints import KeypointDataset, build_dataset
from swahr.data.loaders import EpochSampler, build_train_loader
from swahr.distributed import comm
from swahr.distributed.signals import LeaveSignalsToParent, StopRequest
from swahr.engine import checkpoint
from swahr.engine.checkpoint import Progress
from swahr.engine.progress import TensorBoard
from swahr.engine.schedule import build_schedule
from swahr.engine.step_monitor import StepMonitor
from swahr.engine.train_step import LossScaler, TrainStep, build_optimizer, build_scaler
from swahr.losses.criterion import build_criterion
from swahr.models.build import amp_dtype, build_model
from swahr.models.network import PoseNetwork
from swahr.models.weights import (
    CheckpointError,
    load_pretrained,
    load_state,
    published_state,
)

logger = logging.getLogger("swahr")


@dataclass
class Run:
    """folder: of checkpoints and results. model: bare, without wrappers. steps: of an epoch.
    validation_set: opened before training, so that what is wrong with it is said then and not after
    hours.
    """

    cfg: Any
    folder: Path
    device: torch.device
    model: PoseNetwork
    stepper: TrainStep
    loader: DataLoader
    sampler: EpochSampler
    steps: int
    validation_set: KeypointDataset
    schedule: Callable[[int], float]
    progress: Progress
    guard: StepMonitor
    stop: StopRequest
    board: TensorBoard
    saved_at: float = field(default_factory=time.monotonic)  # of the last checkpoint
    drawn_epoch: int = -1  # of the last panel of images


def build_run(
    cfg: Any, folder: Path, device: torch.device, stop: StopRequest, board: TensorBoard
) -> Run:
    """Everything built from the configuration, as it was at the run's last checkpoint if there is
    one.
    """
    accumulation = cfg.TRAIN.ACCUMULATION_STEPS
    replicas = comm.world_size() * cfg.TRAIN.ACCUMULATION_STEPS
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.backends.cudnn.deterministic = cfg.CUDNN.DETERMINISTIC
    dataset, validation_set = (
        build_dataset(
            cfg,
            split,
            train=train,
            root=resolve_path(cfg.DATASET.ROOT),
            skeleton=configured_skeleton(cfg),
        )
        for split, train in ((cfg.DATASET.TRAIN, True), (cfg.DATASET.TEST, False))
    )
    loader = build_train_loader(cfg, dataset, comm.rank(), comm.world_size())
    loader.worker_init_fn = LeaveSignalsToParent(loader.worker_init_fn)
    steps = len(loader) // accumulation
    model = build_replica(cfg, device)
    optimizer = build_optimizer(cfg, model)
    scaler = build_scaler(cfg, device)
    progress = start_or_resume(cfg, folder, model, optimizer, scaler)
    adopt_position(progress, replicas * cfg.TRAIN.IMAGES_PER_GPU, steps)
    stepper = TrainStep(
        model=parallel(cfg, model, device),
        encoder=build_target_encoder(cfg),
        criterion=build_criterion(cfg),
        optimizer=optimizer,
        scaler=scaler,
        device=device,
        channels_last=cfg.TRAIN.CHANNELS_LAST,
        dtype=amp_dtype(cfg),
    )
    guard = StepMonitor(
        device,
        cfg.TRAIN.MAX_BAD_STEPS,
        folder,
        bad_steps=progress.bad_steps,
        replay=lambda: {"state_dict": published_state(model), "config": cfg.dump()},
    )
    logger.info(
        "%d images; an epoch is %d steps of %d images; processes: %d on %s",
        len(dataset),
        steps,
        progress.step_images,
        comm.world_size(),
        device.type,
    )
    return Run(
        cfg,
        folder,
        device,
        model,
        stepper,
        loader,
        loader.batch_sampler,  # type: ignore[arg-type]
        steps,
        validation_set,
        build_schedule(cfg, steps, replicas),
        progress,
        guard,
        stop,
        board,
    )


def build_replica(cfg: Any, device: torch.device) -> PoseNetwork:
    """The network on its device, with the same fresh weights on every process; SyncBN where
    MODEL.SYNC_BN.
    """
    torch.manual_seed(cfg.TRAIN.SEED)
    model = build_model(cfg)
    if cfg.MODEL.SYNC_BN and device.type == "cuda" and comm.has_group():
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif cfg.MODEL.SYNC_BN and device.type != "cuda":
        logger.info(
            "MODEL.SYNC_BN needs GPUs: on the CPU each process has the batch statistics of its own images"
        )
    if cfg.TRAIN.CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def parallel(cfg: Any, model: nn.Module, device: torch.device) -> nn.Module:
    """The model as training calls it: compiled where TRAIN.COMPILE, and in DistributedDataParallel
    in a group.
    """
    module: nn.Module = torch.compile(model) if cfg.TRAIN.COMPILE else model  # type: ignore[assignment]
    if not comm.has_group():
        return module
    idle_heads = not all(cfg.LOSS.WITH_HEATMAPS_LOSS) or (
        cfg.MODEL.SCALE_HEADS and not cfg.LOSS.SCALE_ADAPTIVE
    )
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=idle_heads,
        gradient_as_bucket_view=True,
    )


def start_or_resume(
    cfg: Any, folder: Path, model: PoseNetwork, optimizer: torch.optim.Optimizer, scaler: LossScaler
) -> Progress:
    """Fill the parts from the last checkpoint, or else the network from MODEL.PRETRAINED, and say
    where to go on.

    A process that an elastic launcher has started again goes on even without AUTO_RESUME: it is the
    same run.
    """
    progress = Progress(epoch=cfg.TRAIN.BEGIN_EPOCH)

    def restore(content: dict[str, Any]) -> None:
        nonlocal progress
        load_state(model, content["state_dict"], str(content["path"]))
        optimizer.load_state_dict(content["optimizer"])
        scaler.load_state_dict(content.get("scaler", {}))
        progress = content["progress"]
        if content.get("seed", cfg.TRAIN.SEED) != cfg.TRAIN.SEED:
            logger.warning(
                "TRAIN.SEED was %d: the order of the images changes from here on", content["seed"]
            )

    path = None
    if comm.is_main():
        checkpoint.remove_parts(folder)
    if cfg.AUTO_RESUME or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        path = checkpoint.resume(folder, restore, logger.warning)
    elif comm.is_main() and (old := checkpoint.set_aside(folder)):
        logger.info(
            "AUTO_RESUME is False: starting anew; the checkpoint of the run before is kept as %s",
            old,
        )
    if len(set(comm.all_gather((progress.epoch, progress.step)))) > 1:
        raise CheckpointError(
            f"{folder}: not every process finds the same checkpoint there; OUTPUT_DIR must be on a "
            "file system that all nodes share"
        )
    if path is not None:
        logger.info(
            "going on from %s: epoch %d after step %d", path, progress.epoch + 1, progress.step
        )
    elif cfg.MODEL.PRETRAINED:
        source = resolve_path(cfg.MODEL.PRETRAINED)
        logger.info(
            "%s: %s", source, load_pretrained(model, source, cfg.MODEL.EXTRA.PRETRAINED_LAYERS)
        )
    return progress


def adopt_position(progress: Progress, step_images: int, steps: int) -> None:
    """Turn a position in an epoch that was counted in steps of another size into one in steps of
    ours.

    Steps change their size with the number of processes, images or accumulation steps. step_images:
    images of one of ours, all processes together. steps: of ours in an epoch.
    """
    if progress.step_images not in (0, step_images):
        seen = progress.step * progress.step_images
        logger.info(
            "a step was %d images and is %d: going on after %d images",
            progress.step_images,
            step_images,
            seen,
        )
        progress.step = min(seen // step_images, steps)
    progress.step_images = step_images
