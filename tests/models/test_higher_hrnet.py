from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from swahr.models.backbones.hrnet import StageSettings
from swahr.models.heads.higher_hrnet import DeconvSettings
from swahr.models.network import ModelError
from swahr.models.trial import has_idle_parameters
from swahr.models.weights import published_state
from tests.models.tiny_networks import DECONV, STAGES, VARIANTS, images, network
from tests.oracles.network import Network


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_forward_is_the_formula(variant: str) -> None:
    model = network(variant)
    image = images(1, 32, 64)
    expected = Network({name: tensor.numpy() for name, tensor in published_state(model).items()})(
        image[0].numpy()
    )
    outputs = model(image)
    assert len(outputs) == len(expected)
    for output, (scales, maps) in zip(outputs, expected):
        both = torch.cat([output.heatmaps] + ([] if output.tags is None else [output.tags]), 1)
        np.testing.assert_allclose(both[0], maps, atol=1e-4 * np.abs(maps).max())
        assert (output.scales is None) == (scales is None)
        if scales is not None:
            np.testing.assert_allclose(output.scales[0], scales, atol=1e-4 * np.abs(scales).max())


@pytest.mark.parametrize(
    ("variant", "tags"),
    [
        ("published", (3, None)),
        ("bottom-up", (3,)),
        ("shared tags", (1, None)),
        ("no tags", (None, None)),
        ("two steps", (3, None, 3)),
    ],
)
@torch.no_grad()
def test_output_shapes(variant: str, tags: tuple[int | None, ...]) -> None:
    outputs = network(variant)(images(2, 64, 96))
    for stage, (output, channels) in enumerate(zip(outputs, tags, strict=True)):
        size = (16 * 2**stage, 24 * 2**stage)
        assert output.heatmaps.shape == output.scales.shape == (2, 3, *size)
        assert (
            (output.tags is None) if channels is None else output.tags.shape == (2, channels, *size)
        )


@torch.no_grad()
def test_plain_network_has_no_scales() -> None:
    assert all(output.scales is None for output in network("plain")(images()))


@torch.no_grad()
def test_batched_is_single() -> None:
    model = network()
    batch = images(3)
    for stage, together in enumerate(model(batch)):
        alone = torch.cat([model(image[None])[stage].heatmaps for image in batch])
        torch.testing.assert_close(together.heatmaps, alone)


def test_no_people_no_images() -> None:
    assert network()(images(0))[1].heatmaps.shape == (0, 3, 32, 16)


def test_every_parameter_learns_in_either_layout() -> None:
    """In-place sums and ReLUs must leave the gradients alone, whatever the memory format."""
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = network().double().train().to(memory_format=layout)
        outputs = model(images().double().to(memory_format=layout))
        sum(
            part.square().mean() for output in outputs for part in output if part is not None
        ).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(gradient is not None for gradient in gradients[0])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_mixed_precision_stays_mixed() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network()(images())
    assert {part.dtype for output in outputs for part in output if part is not None} == {
        torch.bfloat16
    }


@pytest.mark.slow
def test_compiles_without_a_break() -> None:
    model = network("bottom-up")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images())[0].heatmaps, model(images())[0].heatmaps)


def test_images_that_do_not_divide() -> None:
    with pytest.raises(
        ModelError, match=r"^images are 48 x 64 px; width and height must be multiples of 32$"
    ):
        network()(images(1, 64, 48))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tag_channels": (3,)}, "tag_channels has 1 entries for 2 resolutions"),
        (
            {"deconvs": (DeconvSettings(4, 5),)},
            "kernel_size of a deconvolution is 5; it is one of 4, 3, 2",
        ),
        ({"final_kernel": 2}, "final_kernel is 2; it must be odd"),
        (
            {"deconvs": (DECONV,) * 3, "tag_channels": (3, 0, 0, 0)},
            "features of stride 4 cannot be upsampled by 8",
        ),
        ({"stages": STAGES[:2]}, "stages has 2 entries; HRNet needs those of stages 2, 3, 4"),
        (
            {"stages": (STAGES[1], *STAGES[1:])},
            "stage 2: num_blocks is [1, 2, 1]; it must have 2 entries of at least 1",
        ),
        (
            {"stages": (StageSettings(1, (1, 1), (4, 0)), *STAGES[1:])},
            "stage 2: num_channels is [4, 0]; it must have 2 entries of at least 1",
        ),
        (
            {"stages": (*STAGES[:2], STAGES[2]._replace(num_modules=0))},
            "stage 4: num_modules is 0; it must be at least 1",
        ),
        (
            {"stages": (*STAGES[:2], STAGES[2]._replace(block="BIG"))},
            "stage 4: block is 'BIG'; it is one of BASIC, BOTTLENECK",
        ),
    ],
)
def test_settings_that_make_no_network(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as error:
        network(**changes)
    assert str(error.value) == message


def test_the_network_says_its_sizes() -> None:
    assert network().strides == (4, 2) and network().size_divisor == 32
    assert network("two steps").strides == (4, 2, 1)
    assert network("bottom-up").backbone.channels == 4


@pytest.mark.parametrize("variant", ["published", "plain", "two steps", "bottom-up"])
def test_idle_parameters(variant: str) -> None:
    """Whatever the loss reads, they are those that a backward pass leaves without gradient."""
    model = network(variant)
    image = images(1, 32, 32)
    outputs = model.eval()(image)
    maps = [
        (name, stage)
        for stage, output in enumerate(outputs)
        for name in ("scales", "heatmaps", "tags")
        if getattr(output, name) is not None
    ]
    seen = set()
    for bits in range(1, 1 << len(maps)):
        read = [part for index, part in enumerate(maps) if bits >> index & 1]
        model.zero_grad()
        total = sum(getattr(outputs[stage], name).mean() for name, stage in read)
        total.backward(retain_graph=True)
        idle = any(parameter.grad is None for parameter in model.parameters())
        assert has_idle_parameters(model, image, read) == idle, read
        seen.add(idle)
    assert seen == {True, False}


@torch.no_grad()
def test_scale_heads_are_dropped_for_testing() -> None:
    model = network()
    before = model(images())
    model.head.for_testing()
    after = model(images())
    assert not any("conv_scale" in name for name in published_state(model))
    for one, other in zip(before, after):
        assert other.scales is None and torch.equal(one.heatmaps, other.heatmaps)
