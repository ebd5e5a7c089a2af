from __future__ import annotations

import numpy as np
import pytest
import torch

from swahr.models.backbones.hrnet import hrnet_stages
from swahr.models.heads.higher_hrnet import DeconvSettings
from swahr.models.network import ModelError
from swahr.models.weights import published_state
from tests.models.tiny_networks import VARIANTS, images, network
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


def test_compiles_without_a_break() -> None:
    model = network("bottom-up")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images())[0].heatmaps, model(images())[0].heatmaps)


def test_published_widths() -> None:
    stage2, stage3, stage4 = hrnet_stages(48)
    assert (stage2.num_modules, stage3.num_modules, stage4.num_modules) == (1, 4, 3)
    assert stage4.num_channels == (48, 96, 192, 384) and stage2.num_blocks == (4, 4)


def test_images_that_do_not_divide() -> None:
    with pytest.raises(
        ModelError, match=r"^images are 48 x 64 px; width and height must be multiples of 32$"
    ):
        network()(images(1, 64, 48))


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ModelError, match="^tag_channels has 1 entries for 2 resolutions$"):
        network(tag_channels=(3,))
    with pytest.raises(ModelError, match="^deconvolution kernel of 5; it is one of 4, 3, 2$"):
        network(deconvs=(DeconvSettings(4, 5),))
