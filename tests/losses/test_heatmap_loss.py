"""Heatmap and scale loss against pixel-by-pixel loops."""

from __future__ import annotations

import pytest
import torch

from swahr.losses.heatmap import heatmap_loss
from swahr.losses.scale import scale_loss
from tests.oracles import losses as oracle

VARIANTS = [(adapt, gamma) for adapt in (True, False) for gamma in (0.01, 0.5, None)]


def make_maps(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """Two images of two small maps: targets are 0 in half the pixels and 1 in some, predictions
    also lie outside 0 to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 2, 3, 4, generator=generator, dtype=dtype) * 2 - 1
    maps = {
        "predicted": torch.randn(target.shape, generator=generator, dtype=dtype).requires_grad_(),
        "scales": torch.randn(target.shape, generator=generator, dtype=dtype).requires_grad_(),
        "target": torch.where(target > 0.8, 1, target.clamp(min=0)),
        "mask": torch.randint(0, 2, (2, 3, 4), generator=generator).to(dtype),
    }
    return maps


@pytest.mark.parametrize(("adapt", "gamma"), VARIANTS)
def test_values_and_gradients_equal_the_loops(adapt: bool, gamma: float | None) -> None:
    maps = make_maps()
    arguments = (
        maps["predicted"],
        maps["target"],
        maps["mask"],
        maps["scales"] if adapt else None,
        gamma,
    )
    got = heatmap_loss(*arguments)
    want = oracle.heatmap_loss(*arguments)
    torch.testing.assert_close(got, want)
    factors = torch.tensor([1.0, -3.0], dtype=torch.float64)
    inputs = [maps["predicted"], maps["scales"]][: 1 + adapt]
    for mine, theirs in zip(
        torch.autograd.grad((got * factors).sum(), inputs),
        torch.autograd.grad((want * factors).sum(), inputs),
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("adapt", "gamma"), VARIANTS)
def test_gradcheck(adapt: bool, gamma: float | None) -> None:
    maps = make_maps(1)
    scales = maps["scales"] if adapt else None
    assert torch.autograd.gradcheck(
        heatmap_loss, (maps["predicted"], maps["target"], maps["mask"], scales, gamma)
    )


def test_scale_loss_equals_the_loops() -> None:
    maps = make_maps()
    got, want = (
        f(maps["scales"], maps["target"], maps["mask"]) for f in (scale_loss, oracle.scale_loss)
    )
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss.sum(), maps["scales"])[0] for loss in (got, want))
    )


def test_by_hand() -> None:
    """H = e^-1, a = 1: T = H (1 - 1 + 1/2); P = 2 weighs 1 H^g + 2 (1 - H^g)."""
    h = torch.tensor(-1.0).exp()
    g = 0.5
    one = torch.ones(1, 1, 1, 1)
    joint_weight = h**g
    want = ((2 - joint_weight) * (2 - h / 2) ** 2).item()
    assert heatmap_loss(2 * one, h * one, one[0], one, g).item() == pytest.approx(want)
    assert heatmap_loss(2 * one, h * one, one[0], None, None).item() == pytest.approx(
        ((2 - h) ** 2).item()
    )
    assert (
        scale_loss(3 * one, h * one, one[0]).item() == 9
        and scale_loss(3 * one, 0 * one, one[0]).item() == 0
    )


def test_images_of_a_batch_are_independent() -> None:
    maps = make_maps()
    names = "predicted", "target", "mask", "scales"
    whole = heatmap_loss(*(maps[name] for name in names))
    alone = torch.cat([heatmap_loss(*(maps[name][i : i + 1] for name in names)) for i in range(2)])
    torch.testing.assert_close(whole, alone)


@pytest.mark.parametrize("gamma", [0.01, None])
def test_only_requested_gradients_are_computed(gamma: float | None) -> None:
    """Frozen predictions or frozen scales do not change the other's gradient; if both are frozen
    there is no graph.
    """
    maps = make_maps()
    predicted = maps["predicted"]
    scales = maps["scales"]
    rest = (maps["target"], maps["mask"])
    both = torch.autograd.grad(
        heatmap_loss(predicted, *rest, scales, gamma).sum(), (predicted, scales)
    )
    for i, inputs in enumerate([(predicted, scales.detach()), (predicted.detach(), scales)]):
        loss = heatmap_loss(inputs[0], *rest, inputs[1], gamma).sum()
        torch.testing.assert_close(torch.autograd.grad(loss, inputs[i])[0], both[i])
    assert not heatmap_loss(predicted.detach(), *rest, scales.detach(), gamma).requires_grad


def test_half_precision_maps() -> None:
    """Values are those of the same numbers in float32; gradients have the maps' dtype and are not
    zero.
    """
    maps = {name: value.detach().half() for name, value in make_maps().items()}
    predicted = maps["predicted"].requires_grad_()
    scales = maps["scales"].requires_grad_()
    loss = heatmap_loss(predicted, maps["target"].float(), maps["mask"].float(), scales)
    want = heatmap_loss(*(maps[name].float() for name in ("predicted", "target", "mask", "scales")))
    assert loss.dtype == torch.float32 and torch.equal(loss, want)
    (loss.mean() * 2.0**14).backward()
    assert (
        predicted.grad is not None
        and predicted.grad.dtype == torch.float16
        and predicted.grad.any()
    )
    assert scales.grad is not None and scales.grad.dtype == torch.float16 and scales.grad.any()


def test_background_never_gives_nan() -> None:
    """Where H = 0, a scale of any size has no influence on the loss and gets no gradient."""
    scales = torch.full((1, 1, 4, 4), 1e30).requires_grad_()
    predicted = torch.zeros(1, 1, 4, 4).requires_grad_()
    loss = heatmap_loss(predicted, torch.zeros(1, 1, 4, 4), torch.ones(1, 4, 4), scales)
    loss.sum().backward()
    assert loss.item() == 0 and not scales.grad.any() and not predicted.grad.any()
