"""Targets against joint-by-joint loops and the published figures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swahr.codec.targets import (
    TargetEncoder,
    build_target_encoder,
    render_heatmaps,
    render_scale_aware,
    tag_index,
)
from tests.oracles import targets as oracle


def make_joints(
    seed: int, people: int, size: int, batch: int = 2, num_joints: int = 3
) -> torch.Tensor:
    """Joints in the map, around it and on its edges; a third of them not labelled; the last image
    has no people.
    """
    rng = np.random.default_rng(seed)
    joints = rng.uniform(-4, size + 4, (batch, people, num_joints, 3))
    joints[..., 2] = rng.integers(0, 3, joints.shape[:3])
    joints[rng.random(joints.shape[:3]) < 0.1, 0] = -0.4
    joints[rng.random(joints.shape[:3]) < 0.1, 1] = size
    joints[-1] = 0
    return torch.tensor(joints, dtype=torch.float32)


@pytest.mark.parametrize("people", [0, 1, 31])
@pytest.mark.parametrize("sigma", [1, 2, 0.5, 0.7, 2.5, 3.1, -1])
def test_heatmaps_equal_the_loops(people: int, sigma: float) -> None:
    joints = make_joints(people, people, 40)
    size = 40
    got = render_heatmaps(joints, size, sigma)
    assert got.dtype == torch.float32 and got.shape == (2, 3, size, size)
    for image, want in zip(
        got, (oracle.render(j, size, sigma if sigma > 0 else size / 64) for j in joints.numpy())
    ):
        np.testing.assert_allclose(image, want, atol=1e-6)


def test_scale_aware_heatmaps_equal_the_loops() -> None:
    """Each person has a sigma, whole or fractional; padding has 0."""
    joints = make_joints(0, 8, 40)
    sigma = torch.tensor([1, 2, 2.5, 0.5, 1.25, 3.1, 5, 0])
    joints = torch.cat([joints, sigma[:, None, None].expand(2, 8, 3, 1)], -1)
    for image, person in zip(render_scale_aware(joints, 40), joints.numpy()):
        np.testing.assert_allclose(image, oracle.render(person, 40, None), atol=1e-6)
    assert not render_scale_aware(joints[:, :0], 40).any()


def test_a_joint_by_hand() -> None:
    """Pixel (2, 3) of joint (2.9, 3.2) is the peak; the patch of sigma 2 ends 7 pixels from it,
    square.
    """
    heatmap = render_heatmaps(torch.tensor([[[[2.9, 3.2, 1.0]]]]), 16, 2)[0, 0]
    assert heatmap[3, 2] == 1 and heatmap[3, 4] == pytest.approx(np.exp(-0.5))
    assert heatmap[10, 9] > 0 and not heatmap[11:].any() and not heatmap[:, 10:].any()


@pytest.mark.parametrize("tag_per_joint", [True, False])
@pytest.mark.parametrize("people", [0, 1, 31])
def test_tag_index_equals_the_loops(tag_per_joint: bool, people: int) -> None:
    joints = make_joints(people + 1, people, 20)
    index, present = tag_index(joints, 20, tag_per_joint)
    assert index.dtype == torch.int64 and not index[~present].any()
    for image in range(2):
        got = [
            {k: int(index[image, n, k]) for k in present[image, n].nonzero()[:, 0].tolist()}
            for n in range(people)
        ]
        assert got == oracle.tag_index(joints[image].numpy(), 20, tag_per_joint)


@pytest.mark.parametrize("scale_aware", [False, True])
def test_images_of_a_batch_are_independent(scale_aware: bool) -> None:
    encoder = TargetEncoder(sizes=[12, 24], sigma=2, scale_aware=scale_aware, tag_per_joint=True)
    joints = [
        torch.cat([make_joints(seed, 5, size, batch=4), torch.full((4, 5, 3, 1), 1.5)], -1)
        for seed, size in ((0, 12), (1, 24))
    ]
    masks = [torch.randint(0, 2, (4, size, size), dtype=torch.uint8) for size in (12, 24)]
    for stage, (target, mask) in enumerate(zip(encoder(joints, masks), masks)):
        assert target.mask.dtype == torch.float32 and torch.equal(target.mask, mask.float())
        assert target.joints is joints[stage]
        for i in range(4):
            alone = encoder([j[i : i + 1] for j in joints], [m[i : i + 1] for m in masks])[stage]
            assert all(torch.equal(part[i : i + 1], one) for part, one in zip(target, alone))


def test_nan_joints_are_dropped() -> None:
    joints = torch.full((1, 1, 2, 3), float("nan"))
    joints[..., 2] = 2
    assert not render_heatmaps(joints, 8, 2).any() and not tag_index(joints, 8, True)[1].any()


def test_build() -> None:
    cfg = SimpleNamespace(
        DATASET=SimpleNamespace(OUTPUT_SIZE=[64, 128], SIGMA=-1, SCALE_AWARE_SIGMA=False),
        MODEL=SimpleNamespace(TAG_PER_JOINT=False),
    )
    masks = [torch.ones(1, size, size) for size in (64, 128)]
    targets = build_target_encoder(cfg)([torch.tensor([[[[5.0, 7.0, 2.0]]]])] * 2, masks)
    assert targets[0].index.item() == 7 * 64 + 5
    assert [t.heatmaps[0, 0, 7, 6].item() for t in targets] == pytest.approx(
        [np.exp(-1 / 2), np.exp(-1 / 8)]
    )


def test_map_reaches_every_tensor_that_is_there() -> None:
    encoder = TargetEncoder(sizes=[8], sigma=2, scale_aware=False, tag_per_joint=True)
    [target] = encoder([torch.ones(3, 1, 2, 3)], [torch.ones(3, 8, 8)])
    first = target.map(lambda tensor: tensor[:1])
    assert all(len(part) == 1 for part in first)
    without = target._replace(joints=None).map(lambda tensor: tensor[:1])
    assert without.joints is None and len(without.heatmaps) == 1


def test_messages() -> None:
    def encode(*shapes: tuple[int, ...], scale_aware: bool = False) -> None:
        joints, *masks = (torch.zeros(shape) for shape in shapes)
        TargetEncoder(sizes=[8], sigma=2, scale_aware=scale_aware, tag_per_joint=True)(
            [joints], masks
        )

    with pytest.raises(ValueError, match="^sigma is 0: it is a width in pixels, or negative"):
        TargetEncoder(sizes=[8], sigma=0, scale_aware=False, tag_per_joint=True)
    with pytest.raises(ValueError, match="^joints of 1 stages and masks of 0: there are 1 stages$"):
        encode((1, 1, 1, 3))
    with pytest.raises(
        ValueError, match=r"joints have shape \(1, 1, 1, 3\): it should be \(B, N, K, 4\)"
    ):
        encode((1, 1, 1, 3), (1, 8, 8), scale_aware=True)
    with pytest.raises(ValueError, match=r"mask has shape \(1, 8, 9\): it should be \(1, 8, 8\)"):
        encode((1, 1, 1, 3), (1, 8, 9))


def test_published_targets(shared: Path) -> None:
    figures = np.load(shared / "golden/targets.npz")
    for case in range(5):
        joints = torch.tensor(figures[f"joints{case}"])[None].float()
        size = int(figures[f"size{case}"])
        got = render_heatmaps(joints, size, float(figures[f"sigma{case}"]))[0]
        np.testing.assert_allclose(got, figures[f"heatmaps{case}"], atol=1e-6)
        for name, tag_per_joint in (("tag_index", True), ("tag_index_shared", False)):
            index, present = (part[0] for part in tag_index(joints, size, tag_per_joint))
            for n, wanted in enumerate(figures[f"{name}{case}"][: len(index)]):
                assert sorted(index[n][present[n]].tolist()) == sorted(
                    i for i, there in wanted.tolist() if there
                )
    joints = torch.tensor(figures["scale_aware_joints"])[None]
    np.testing.assert_allclose(
        render_scale_aware(joints, 128)[0], figures["scale_aware_heatmaps"], atol=1e-6
    )
