"""The list of terms: names, weights and order of the losses, losses of one's own, and the published
figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from yacs.config import CfgNode

from swahr.codec.targets import StageTarget
from swahr.losses.associative import associative_loss
from swahr.losses.criterion import (
    LOSSES,
    Criterion,
    LossError,
    Term,
    build_criterion,
    total_loss,
)
from swahr.losses.heatmap import heatmap_loss
from swahr.losses.scale import scale_loss
from swahr.models.network import StageOutput

NAMES = ["heatmap0", "scale0", "push0", "pull0", "heatmap1", "scale1"]


def make_stages(people: int = 3) -> tuple[list[StageOutput], list[StageTarget]]:
    torch.manual_seed(0)
    outputs = []
    targets = []
    for size in (4, 8):
        scales, heatmaps, tags = torch.randn(3, 2, 2, size, size)
        outputs.append(
            StageOutput(scales.requires_grad_(), heatmaps.requires_grad_(), tags.requires_grad_())
        )
        targets.append(
            StageTarget(
                torch.rand(2, 2, size, size),
                torch.ones(2, size, size),
                torch.randint(0, 2 * size * size, (2, people, 2)),
                torch.rand(2, people, 2) < 0.7,
            )
        )
    return outputs, targets


def criterion(**changes: Any) -> Criterion:
    """The published criterion of two stages, with some keys of LOSS changed."""
    loss = {
        "NUM_STAGES": 2,
        "TERMS": ["heatmap", "scale", "associative"],
        "WITH_HEATMAPS_LOSS": [True, True],
        "HEATMAPS_LOSS_FACTOR": [1.0, 1.0],
        "AE_LOSS_TYPE": "exp",
        "WITH_AE_LOSS": [True, False],
        "PUSH_LOSS_FACTOR": [0.001, 0.001],
        "PULL_LOSS_FACTOR": [0.001, 0.001],
        "GAMMA": 0.01,
        "SCALE_ADAPTIVE": True,
        "WEIGHT_ADAPTIVE": True,
        "SCALE_LOSS_FACTOR": 1.0,
    }
    assert set(changes) <= set(loss)
    return build_criterion(CfgNode({"LOSS": loss | changes}))


def heatmap_sum(output: StageOutput, target: StageTarget) -> Tensor:
    return output.heatmaps.sum((1, 2, 3))


def test_names_weights_and_total() -> None:
    outputs, targets = make_stages()
    losses = criterion(
        HEATMAPS_LOSS_FACTOR=[2.0, 3.0],
        PUSH_LOSS_FACTOR=[4.0, 7.0],
        PULL_LOSS_FACTOR=[5.0, 7.0],
        AE_LOSS_TYPE="max",
        GAMMA=0.5,
        SCALE_LOSS_FACTOR=6.0,
    )(outputs, targets)
    assert list(losses) == NAMES
    output = outputs[0]
    target = targets[0]
    assert output.scales is not None and output.tags is not None
    push, pull = associative_loss(output.tags, target.index, target.present, "max")
    heatmap = heatmap_loss(output.heatmaps, target.heatmaps, target.mask, output.scales, 0.5)
    scale = scale_loss(output.scales, target.heatmaps, target.mask)
    torch.testing.assert_close(
        list(losses.values())[:4], [2 * heatmap, 6 * scale, 4 * push, 5 * pull]
    )
    output = outputs[1]
    target = targets[1]
    heatmap = heatmap_loss(output.heatmaps, target.heatmaps, target.mask, output.scales, 0.5)
    torch.testing.assert_close(losses["heatmap1"], 3 * heatmap)
    total = sum(loss.mean().item() for loss in losses.values())
    assert total_loss(losses).item() == pytest.approx(total)


def test_parts_of_swahr_can_be_switched_off() -> None:
    outputs, targets = make_stages()
    output = outputs[0]
    target = targets[0]
    plain = criterion(SCALE_ADAPTIVE=False, WEIGHT_ADAPTIVE=False)(outputs, targets)
    assert list(plain) == ["heatmap0", "push0", "pull0", "heatmap1"]
    squares = ((output.heatmaps - target.heatmaps) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(plain["heatmap0"], squares)
    weighted = criterion(SCALE_ADAPTIVE=False)(outputs, targets)
    torch.testing.assert_close(
        weighted["heatmap0"], heatmap_loss(output.heatmaps, target.heatmaps, target.mask)
    )


def test_stages_without_a_heatmap_loss_have_no_scale_loss_either() -> None:
    only_tags = criterion(WITH_HEATMAPS_LOSS=[False, False])
    assert list(only_tags(*make_stages())) == ["push0", "pull0"]


def test_a_weight_of_zero_removes_the_loss() -> None:
    outputs, targets = make_stages()
    losses = criterion(PUSH_LOSS_FACTOR=[0.0, 0.0], SCALE_LOSS_FACTOR=0.0)(outputs, targets)
    assert list(losses) == ["heatmap0", "pull0", "heatmap1"]


def test_the_order_of_the_terms_is_that_of_the_losses() -> None:
    losses = criterion(TERMS=["associative", "heatmap"])(*make_stages())
    assert list(losses) == ["push0", "pull0", "heatmap0", "heatmap1"]


def test_one_weight_counts_for_all_stages() -> None:
    losses = Criterion([Term(heatmap_sum, {"sum": [3.0]})], 2)(*make_stages())
    assert list(losses) == ["sum0", "sum1"]


def test_reads_names_the_maps_that_get_a_gradient() -> None:
    assert criterion().reads == {
        ("heatmaps", 0),
        ("scales", 0),
        ("tags", 0),
        ("heatmaps", 1),
        ("scales", 1),
    }
    assert criterion(SCALE_ADAPTIVE=False, WITH_HEATMAPS_LOSS=[False, True]).reads == {
        ("tags", 0),
        ("heatmaps", 1),
    }


@pytest.mark.parametrize("people", [0, 3])
def test_gradients_reach_every_map_that_is_read(people: int) -> None:
    outputs, targets = make_stages(people)
    published = criterion()
    total_loss(published(outputs, targets)).backward()
    for stage, output in enumerate(outputs):
        for name in ("scales", "heatmaps", "tags"):
            gradient = getattr(output, name).grad
            assert (gradient is not None) == ((name, stage) in published.reads)
            assert gradient is None or gradient.isfinite().all()


def test_a_loss_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function, a line in LOSSES and a name in LOSS.TERMS: an L1 loss on a map of one's own, with
    a weight at the second stage only.
    """

    def build_width_term(cfg: Any) -> Term:
        def width_loss(output: StageOutput, target: StageTarget) -> Tensor:
            assert output.extra is not None
            return output.extra["widths"].abs().mean((1, 2, 3))

        return Term(width_loss, {"width": [None, 2.0]}, reads=["widths"])

    monkeypatch.setitem(LOSSES, "width", build_width_term)
    outputs, targets = make_stages()
    widths = torch.full((2, 1, 8, 8), -3.0, requires_grad=True)
    outputs[1] = outputs[1]._replace(extra={"widths": widths})
    with_width = criterion(TERMS=["heatmap", "width"])
    losses = with_width(outputs, targets)
    assert list(losses) == ["heatmap0", "heatmap1", "width1"]
    assert losses["width1"].tolist() == [6, 6] and ("widths", 1) in with_width.reads
    total_loss(losses).backward()
    assert widths.grad is not None and widths.grad.any()


def test_float32_under_autocast() -> None:
    """Network outputs in bfloat16 give exactly the losses of the same numbers in float32."""
    outputs, targets = make_stages()
    low = [o.map(lambda maps: maps.detach().bfloat16().requires_grad_()) for o in outputs]
    want = criterion()([o.map(lambda maps: maps.float()) for o in low], targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = criterion()(low, targets)
        loss = total_loss(got)
    assert {value.dtype for value in (*got.values(), loss)} == {torch.float32}
    assert all(torch.equal(got[name], want[name]) for name in want)
    loss.backward()
    gradient = low[0].heatmaps.grad
    assert gradient is not None and gradient.dtype == torch.bfloat16 and gradient.any()


def test_a_loss_from_outside_is_float32_under_autocast() -> None:
    """Also if it has products of matrices, which autocast would round."""

    def products(output: StageOutput, target: StageTarget) -> Tensor:
        return (output.heatmaps @ output.heatmaps).mean((1, 2, 3))

    own = Criterion([Term(products, {"products": [1.0]})], 2)
    outputs, targets = make_stages()
    want = own(outputs, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = own(outputs, targets)
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"TERMS": ["heatmaps"]},
            "LOSS.TERMS is 'heatmaps'; it is one of heatmap, scale, associative; "
            "a module of your own is named with --import",
        ),
        ({"AE_LOSS_TYPE": "L2"}, "push_kind 'L2' is unknown: it is one of exp, max"),
        (
            {"WITH_HEATMAPS_LOSS": [False, False], "WITH_AE_LOSS": [False, False]},
            "LOSS.TERMS: gives no stage a loss; it must name one whose weight is not 0",
        ),
        (
            {"TERMS": []},
            "LOSS.TERMS: gives no stage a loss; it must name one whose weight is not 0",
        ),
        (
            {"TERMS": ["heatmap", "heatmap"]},
            "LOSS.TERMS: gives two losses the name 'heatmap'; each must have its own",
        ),
    ],
)
def test_settings_that_make_no_criterion(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        criterion(**changes)


@pytest.mark.parametrize("stages", [1, 3])
def test_weights_that_do_not_fit_the_stages(stages: int) -> None:
    message = (
        f"^LOSS.TERMS: the loss 'sum' has 2 weights; LOSS.NUM_STAGES is {stages}, "
        f"so it must have 1 or {stages}$"
    )
    with pytest.raises(LossError, match=message):
        Criterion([Term(heatmap_sum, {"sum": [1.0, 1.0]})], stages)


def test_terms_that_do_not_fit() -> None:
    term = Term(heatmap_sum, {"sum": [1.0, 1.0]})
    with pytest.raises(LossError, match="^LOSS.TERMS: gives two losses the name 'sum'; each must"):
        Criterion([term, term], 2)
    with pytest.raises(LossError, match="^LOSS.TERMS: gives no stage a loss"):
        Criterion([], 2)
    two_names = Criterion([Term(heatmap_sum, {"sum": [1.0], "other": [1.0]})], 2)
    message = "^LOSS.TERMS: the function of the loss sum, other gives 1 tensors; it must give 2$"
    with pytest.raises(LossError, match=message):
        two_names(*make_stages())


def test_losses_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = Criterion([Term(lambda output, target: 0.5, {"flat": [1]})], 2)
    with pytest.raises(LossError, match="function of the loss flat gives a float; it must give a"):
        flat(*make_stages())
    monkeypatch.setitem(LOSSES, "flat", lambda cfg: lambda output, target: 0.5)
    with pytest.raises(LossError, match="^LOSS.TERMS: flat gives a function, not a swahr.losses"):
        criterion(TERMS=["flat"])


def test_outputs_that_do_not_fit() -> None:
    outputs, targets = make_stages()
    with pytest.raises(LossError, match="^1 outputs and 2 targets: the criterion is for 2 stages$"):
        criterion()(outputs[:1], targets)
    for name, loss in (("tags", "push, pull"), ("scales", "heatmap")):
        with pytest.raises(
            LossError,
            match=f"^LOSS.TERMS: the loss {loss} reads the map '{name}', which the network does "
            "not give at stage 0; it needs a MODEL.HEAD that does$",
        ):
            criterion()([output._replace(**{name: None}) for output in outputs], targets)


@pytest.mark.parametrize(
    ("name", "push_kind", "k"),
    [("coco", "exp", 17), ("coco", "max", 17), ("crowdpose", "exp", 14)],
)
def test_published_losses(shared: Path, name: str, push_kind: str, k: int) -> None:
    figures = np.load(shared / f"golden/losses_{name}_{push_kind}.npz")
    channels = [torch.tensor(figures[f"out{stage}"], requires_grad=True) for stage in range(2)]
    outputs = [
        StageOutput(c[:, :k], c[:, k : 2 * k], c[:, 2 * k :] if c.shape[1] > 2 * k else None)
        for c in channels
    ]
    targets = []
    for stage in range(2):
        heatmaps, mask, joints = (
            torch.tensor(figures[f"{part}{stage}"]) for part in ("heatmaps", "mask", "joints")
        )
        targets.append(StageTarget(heatmaps, mask, joints[..., 0], joints[..., 1] > 0))
    losses = criterion(AE_LOSS_TYPE=push_kind)(outputs, targets)
    for key, value in losses.items():
        np.testing.assert_allclose(value.detach(), figures[key], rtol=1e-5, atol=1e-9)
    loss = total_loss(losses)
    assert loss.item() == pytest.approx(figures["total"].item(), rel=1e-6)
    loss.backward()
    for stage, maps in enumerate(channels):
        for got, want in zip(
            maps.grad.split(k, 1), torch.tensor(figures[f"grad{stage}"]).split(k, 1)
        ):
            assert (got - want).abs().max() <= 1e-5 * want.abs().max()
