"""One step: accumulated batches are one batch, and a step whose loss is not finite changes
nothing.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.step_operations import W32
from swahr.config import load_config
from swahr.data.loaders import Batch
from swahr.engine import setup
from swahr.engine import train_step as module
from swahr.engine.hooks import build_hooks
from swahr.engine.schedule import make_sgd
from swahr.engine.train_step import (
    DYNAMIC_INIT_SCALE,
    LossScaler,
    StepResult,
    TrainStep,
    batches_of,
    step_inputs,
)
from swahr.engine.trainer import gradient_hooks
from tests.engine.distributed_workers import CPU, SmallNet, make_batches, make_train_step, part_of

BATCH = make_batches(1, 8)[0]
SPOILT = BATCH._replace(joints=[BATCH.joints[0] * float("inf")])


def state(train_step: object) -> list[Tensor]:
    """Weights, running statistics and the optimiser's own, copied."""
    tensors = list(train_step.model.state_dict().values())
    for values in train_step.optimizer.state.values():
        tensors += [value for value in values.values() if isinstance(value, Tensor)]
    return copy.deepcopy(tensors)


@pytest.mark.parametrize("host_reads", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_against_a_plain_step(optimizer: str, host_reads: bool) -> None:
    train_step = make_train_step(optimizer=optimizer, host_reads=host_reads)
    plain = make_train_step(optimizer=optimizer)
    for batch in make_batches(3, 4):
        result = train_step([batch], 0.02)
        for group in plain.optimizer.param_groups:
            group["lr"] = 0.02
        targets, outputs = plain.forward(batch)
        losses = plain.criterion(outputs, targets)
        plain.optimizer.zero_grad()
        (losses["near"].mean() + losses["far"].mean()).backward()
        plain.optimizer.step()
        assert float(result.losses["near"]) == pytest.approx(losses["near"].mean().item())
        assert not result.bad and result.sample is None
        for ours, theirs in zip(state(train_step), state(plain), strict=True):
            assert torch.equal(ours, theirs)


def test_accumulated_batches_are_one_batch() -> None:
    whole = make_train_step(SmallNet(True))
    parts = make_train_step(SmallNet(True))
    parts.model.load_state_dict(whole.model.state_dict())
    for batch in make_batches(3, 8):
        one = whole([batch], 0.05)
        other = parts([part_of(batch, i, i + 2) for i in range(0, 8, 2)], 0.05)
        torch.testing.assert_close(one.losses, other.losses)
    for ours, theirs in zip(whole.parameters, parts.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("scale", [1.0, 128.0, None])
def test_a_bad_step_changes_nothing(optimizer: str, scale: float | None) -> None:
    train_step = make_train_step(optimizer=optimizer, scaler=LossScaler(CPU, scale))
    train_step([BATCH], 0.1)
    before = state(train_step)
    for batches in ([SPOILT], [BATCH, SPOILT], [SPOILT, BATCH]):
        result = train_step(batches, 0.1)
        assert result.bad
        assert all(
            torch.equal(a, b)
            for a, b in zip(state(train_step), before, strict=True)
            if a.is_floating_point()
        )
    assert not train_step([BATCH], 0.1).bad
    assert any(not torch.equal(a, b) for a, b in zip(state(train_step), before, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_bad_first_step(optimizer: str) -> None:
    """What the optimiser makes at its first step, it makes right at the second."""
    train_step = make_train_step(optimizer=optimizer)
    plain = make_train_step(optimizer=optimizer)
    for batch in (SPOILT, BATCH, BATCH):
        train_step([batch], 0.1)
    for batch in (BATCH, BATCH):
        plain([batch], 0.1)
    assert all(
        torch.equal(a, b) for a, b in zip(train_step.parameters, plain.parameters, strict=True)
    )


def test_a_gradient_that_is_not_finite_is_a_bad_step() -> None:
    """The loss is 0, and the square root's slope there infinite."""

    class Root(nn.Module):
        def forward(self, outputs: list, targets: list) -> dict[str, Tensor]:
            return {"root": (outputs[0].heatmaps * 0).sum((1, 2, 3)).sqrt()}

    train_step = make_train_step()
    train_step.criterion = Root()
    before = state(train_step)
    result = train_step([BATCH], 0.1)
    assert result.bad and float(result.losses["root"]) == 0
    assert all(
        torch.equal(a, b)
        for a, b in zip(state(train_step), before, strict=True)
        if a.is_floating_point()
    )


def test_loss_scales() -> None:
    fixed = LossScaler(CPU, 128.0)
    dynamic = LossScaler(CPU, None)
    for scaler, after in ((fixed, 128.0), (dynamic, 32768.0)):
        make_train_step(scaler=scaler)([SPOILT], 0.1)
        assert scaler.state_dict()["scale"] == after
    again = LossScaler(CPU, None)
    again.load_state_dict(dynamic.state_dict())
    assert again.state_dict()["scale"] == 32768.0
    fixed.load_state_dict(dynamic.state_dict())
    assert fixed.state_dict()["scale"] == 128.0
    fixed.load_state_dict({})


@pytest.mark.parametrize("before", [LossScaler(CPU), LossScaler(CPU, 128.0)])
def test_a_dynamic_scale_does_not_start_from_a_static_one(before: LossScaler) -> None:
    """Nor a run that goes on in another type; and back again."""
    dynamic = LossScaler(CPU, None)
    dynamic.load_state_dict(before.state_dict())
    assert dynamic.scale(torch.ones(())) == DYNAMIC_INIT_SCALE
    before.load_state_dict(dynamic.state_dict())
    assert before.scale(torch.ones(())) == before.fixed


@pytest.mark.parametrize(("saved", "loaded"), [(1.0, DYNAMIC_INIT_SCALE), (2048.0, 2048.0)])
def test_scales_of_older_checkpoints(saved: float, loaded: float) -> None:
    """They do not say what they are; a scale of 1 is that of a run without fp16."""
    state = LossScaler(CPU, saved).scaler.state_dict()
    dynamic = LossScaler(CPU, None)
    dynamic.load_state_dict(state)
    assert dynamic.scale(torch.ones(())) == loaded


@pytest.mark.parametrize("scale", [1.0, 128.0, None])
def test_the_gradient_norm_has_no_loss_scale(scale: float | None) -> None:
    train_step = make_train_step(scaler=LossScaler(CPU, scale))
    plain = make_train_step()
    _, outputs = plain.forward(BATCH)
    targets = plain.encoder(BATCH.joints, BATCH.masks)
    sum(loss.mean() for loss in plain.criterion(outputs, targets).values()).backward()
    squares = sum(parameter.grad.square().sum() for parameter in plain.parameters)

    def clear() -> None:
        train_step.optimizer.zero_grad(set_to_none=False)

    norm = train_step([BATCH], 0.1, after_backward=clear).gradient_norm
    torch.testing.assert_close(norm, squares.sqrt())


def test_bfloat16_runs_the_network_in_half_precision() -> None:
    train_step = make_train_step(dtype=torch.bfloat16, channels_last=True)
    targets, outputs = train_step.forward(BATCH)
    assert outputs[0].heatmaps.dtype == torch.bfloat16
    result = train_step([BATCH], 0.01, sample_size=2)
    assert result.losses["near"].dtype == torch.float32 and not result.bad
    assert len(result.sample.images) == 2 and result.sample.outputs[0].heatmaps.shape == (
        2,
        2,
        8,
        8,
    )
    assert (
        result.sample.outputs[0].scales is None
        and not result.sample.outputs[0].heatmaps.requires_grad
    )


def test_after_backward_sees_the_gradients_before_they_are_used() -> None:
    """Setting them to zero there leaves the weights as they are."""
    train_step = make_train_step()
    before = copy.deepcopy(train_step.parameters)

    def erase() -> None:
        assert any(parameter.grad.abs().max() > 0 for parameter in train_step.parameters)
        for parameter in train_step.parameters:
            parameter.grad.zero_()

    train_step([BATCH], 0.1, after_backward=erase)
    assert all(torch.equal(a, b) for a, b in zip(train_step.parameters, before, strict=True))


@pytest.mark.parametrize("scale", [1.0, 128.0, None])
def test_several_hooks_may_ask_for_gradients_without_the_scale(scale: float | None) -> None:
    """They find what one alone does, in every step."""
    once = make_train_step(scaler=LossScaler(CPU, scale))
    twice = make_train_step(scaler=LossScaler(CPU, scale))

    def unscale() -> None:
        twice.scaler.unscale(twice.optimizer)
        twice.scaler.unscale(twice.optimizer)

    for batch in (BATCH, SPOILT, BATCH):
        once([batch], 0.1, after_backward=lambda: once.scaler.unscale(once.optimizer))
        twice([batch], 0.1, after_backward=unscale)
    for ours, theirs in zip(twice.parameters, once.parameters, strict=True):
        assert torch.equal(ours, theirs) and torch.equal(ours.grad, theirs.grad)


def recorded_step(monkeypatch: pytest.MonkeyPatch, calls: list[int]) -> TrainStep:
    """A step whose graphs are plain calls."""

    def graphs(function: Callable[..., StepResult], on_failure: object) -> Callable[..., object]:
        return lambda inputs: calls.append(len(inputs)) or function(inputs)

    monkeypatch.setattr(module, "StepGraphs", graphs)
    step = make_train_step()
    step.optimizer = make_sgd(step.parameters, fused=True, lr=1.0, momentum=0.9)
    step.record()
    return step


def test_a_recorded_step_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the learning rate of each step; samples and hooks are for plain steps."""
    monkeypatch.setattr(module, "pad_people", lambda joints: joints)
    calls: list[int] = []
    recorded = recorded_step(monkeypatch, calls)
    plain = make_train_step()
    plain.optimizer = make_sgd(plain.parameters, fused=True, lr=1.0, momentum=0.9)
    parts = [part_of(BATCH, 0, 4), part_of(BATCH, 4, 8)]
    for lr in (0.1, 0.02):
        assert torch.equal(recorded(parts, lr).losses["near"], plain(parts, lr).losses["near"])
    assert calls == [6, 6]
    for options in ({"sample_size": 1}, {"after_backward": lambda: None}):
        recorded([BATCH], 0.1, **options)
        plain([BATCH], 0.1, **options)
    assert calls == [6, 6]
    for ours, theirs in zip(recorded.parameters, plain.parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_a_recorded_adam_keeps_its_steps_and_rate_on_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "StepGraphs", lambda function, on_failure: function)
    step = make_train_step(optimizer="adam")
    step.record()
    [group] = step.optimizer.param_groups
    assert group["capturable"] is True and isinstance(group["lr"], Tensor)


def test_batches_come_back_from_their_tensors() -> None:
    batch = Batch(
        torch.ones(2, 8, 8, 3, dtype=torch.uint8),
        [torch.ones(2, 3, 4, 3), torch.ones(2, 3, 4, 3)],
        [torch.ones(2, 2, 2, dtype=torch.uint8), torch.ones(2, 4, 4, dtype=torch.uint8)],
        torch.zeros(2),
        {},
    )
    first, second = batches_of(step_inputs(batch) + step_inputs(batch))
    for again in (first, second):
        assert again.images is batch.images
        assert [mask.shape for mask in again.masks] == [mask.shape for mask in batch.masks]
        assert [joints.shape for joints in again.joints] == [(2, 32, 4, 3)] * 2


@pytest.mark.parametrize(
    "opts, device, group, reason",
    [
        ([], "cpu", False, "the device is cpu"),
        ([], "cuda", True, "there are several processes"),
        (["TRAIN.COMPILE", "max-autotune"], "cuda", False, "TRAIN.COMPILE max-autotune records"),
        (["DATASET.SCALE_AWARE_SIGMA", "True"], "cuda", False, "DATASET.SCALE_AWARE_SIGMA waits"),
        (["TRAIN.CLIP_NORM", "1.0"], "cuda", False, "hooks read gradients in between: clip_norm"),
        (["TRAIN.EMA", "0.9"], "cuda", False, ""),
        ([], "cuda", False, ""),
    ],
)
def test_why_steps_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    opts: list[str],
    device: str,
    group: bool,
    reason: str,
) -> None:
    step = make_train_step(optimizer="adam")
    step.device = torch.device(device)
    recorded: list[bool] = []
    monkeypatch.setattr(step, "record", lambda: recorded.append(True))
    monkeypatch.setattr(setup.comm, "has_group", lambda: group)
    cfg = load_config(W32, ["TRAIN.CUDA_GRAPHS", "True", *opts])
    readers = gradient_hooks(build_hooks(cfg, SmallNet()))
    with caplog.at_level(logging.WARNING, "swahr"):
        setup.record_if_possible(step, cfg, readers)
    if reason:
        assert f"TRAIN.CUDA_GRAPHS: steps are not recorded: {reason}" in caplog.text
    assert recorded == ([] if reason else [True])
