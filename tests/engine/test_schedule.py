"""The learning rate of every step, against the rule written out step by step."""

from __future__ import annotations

import pytest
from yacs.config import CfgNode

from swahr.engine.schedule import build_schedule, linear_factor, step_factor


def settings(**train: object) -> CfgNode:
    defaults = {
        "LR": 0.001,
        "LR_SCHEDULE": "linear",
        "WARM_UP_EPOCH": 3,
        "END_EPOCH": 10,
        "LR_STEP": [4, 7],
        "LR_FACTOR": 0.1,
    }
    return CfgNode({"WORLD_SIZE": 0, "TRAIN": {**defaults, **train}})


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
@pytest.mark.parametrize("warm_up", [0, 3])
def test_linear_at_every_step(steps_per_epoch: int, warm_up: int) -> None:
    schedule = build_schedule(settings(WARM_UP_EPOCH=warm_up), steps_per_epoch, replicas=8)
    rise = 0.9 / (warm_up * steps_per_epoch) if warm_up else 0.0
    fall = 1 / ((10 - warm_up) * steps_per_epoch)
    factor = 0.1 if warm_up else 1.0
    for step in range(10 * steps_per_epoch):
        assert schedule(step) == pytest.approx(0.008 * factor, abs=1e-12)
        factor += rise if step < warm_up * steps_per_epoch else -fall
    assert factor == pytest.approx(0, abs=1e-9)


def test_linear_is_one_at_the_end_of_warm_up_and_never_negative() -> None:
    assert linear_factor(0, 5, warm_up_epochs=2, end_epoch=4) == 0.1
    assert linear_factor(10, 5, warm_up_epochs=2, end_epoch=4) == 1.0
    assert linear_factor(20, 5, warm_up_epochs=2, end_epoch=4) == 0.0
    assert linear_factor(99, 5, warm_up_epochs=2, end_epoch=4) == 0.0
    assert (
        linear_factor(3, 2, warm_up_epochs=3, end_epoch=2) == 0.1 + 0.9 / 2
    )  # the run ends within its warm-up
    assert linear_factor(6, 2, warm_up_epochs=3, end_epoch=3) == 1.0


def test_steps_at_every_step() -> None:
    schedule = build_schedule(settings(LR_SCHEDULE="step"), 3, replicas=8)
    for step in range(30):
        passed = sum(step // 3 >= epoch for epoch in (4, 7))
        assert schedule(step) == pytest.approx(
            0.001 * 0.1**passed
        )  # not multiplied by the replicas
    assert step_factor(11, 3, milestones=(4,), factor=0.5) == 1.0
    assert step_factor(12, 3, milestones=(4,), factor=0.5) == 0.5


def test_world_size_overrides_the_number_of_replicas() -> None:
    cfg = settings(WARM_UP_EPOCH=0)
    cfg.WORLD_SIZE = 2
    assert build_schedule(cfg, 3, replicas=8)(0) == pytest.approx(0.002)
