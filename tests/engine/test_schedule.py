"""The learning rate of every step against the written-out rule; optimisers; loss scales."""

from __future__ import annotations

from pathlib import Path

import pytest
from yacs.config import CfgNode

from swahr.config import ConfigError, load_config
from swahr.engine.schedule import (
    OPTIMIZERS,
    SCHEDULES,
    build_optimizer,
    build_scaler,
    build_schedule,
    linear_factor,
    step_factor,
)
from swahr.parts import PartError
from tests.engine.distributed_workers import CPU, SmallNet


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


@pytest.mark.parametrize(("end", "said"), [(3, "to 1.00 of"), (2, "to 0.70 of TRAIN.LR"), (4, "")])
def test_a_warm_up_to_the_end_is_said(
    end: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = settings(END_EPOCH=end)
    schedule = build_schedule(cfg, 100, world_size=1, micro_batches_per_step=1)
    assert ("the rate rises to the end" in caplog.text) == bool(said)
    assert said in caplog.text
    if end == 2:
        assert schedule(199) == pytest.approx(0.697 * cfg.TRAIN.LR, abs=1e-6)


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
@pytest.mark.parametrize("warm_up", [0, 3])
def test_linear_at_every_step(steps_per_epoch: int, warm_up: int) -> None:
    schedule = build_schedule(
        settings(WARM_UP_EPOCH=warm_up), steps_per_epoch, world_size=4, micro_batches_per_step=2
    )
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
    schedule = build_schedule(
        settings(LR_SCHEDULE="step"), 3, world_size=4, micro_batches_per_step=2
    )
    for step in range(30):
        passed = sum(step // 3 >= epoch for epoch in (4, 7))
        assert schedule(step) == pytest.approx(
            0.001 * 0.1**passed
        )  # not multiplied by the number of batches
    assert step_factor(11, 3, milestones=(4,), factor=0.5) == 1.0
    assert step_factor(12, 3, milestones=(4,), factor=0.5) == 0.5


def test_world_size_overrides_the_number_of_batches() -> None:
    cfg = settings(WARM_UP_EPOCH=0)
    cfg.WORLD_SIZE = 2
    assert build_schedule(cfg, 3, world_size=4, micro_batches_per_step=2)(0) == pytest.approx(0.002)


def optimizer_settings(**changes: object) -> CfgNode:
    cfg = CfgNode(
        {
            "TRAIN": {"OPTIMIZER": "adam", "LR": 0.1, "MOMENTUM": 0.9, "WD": 0.5, "NESTEROV": True},
            "AMP": {"ENABLED": True, "DTYPE": "fp16"},
            "FP16": {"STATIC_LOSS_SCALE": 64.0, "DYNAMIC_LOSS_SCALE": False},
        }
    )
    cfg.merge_from_list([part for pair in changes.items() for part in pair])
    return cfg


def test_build_optimizer() -> None:
    adam = build_optimizer(optimizer_settings(), SmallNet()).param_groups[0]
    assert adam["weight_decay"] == 0 and adam["betas"] == (0.9, 0.999)
    sgd = build_optimizer(
        optimizer_settings(**{"TRAIN.OPTIMIZER": "sgd"}), SmallNet()
    ).param_groups[0]
    assert (sgd["weight_decay"], sgd["momentum"], sgd["nesterov"]) == (0.5, 0.9, True)
    with pytest.raises(ValueError, match="Nesterov"):  # load_config has refused it
        build_optimizer(
            optimizer_settings(**{"TRAIN.OPTIMIZER": "sgd", "TRAIN.MOMENTUM": 0.0}), SmallNet()
        )


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_frozen_parameters_are_not_the_optimizers(name: str) -> None:
    model = SmallNet()
    model.conv.weight.requires_grad_(False)
    [group] = build_optimizer(optimizer_settings(**{"TRAIN.OPTIMIZER": name}), model).param_groups
    assert len(group["params"]) == 3
    assert not any(parameter is model.conv.weight for parameter in group["params"])


def scaler_of(**changes: object) -> float | None:
    return build_scaler(optimizer_settings(**changes), CPU).fixed


def test_loss_scales_of_a_configuration() -> None:
    assert scaler_of() == 64.0
    assert scaler_of(**{"FP16.DYNAMIC_LOSS_SCALE": True}) is None
    assert scaler_of(**{"AMP.DTYPE": "bf16"}) == 1.0
    assert scaler_of(**{"AMP.ENABLED": False}) == 1.0


def test_fp16_is_dynamic_unless_a_static_scale_is_given(config_file: Path) -> None:
    def fixed(*opts: object) -> float | None:
        return build_scaler(load_config(config_file, ["FP16.ENABLED", True, *opts]), CPU).fixed

    assert fixed() is None
    assert fixed("FP16.DYNAMIC_LOSS_SCALE", False) is None
    assert fixed("FP16.STATIC_LOSS_SCALE", 512) == 512
    with pytest.raises(ConfigError, match="FP16.STATIC_LOSS_SCALE: must not be 1: small gradients"):
        fixed("FP16.STATIC_LOSS_SCALE", 1)


def test_a_saved_configuration_keeps_its_dynamic_scale(config_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.yaml"
    saved.write_text(load_config(config_file, ["FP16.ENABLED", True]).dump())
    assert build_scaler(load_config(saved), CPU).fixed is None


def test_schedules_and_optimizers_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "constant", lambda cfg, *counts: lambda step: sum(counts))
    cfg = settings(LR_SCHEDULE="constant")
    assert build_schedule(cfg, 10, world_size=4, micro_batches_per_step=2)(99) == 16
    monkeypatch.setitem(OPTIMIZERS, "mine", lambda cfg, parameters: ("mine", len(parameters)))
    cfg = optimizer_settings(**{"TRAIN.OPTIMIZER": "mine"})
    assert build_optimizer(cfg, SmallNet()) == ("mine", 4)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(PartError, match="TRAIN.LR_SCHEDULE is 'x'; it is one of linear, step;"):
        build_schedule(settings(LR_SCHEDULE="x"), 3, world_size=1, micro_batches_per_step=1)
    with pytest.raises(PartError, match="TRAIN.OPTIMIZER is 'x'; it is one of adam, sgd;"):
        build_optimizer(optimizer_settings(**{"TRAIN.OPTIMIZER": "x"}), SmallNet())
