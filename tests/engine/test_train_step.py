"""One step: accumulated batches are one batch, and a step whose loss is not finite changes
nothing.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from swahr.engine.train_step import LossScaler
from tests.engine.distributed_workers import CPU, SmallNet, make_batches, make_train_step, part_of

BATCH = make_batches(1, 8)[0]
SPOILT = BATCH._replace(joints=[BATCH.joints[0] * float("inf")])


def state(train_step: object) -> list[Tensor]:
    """Weights, running statistics and the optimiser's own, copied."""
    tensors = list(train_step.model.state_dict().values())
    for values in train_step.optimizer.state.values():
        tensors += [value for value in values.values() if isinstance(value, Tensor)]
    return copy.deepcopy(tensors)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_against_a_plain_step(optimizer: str) -> None:
    train_step = make_train_step(optimizer=optimizer)
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
        assert all(
            torch.equal(a, b) for a, b in zip(train_step.parameters, plain.parameters, strict=True)
        )


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
