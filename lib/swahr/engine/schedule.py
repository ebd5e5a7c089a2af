"""Learning rates as pure functions of the step, so that a run which was interrupted goes on exactly
where it was.

A step is one update of the weights; steps are counted from 0 over the whole run. A rate is set
before the step it belongs to.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any


def linear_factor(step: int, steps_per_epoch: int, *, warm_up_epochs: int, end_epoch: int) -> float:
    """SWAHR's: 0.1 -> 1 linearly over the epochs of warm-up, then linearly to 0, reached after the
    last step.
    """
    warm_up = warm_up_epochs * steps_per_epoch
    end = end_epoch * steps_per_epoch
    if step < warm_up:
        return 0.1 + 0.9 * step / warm_up
    return max(end - step, 0) / (end - warm_up) if end > warm_up else 1.0


def step_factor(
    step: int, steps_per_epoch: int, *, milestones: Sequence[int], factor: float
) -> float:
    """factor to the number of milestones (epochs, rising) reached, as HigherHRNet has it."""
    return factor ** bisect_right(milestones, step // steps_per_epoch)


def build_schedule(cfg: Any, steps_per_epoch: int, replicas: int) -> Callable[[int], float]:
    """The learning rate of each step.

    linear: TRAIN.LR counts for one replica, so it is multiplied by WORLD_SIZE, or where that is 0
    by `replicas` (processes x accumulation steps). step: TRAIN.LR is taken as it stands, as
    HigherHRNet does.
    """
    train = cfg.TRAIN
    factor: Callable[[int, int], float]
    if train.LR_SCHEDULE == "step":
        rate = train.LR
        factor = partial(step_factor, milestones=tuple(train.LR_STEP), factor=train.LR_FACTOR)
    else:
        rate = train.LR * (cfg.WORLD_SIZE or replicas)
        factor = partial(
            linear_factor, warm_up_epochs=train.WARM_UP_EPOCH, end_epoch=train.END_EPOCH
        )
    return lambda step: rate * factor(step, steps_per_epoch)
