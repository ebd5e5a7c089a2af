"""Learning rates as pure functions of the step, and optimisers; both by name.

A step is one update of the weights. Steps are counted from 0 over the whole run, so that a resumed
run continues exactly. A rate is set before the step it belongs to.

A module of yours adds to SCHEDULES and OPTIMIZERS:

    from swahr.engine.schedule import SCHEDULES
    SCHEDULES["cosine"] = build_cosine
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from swahr.engine.train_step import LossScaler
from swahr.parts import choose

logger = logging.getLogger("swahr")

Schedule = Callable[[int], float]  # step -> learning rate


class TrainingError(ValueError):
    """A setting of training that cannot be used; the message says which, and what can."""


def linear_factor(step: int, steps_per_epoch: int, *, warm_up_epochs: int, end_epoch: int) -> float:
    """SWAHR's: linearly 0.1 -> 1 during warm-up, then linearly to 0 after the last step."""
    warm_up = warm_up_epochs * steps_per_epoch
    end = end_epoch * steps_per_epoch
    if step < warm_up:
        return 0.1 + 0.9 * step / warm_up
    return max(end - step, 0) / (end - warm_up) if end > warm_up else 1.0


def step_factor(
    step: int, steps_per_epoch: int, *, milestones: Sequence[int], factor: float
) -> float:
    """HigherHRNet's: factor to the power of the milestones (epochs, rising) that were reached."""
    return factor ** bisect_right(milestones, step // steps_per_epoch)


def build_linear_schedule(
    cfg: Any, steps_per_epoch: int, world_size: int, micro_batches_per_step: int
) -> Schedule:
    """linear_factor times TRAIN.LR times the number of batches in a step.

    That number is world_size x micro_batches_per_step, or WORLD_SIZE if it is set.
    """
    train = cfg.TRAIN
    if train.WARM_UP_EPOCH >= train.END_EPOCH:
        last = linear_factor(
            train.END_EPOCH * steps_per_epoch - 1,
            steps_per_epoch,
            warm_up_epochs=train.WARM_UP_EPOCH,
            end_epoch=train.END_EPOCH,
        )
        logger.warning(
            "TRAIN.WARM_UP_EPOCH is %d and TRAIN.END_EPOCH %d: the rate rises to the end, to %.2f "
            "of TRAIN.LR",
            train.WARM_UP_EPOCH,
            train.END_EPOCH,
            last,
        )
    rate = train.LR * (cfg.WORLD_SIZE or world_size * micro_batches_per_step)
    factor = partial(linear_factor, warm_up_epochs=train.WARM_UP_EPOCH, end_epoch=train.END_EPOCH)
    return lambda step: rate * factor(step, steps_per_epoch)


def build_step_schedule(
    cfg: Any, steps_per_epoch: int, world_size: int, micro_batches_per_step: int
) -> Schedule:
    """step_factor times TRAIN.LR, whatever the number of batches in a step, as in HigherHRNet."""
    train = cfg.TRAIN
    factor = partial(step_factor, milestones=tuple(train.LR_STEP), factor=train.LR_FACTOR)
    return lambda step: train.LR * factor(step, steps_per_epoch)


# Name -> function(cfg, steps_per_epoch, world_size, micro_batches_per_step) -> Schedule.
SCHEDULES: dict[str, Callable[[Any, int, int, int], Schedule]] = {
    "linear": build_linear_schedule,
    "step": build_step_schedule,
}


def build_schedule(
    cfg: Any, steps_per_epoch: int, *, world_size: int, micro_batches_per_step: int
) -> Schedule:
    """The schedule of TRAIN.LR_SCHEDULE.

    world_size: number of processes. micro_batches_per_step: batches that a process accumulates.
    """
    build = choose(SCHEDULES, cfg.TRAIN.LR_SCHEDULE, "TRAIN.LR_SCHEDULE")
    return build(cfg, steps_per_epoch, world_size, micro_batches_per_step)


def build_adam(cfg: Any, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam without weight decay: TRAIN.WD is not applied to it, as published."""
    return torch.optim.Adam(parameters, lr=cfg.TRAIN.LR, fused=True)


def build_sgd(cfg: Any, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum, weight decay and Nesterov; fused on a GPU.

    On a CPU it is not fused, since fused kernels round differently there. On a GPU only a fused one
    can skip a step without the processor waiting for the answer.
    """
    train = cfg.TRAIN
    return make_sgd(
        parameters,
        fused=all(parameter.is_cuda for parameter in parameters),
        lr=train.LR,
        momentum=train.MOMENTUM,
        weight_decay=train.WD,
        nesterov=train.NESTEROV,
    )


def make_sgd(
    parameters: Sequence[nn.Parameter], *, fused: bool, **options: Any
) -> torch.optim.Optimizer:
    """torch.optim.SGD whose first step may be skipped.

    The fused one does not write the momentum in a first step that is skipped, and uses it in the
    next. So momentum starts at 0 there, which gives the same first step. options: of SGD.
    """
    optimizer = torch.optim.SGD(parameters, fused=True if fused else None, **options)
    if fused and options.get("momentum"):
        optimizer.register_step_pre_hook(start_momentum)
    return optimizer


def start_momentum(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Momentum of 0 for every parameter with a gradient that has none yet."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None and parameter.grad is not None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


# Name -> function(cfg, parameters) -> optimiser.
OPTIMIZERS: dict[str, Callable[[Any, Sequence[nn.Parameter]], torch.optim.Optimizer]] = {
    "adam": build_adam,
    "sgd": build_sgd,
}


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of TRAIN.OPTIMIZER for all parameters that are trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return choose(OPTIMIZERS, cfg.TRAIN.OPTIMIZER, "TRAIN.OPTIMIZER")(cfg, parameters)


def build_scaler(cfg: Any, device: torch.device) -> LossScaler:
    """The loss scale of AMP.DTYPE fp16; 1 for other types, which do not need one.

    load_config makes the scale of fp16 dynamic unless a static one is given, and refuses a static
    one of 1.
    """
    if not (cfg.AMP.ENABLED and cfg.AMP.DTYPE == "fp16"):
        return LossScaler(device)
    static = None if cfg.FP16.DYNAMIC_LOSS_SCALE else cfg.FP16.STATIC_LOSS_SCALE
    return LossScaler(device, static)
