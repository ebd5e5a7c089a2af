"""Which losses there are, by which factors, and the published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from swahr.codec.targets import StageTarget
from swahr.losses.associative import associative_loss
from swahr.losses.criterion import Criterion, build_criterion, total_loss
from swahr.losses.heatmap import heatmap_loss
from swahr.losses.scale import scale_loss

PUBLISHED: dict[str, Any] = dict(
    with_heatmaps=[True, True],
    heatmap_factors=[1.0, 1.0],
    with_ae=[True, False],
    push_factors=[0.001, 0.001],
    pull_factors=[0.001, 0.001],
)


class Output(NamedTuple):
    scales: Tensor | None
    heatmaps: Tensor
    tags: Tensor | None


def make_stages(people: int = 3) -> tuple[list[Output], list[StageTarget]]:
    torch.manual_seed(0)
    outputs = []
    targets = []
    for size in (4, 8):
        scales, heatmaps, tags = torch.randn(3, 2, 2, size, size)
        outputs.append(
            Output(scales.requires_grad_(), heatmaps.requires_grad_(), tags.requires_grad_())
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


def test_names_factors_and_total() -> None:
    outputs, targets = make_stages()
    criterion = Criterion(
        **{
            **PUBLISHED,
            "heatmap_factors": [2.0, 3.0],
            "push_factors": [4.0, 0.0],
            "pull_factors": [5.0, 0.0],
        },
        ae_type="max",
        gamma=0.5,
        scale_factor=6.0,
    )
    losses = criterion(outputs, targets)
    assert list(losses) == ["heatmap0", "scale0", "push0", "pull0", "heatmap1", "scale1"]
    (scales, heatmaps, tags) = outputs[0]
    (wanted, mask, index, present) = targets[0]
    assert scales is not None and tags is not None
    push, pull = associative_loss(tags, index, present, "max")
    heatmap = heatmap_loss(heatmaps, wanted, mask, scales, 0.5)
    scale = scale_loss(scales, wanted, mask)
    torch.testing.assert_close(
        list(losses.values())[:4], [2 * heatmap, 6 * scale, 4 * push, 5 * pull]
    )
    assert total_loss(losses).item() == pytest.approx(
        sum(loss.mean().item() for loss in losses.values())
    )


def test_parts_can_be_left_out() -> None:
    outputs, targets = make_stages()
    output = outputs[0]
    target = targets[0]
    plain = Criterion(**PUBLISHED, scale_adaptive=False, weight_adaptive=False)(outputs, targets)
    assert list(plain) == ["heatmap0", "push0", "pull0", "heatmap1"]
    squares = ((output.heatmaps - target.heatmaps) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(plain["heatmap0"], squares)
    without_heads = [o._replace(scales=None) for o in outputs]
    weighted = Criterion(**PUBLISHED)(without_heads, targets)
    torch.testing.assert_close(
        weighted["heatmap0"], heatmap_loss(output.heatmaps, target.heatmaps, target.mask)
    )
    only_tags = Criterion(**{**PUBLISHED, "with_heatmaps": [False, False]})
    assert list(only_tags(outputs, targets)) == ["push0", "pull0"]


@pytest.mark.parametrize("people", [0, 3])
def test_gradients_reach_every_output_that_has_a_loss(people: int) -> None:
    outputs, targets = make_stages(people)
    total_loss(Criterion(**PUBLISHED)(outputs, targets)).backward()
    for stage, output in enumerate(outputs):
        for name, part in output._asdict().items():
            used = name != "tags" or stage == 0
            assert (part.grad is not None) == used and (not used or part.grad.isfinite().all())


def test_float32_under_autocast() -> None:
    """Network outputs in bfloat16 give the very losses of the same numbers in float32."""
    outputs, targets = make_stages()
    low = [
        Output(*(part.detach().bfloat16().requires_grad_() for part in output))
        for output in outputs
    ]
    want = Criterion(**PUBLISHED)(
        [Output(*(part.float() for part in output)) for output in low], targets
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = Criterion(**PUBLISHED)(low, targets)
        loss = total_loss(got)
    assert {value.dtype for value in (*got.values(), loss)} == {torch.float32}
    assert all(torch.equal(got[name], want[name]) for name in want)
    loss.backward()
    assert low[0].heatmaps.grad.dtype == torch.bfloat16 and low[0].heatmaps.grad.any()


def test_messages() -> None:
    outputs, targets = make_stages()
    with pytest.raises(
        ValueError, match="push_factors has 1 entries, with_heatmaps 2: both need one a stage"
    ):
        Criterion(**{**PUBLISHED, "push_factors": [1.0]})
    with pytest.raises(ValueError, match="no stage has a loss"):
        Criterion(**{**PUBLISHED, "with_heatmaps": [False] * 2, "with_ae": [False] * 2})
    with pytest.raises(
        ValueError, match="LOSS.AE_LOSS_TYPE 'L2' is unknown: it is one of exp, max"
    ):
        Criterion(**PUBLISHED, ae_type="L2")
    with pytest.raises(ValueError, match="1 outputs, 2 targets: the criterion is for 2 stages"):
        Criterion(**PUBLISHED)(outputs[:1], targets)
    with pytest.raises(
        ValueError, match="LOSS.WITH_AE_LOSS is true for stage 0, whose output has no tags"
    ):
        Criterion(**PUBLISHED)([o._replace(tags=None) for o in outputs], targets)


class Loss(dict):
    """Stands in for the LOSS node: keys are items and attributes."""

    __getattr__ = dict.__getitem__


def make_config(**changes: Any) -> Any:
    return Loss(
        LOSS=Loss(
            {
                "NUM_STAGES": 2,
                "WITH_HEATMAPS_LOSS": (True, True),
                "HEATMAPS_LOSS_FACTOR": (1.0, 0.5),
                "AE_LOSS_TYPE": "max",
                "WITH_AE_LOSS": (True, False),
                "PUSH_LOSS_FACTOR": (0.1, 0.2),
                "PULL_LOSS_FACTOR": (0.3, 0.4),
                "GAMMA": 0.02,
                "SCALE_ADAPTIVE": True,
                "WEIGHT_ADAPTIVE": True,
                "SCALE_LOSS_FACTOR": 0.7,
                **changes,
            }
        )
    )


def test_build() -> None:
    criterion = build_criterion(make_config())
    assert (criterion.heatmap_factors, criterion.with_ae) == ((1.0, 0.5), (True, False))
    assert (criterion.push_factors, criterion.pull_factors) == ((0.1, 0.2), (0.3, 0.4))
    assert (criterion.ae_type, criterion.gamma, criterion.scale_factor) == ("max", 0.02, 0.7)
    assert build_criterion(make_config(WEIGHT_ADAPTIVE=False)).gamma is None
    assert build_criterion(make_config(NUM_STAGES=1)).with_ae == (True,)
    with pytest.raises(
        ValueError, match="LOSS.PULL_LOSS_FACTOR has 1 entries: LOSS.NUM_STAGES is 2"
    ):
        build_criterion(make_config(PULL_LOSS_FACTOR=[1.0]))


@pytest.mark.parametrize(
    ("name", "kind", "k"), [("coco", "exp", 17), ("coco", "max", 17), ("crowdpose", "exp", 14)]
)
def test_published_losses(shared: Path, name: str, kind: str, k: int) -> None:
    figures = np.load(shared / f"golden/losses_{name}_{kind}.npz")
    channels = [torch.tensor(figures[f"out{stage}"], requires_grad=True) for stage in range(2)]
    outputs = [
        Output(c[:, :k], c[:, k : 2 * k], c[:, 2 * k :] if c.shape[1] > 2 * k else None)
        for c in channels
    ]
    targets = [
        StageTarget(
            *(torch.tensor(figures[f"{part}{stage}"]) for part in ("heatmaps", "mask")),
            *torch.tensor(figures[f"joints{stage}"]).unbind(-1),
        )
        for stage in range(2)
    ]
    targets = [target._replace(present=target.present > 0) for target in targets]
    losses = Criterion(**PUBLISHED, ae_type=kind)(outputs, targets)
    for key, value in losses.items():
        np.testing.assert_allclose(value.detach(), figures[key], rtol=1e-5, atol=1e-9)
    loss = total_loss(losses)
    assert loss.item() == pytest.approx(figures["total"].item(), rel=1e-6)
    loss.backward()
    for stage, part in enumerate(channels):
        for got, want in zip(
            part.grad.split(k, 1), torch.tensor(figures[f"grad{stage}"]).split(k, 1)
        ):
            assert (got - want).abs().max() <= 1e-5 * want.abs().max()
