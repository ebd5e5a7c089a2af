"""Builds the Trainer from the configuration: network, data, step, and where the run starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from swahr.acceleration.compile import compile_network
from swahr.codec.targets import build_target_encoder
from swahr.config import (
    check_trained_maps,
    configured_skeleton,
    fit_to_network,
    resolve_path,
)
from swahr.data.keypoints import KeypointDataset, dataset_spec
from swahr.data.loaders import build_train_loader
from swahr.distributed import comm
from swahr.distributed.signals import LeaveSignalsToParent, StopRequest
from swahr.engine import checkpoint
from swahr.engine.checkpoint import Progress, RunIdentity
from swahr.engine.datasets import build_training_set, build_validation_set
from swahr.engine.hooks import HOOKS
from swahr.engine.loss_network import LossNetwork
from swahr.engine.progress import PanelWriter, TensorBoard
from swahr.engine.results_file import ResultsFile
from swahr.engine.schedule import TrainingError, build_optimizer, build_scaler, build_schedule
from swahr.engine.start import (
    adopt_position,
    continues_own_run,
    new_identity,
    start_or_resume,
    tidy_folder,
)
from swahr.engine.step_monitor import StepMonitor
from swahr.engine.train_step import LossScaler, TrainStep, takes_skipping
from swahr.engine.trainer import Trainer, gradient_hooks
from swahr.evaluation.scores import figure_names
from swahr.inference.exported_network import used_maps
from swahr.inference.load import set_cudnn
from swahr.inference.predictor import check_test_scales
from swahr.losses.criterion import Criterion, build_criterion
from swahr.models.build import amp_dtype, build_model
from swahr.models.freeze import freeze
from swahr.models.network import ModelError, PoseNetwork, StageOutput, use_channels_last
from swahr.models.trial import has_idle_parameters, try_network
from swahr.models.weights import published_state

logger = logging.getLogger("swahr")

# The option that sends buffers to all processes in each step; PyTorch 2.14 renamed it.
BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


def build_trainer(
    cfg: Any,
    folder: Path,
    logs: Path | None,
    device: torch.device,
    stop: StopRequest,
    validate: Callable[..., dict[str, float]],
) -> Trainer:
    """The trainer that the configuration describes, at the position of the run's last checkpoint.

    folder: of checkpoints and results. logs: of TensorBoard, None for no log. validate:
    function(cfg, model, *, folder, dataset) -> figures by name. Raises ValueError, in one line, for
    data, weights, checkpoints and settings that cannot be used.
    """
    world_size = comm.world_size()
    accumulation = cfg.TRAIN.ACCUMULATION_STEPS
    set_cudnn(cfg)
    model = build_network(cfg, device)
    cfg = fit_to_network(cfg, model.strides, model.size_divisor)
    outputs = try_network(model, trial_image(cfg, device), cfg.MODEL.NUM_JOINTS)
    criterion = build_criterion(cfg)
    launchers = sorted(set(comm.all_gather(comm.launcher_id())))
    resumes_own = continues_own_run(cfg, folder, launchers)
    resumes = cfg.TRAIN.RESUME or (resumes_own and bool(checkpoint.existing(folder)))
    starts_trained = resumes or bool(cfg.MODEL.PRETRAINED)
    check_trained_maps(cfg, criterion.reads, starts_trained=starts_trained)
    dataset = build_training_set(cfg)
    validation_set = open_validation_set(cfg)
    if validation_set is not None:
        check_test_scales(cfg.TEST.SCALE_FACTOR, model.size_divisor)
        check_tested_tags(cfg, outputs)
        check_best_metric(cfg)
    loader = build_train_loader(cfg, dataset, comm.rank(), world_size)
    loader.worker_init_fn = LeaveSignalsToParent(loader.worker_init_fn)
    steps_per_epoch = len(loader) // accumulation
    optimizer = build_optimizer(cfg, model)
    scaler = build_scaler(cfg, device)
    schedule = build_schedule(
        cfg, steps_per_epoch, world_size=world_size, micro_batches_per_step=accumulation
    )
    identity = new_identity(cfg, launchers)
    start = start_or_resume(
        cfg, folder, model, optimizer, scaler, identity, resumes_own=resumes_own
    )
    progress = start.progress
    train_step = build_train_step(
        cfg, model, criterion, device, optimizer, scaler, gradient_hooks(start.hooks)
    )
    # After all that a setting can be refused for: a start that fails leaves the folder as it is.
    tidy_folder(folder, start, resumes_own=resumes_own)
    step_images = world_size * accumulation * cfg.TRAIN.IMAGES_PER_GPU
    if progress.step_images not in (0, step_images):
        identity.logs = ""  # steps of another size are another curve
    adopt_position(progress, step_images, steps_per_epoch)
    logger.info(
        "%d images; an epoch is %d steps of %d images; processes: %d on %s",
        len(dataset),
        steps_per_epoch,
        step_images,
        world_size,
        device.type,
    )
    board = open_board(logs, identity, progress, steps_per_epoch)
    return Trainer(
        model=model,
        train_step=train_step,
        loader=loader,
        sampler=loader.batch_sampler,  # type: ignore[arg-type]
        schedule=schedule,
        validate=build_validation(cfg, folder, validation_set, validate),
        monitor=StepMonitor(
            device,
            cfg.TRAIN.MAX_BAD_STEPS,
            folder,
            bad_steps=progress.bad_steps,
            replay=lambda: {"state_dict": published_state(model), "config": cfg.dump()},
        ),
        stop=stop,
        board=board,
        progress=progress,
        hooks=start.hooks,
        identity=identity,
        results=ResultsFile(folder / checkpoint.RESULTS if comm.is_main() else None),
        folder=folder,
        end_epoch=cfg.TRAIN.END_EPOCH,
        val_interval=cfg.TRAIN.VAL_INTERVAL,
        print_freq=cfg.PRINT_FREQ,
        checkpoint_minutes=cfg.TRAIN.CHECKPOINT_MINUTES,
        accumulation=accumulation,
        panels=build_panels(cfg, folder, board),
    )


def open_validation_set(cfg: Any) -> KeypointDataset | None:
    """DATASET.TEST, opened before training so that its problems are named before hours have passed.

    None if TRAIN.VAL_INTERVAL is 0 and there is no annotation file of it.
    """
    if cfg.TRAIN.VAL_INTERVAL == 0:
        root = resolve_path(cfg.DATASET.ROOT)
        file = dataset_spec(cfg, train=False).annotation_file(root, cfg.DATASET.TEST)
        if not file.exists():
            logger.info("no validation, not even after the last epoch: %s does not exist", file)
            return None
    return build_validation_set(cfg)


def check_tested_tags(cfg: Any, outputs: Sequence[StageOutput]) -> None:
    """TrainingError if the decoder groups joints by tags, and the network gives none of those that
    testing uses.
    """
    _, use_tags = used_maps(cfg)
    has_tags = any(used and output.tags is not None for used, output in zip(use_tags, outputs))
    if cfg.TEST.DECODER == "associative" and not has_tags:
        raise TrainingError(
            f"TEST.DECODER associative groups joints by tags, of which MODEL.HEAD {cfg.MODEL.HEAD} "
            "gives none that TEST.WITH_AE uses; name a decoder that needs none"
        )


def check_best_metric(cfg: Any) -> None:
    """TrainingError if no figure of validation is called TRAIN.BEST_METRIC.

    A user's own hooks may add figures; with those, a name can only be checked when validating.
    """
    protocol = dataset_spec(cfg, train=False).protocol
    known = figure_names(configured_skeleton(cfg), protocol)
    has_own_hooks = any(name and not is_built_in(name) for name in cfg.TRAIN.HOOKS)
    if cfg.TRAIN.BEST_METRIC not in known and not has_own_hooks:
        raise TrainingError(
            f"TRAIN.BEST_METRIC is {cfg.TRAIN.BEST_METRIC!r}; validation gives {', '.join(known)}"
        )


def is_built_in(hook: str) -> bool:
    """Whether a hook of that name is this project's; none of those adds figures."""
    module = str(getattr(HOOKS.get(hook), "__module__", ""))
    return module.split(".")[0] == __name__.split(".")[0]


def build_validation(
    cfg: Any,
    folder: Path,
    dataset: KeypointDataset | None,
    validate: Callable[..., dict[str, float]],
) -> Callable[[nn.Module], dict[str, float]] | None:
    """Network -> figures by name; None without a data set."""
    if dataset is None:
        return None
    return lambda model: validate(cfg, model, folder=folder, dataset=dataset)


def open_board(
    logs: Path | None, identity: RunIdentity, progress: Progress, steps_per_epoch: int
) -> TensorBoard:
    """The TensorBoard log of the run, without what was written after its position.

    logs: of a new run, None for no log. A resumed run continues in the folder that its
    checkpoint names; the identity gets the name of the folder.
    """
    if logs is not None:
        logs = logs.parent / (identity.logs or logs.name)
        identity.logs = logs.name
    board = TensorBoard(logs if comm.is_main() else None)
    board.drop_after(progress.epoch * steps_per_epoch + progress.step, progress.to_validate)
    return board


def build_panels(cfg: Any, folder: Path, board: TensorBoard) -> PanelWriter | None:
    """DEBUG.*; None if they ask for no panels."""
    debug = cfg.DEBUG
    if not (debug.DEBUG and (debug.SAVE_HEATMAPS_GT or debug.SAVE_HEATMAPS_PRED)):
        return None
    return PanelWriter(
        folder / "panels",
        board,
        print_freq=cfg.PRINT_FREQ,
        scales=debug.SAVE_HEATMAPS_PRED,
        tags=debug.SAVE_TAGMAPS_PRED,
    )


def build_network(cfg: Any, device: torch.device) -> PoseNetwork:
    """The network on its device, with the same fresh weights on every process.

    MODEL.SYNC_BN turns its batch norms into SyncBatchNorm if there are several GPUs. TRAIN.FREEZE
    freezes parts of it; TrainingError for a part that is not there.
    """
    torch.manual_seed(cfg.TRAIN.SEED)
    model: Any = build_model(cfg)
    if cfg.MODEL.SYNC_BN and device.type == "cuda" and comm.has_group():
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif cfg.MODEL.SYNC_BN and device.type != "cuda":
        logger.info(
            "MODEL.SYNC_BN needs GPUs: on the CPU, batch statistics are those of each process"
        )
    if cfg.TRAIN.CHANNELS_LAST:
        use_channels_last(model)
    model = model.to(device)
    if frozen := [part for part in cfg.TRAIN.FREEZE if part]:
        try:
            freeze(model, frozen)
        except ModelError as error:
            raise TrainingError(f"TRAIN.FREEZE: {error}") from None
    if cfg.TRAIN.CPU_KERNELS:
        use_cpu_kernels(model, cfg, device)
    return model


def use_cpu_kernels(model: nn.Module, cfg: Any, device: torch.device) -> None:
    """TRAIN.CPU_KERNELS, or one line that says why PyTorch's convolutions are used."""
    # Imported here, because it takes a second.
    from swahr.acceleration.conv_training import are_gradients_right, use_own_convolutions

    reason = ""
    if device.type != "cpu":
        reason = f"the device is {device.type}"
    elif amp_dtype(cfg, device) is not None:
        reason = "AMP.ENABLED: they compute in float32"
    elif not cfg.TRAIN.CHANNELS_LAST:
        reason = "they need TRAIN.CHANNELS_LAST True"
    elif cfg.TRAIN.COMPILE:
        reason = f"TRAIN.COMPILE {cfg.TRAIN.COMPILE} has its own"
    elif not are_gradients_right():
        reason = "this processor or system has no use for them"
    if reason:
        logger.info("TRAIN.CPU_KERNELS are not used: %s", reason)
    else:
        use_own_convolutions(model)


def build_train_step(
    cfg: Any,
    model: PoseNetwork,
    criterion: Criterion,
    device: torch.device,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: LossScaler | None = None,
    gradient_hooks: Sequence[str] = (),
) -> TrainStep:
    """The step of TRAIN.* for a bare network on its device; optimizer and scaler are built if they
    are not given. gradient_hooks: names of the hooks that read gradients.
    """
    encoder = build_target_encoder(cfg)
    dtype = amp_dtype(cfg, device)
    if cfg.AMP.ENABLED and cfg.AMP.DTYPE == "auto":
        logger.info("AMP.DTYPE auto: %s on this %s", dtype or torch.float32, device.type)
    loss_network: nn.Module | None = None
    wrapped: nn.Module = model
    is_idle = comm.has_group() and has_idle_parameters(
        model, trial_image(cfg, device), criterion.reads
    )
    if cfg.TRAIN.COMPILE:
        encoder.drop_absent = False  # compiled code cannot depend on how many there are
        loss_network = LossNetwork(
            model=model,
            encoder=encoder,
            criterion=criterion,
            dtype=dtype,
            memory_format=memory_format(cfg),
        )
        loss_network = in_parallel(compiled(loss_network, cfg, device), device, is_idle)
    else:
        wrapped = in_parallel(model, device, is_idle)
    step = TrainStep(
        model=wrapped,
        encoder=encoder,
        criterion=criterion,
        optimizer=optimizer or build_optimizer(cfg, model),
        scaler=scaler or build_scaler(cfg, device),
        device=device,
        channels_last=cfg.TRAIN.CHANNELS_LAST,
        dtype=dtype,
        loss_network=loss_network,
    )
    if cfg.TRAIN.CUDA_GRAPHS:
        record_if_possible(step, cfg, gradient_hooks)
    return step


def record_if_possible(step: TrainStep, cfg: Any, gradient_hooks: Sequence[str] = ()) -> None:
    """TRAIN.CUDA_GRAPHS, or one line that says why steps are not recorded."""
    reason = ""
    if step.device.type != "cuda":
        reason = f"the device is {step.device.type}"
    elif comm.has_group():
        reason = "there are several processes, which exchange gradients in between"
    elif cfg.TRAIN.COMPILE in ("reduce-overhead", "max-autotune"):
        reason = f"TRAIN.COMPILE {cfg.TRAIN.COMPILE} records its own graphs"
    elif not takes_skipping(step.optimizer):
        reason = f"TRAIN.OPTIMIZER {cfg.TRAIN.OPTIMIZER} waits for the GPU; adam and sgd do not"
    elif cfg.DATASET.SCALE_AWARE_SIGMA:
        reason = "DATASET.SCALE_AWARE_SIGMA waits for the GPU"
    elif gradient_hooks:
        reason = f"hooks read gradients in between: {', '.join(gradient_hooks)}"
    if reason:
        logger.warning("TRAIN.CUDA_GRAPHS: steps are not recorded: %s", reason)
    else:
        step.record()


def trial_image(cfg: Any, device: torch.device) -> torch.Tensor:
    """An image (1, 3, S, S) as training gives them to the network, S = DATASET.INPUT_SIZE."""
    size = cfg.DATASET.INPUT_SIZE
    image = torch.zeros(1, 3, size, size, device=device)
    return image.contiguous(memory_format=memory_format(cfg))


def memory_format(cfg: Any) -> torch.memory_format:
    """The layout of images and maps that TRAIN.CHANNELS_LAST names."""
    return torch.channels_last if cfg.TRAIN.CHANNELS_LAST else torch.contiguous_format


def compiled(module: nn.Module, cfg: Any, device: torch.device) -> nn.Module:
    """torch.compile in the mode of TRAIN.COMPILE. Raises CompileError as `compile_network` does.

    The modes with CUDA graphs keep gradients where the next backward pass writes its own, so that
    accumulated batches are compiled without these graphs.
    """
    mode = cfg.TRAIN.COMPILE
    if cfg.TRAIN.ACCUMULATION_STEPS > 1 and mode != "default":
        logger.info("TRAIN.COMPILE %s: no CUDA graphs, as batches are accumulated", mode)
        mode = {"max-autotune": "max-autotune-no-cudagraphs"}.get(mode, "default")
    network: nn.Module = compile_network(module, "TRAIN.COMPILE", device, mode)
    return network


def in_parallel(module: nn.Module, device: torch.device, is_idle: bool) -> nn.Module:
    """The module in DistributedDataParallel if there are several processes.

    is_idle: whether some parameters get no gradient. A compiled module inside it is cut where a
    bucket of gradients is full, so that their exchange overlaps the backward pass. Buffers are not
    broadcast in each step: batch norms use them in testing only, and `Trainer` broadcasts them
    before a validation.
    """
    if not comm.has_group():
        return module
    buffers: dict[str, Any] = {BUFFERS: False}
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        **buffers,
        find_unused_parameters=is_idle,
        gradient_as_bucket_view=True,
    )
