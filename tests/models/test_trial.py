"""A network is tried before training: what its parts give, and which parameters learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from swahr.models.network import Backbone, Head, ModelError, PoseNetwork, StageOutput
from swahr.models.trial import has_idle_parameters, try_network

K = 3
IMAGES = torch.zeros(1, 3, 8, 12)


class Halved(Backbone):
    channels = 4
    stride = 2
    size_divisor = 2

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.BatchNorm2d(4))
        self.change = change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.layers(images))


class Maps(Head):
    upsampling = (1,)

    def __init__(self, change: Callable[[StageOutput], Any]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 3 * K, 1)
        self.change = change

    def forward(self, features: Tensor) -> Any:
        return self.change(StageOutput(*self.layer(features).chunk(3, 1)))


def network(
    features: Callable[[Tensor], Any] = lambda features: features,
    outputs: Callable[[StageOutput], Any] = lambda output: [output],
) -> PoseNetwork:
    return PoseNetwork(Halved(features), Maps(outputs))


def test_a_trial_changes_nothing() -> None:
    """Not the running statistics, the gradients or the mode."""
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = try_network(model, IMAGES + 1, K)
    assert [stage.heatmaps.shape for stage in outputs] == [(1, K, 4, 6)]
    assert not has_idle_parameters(model, IMAGES + 1, {("heatmaps", 0), ("tags", 0)})
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "given"),
    [
        (lambda features: features[:, :3], r"a tensor \(1, 3, 4, 6\)"),
        (lambda features: features[..., ::2], r"a tensor \(1, 4, 4, 3\)"),
        (lambda features: [features], "a list of 1"),
        (lambda features: None, "a NoneType"),
    ],
)
def test_features_that_are_not_as_the_backbone_says(change: Any, given: str) -> None:
    match = rf"^MODEL.BACKBONE: gives {given} for .* it must give a tensor \(1, 4, 4, 6\)$"
    with pytest.raises(ModelError, match=match):
        try_network(network(features=change), IMAGES, K)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda output: output, "gives a StageOutput; it must give a list with a StageOutput for"),
        (lambda output: [output, output], "gives a list of 2; it must"),
        (lambda output: [tuple(output)], "gives a list of 1; it must"),
        (lambda output: None, "gives a NoneType; it must"),
        (
            lambda output: [output.map(lambda maps: maps[:, :2])],
            r"its heatmaps at stage 0 are a tensor \(1, 2, 4, 6\); for 3 keypoints and images",
        ),
        (
            lambda output: [output._replace(heatmaps=None)],
            "its heatmaps at stage 0 are a NoneType; for 3 keypoints",
        ),
        (
            lambda output: [output._replace(tags=output.tags[..., ::2])],
            r"its tags at stage 0 are a tensor \(1, 3, 4, 3\)",
        ),
    ],
)
def test_maps_that_are_not_those_of_a_head(change: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"^MODEL.HEAD: {message}"):
        try_network(network(outputs=change), IMAGES, K)


@pytest.mark.parametrize("tags", [lambda tags: None, lambda tags: tags[:, :1]])
def test_a_head_may_lack_tags_and_scales_and_share_tags(tags: Any) -> None:
    model = network(outputs=lambda o: [o._replace(scales=None, tags=tags(o.tags))])
    assert len(try_network(model, IMAGES, K)) == 1


def test_a_layer_that_nothing_uses_is_idle() -> None:
    """Unless it is frozen. It may be in the backbone, as in networks made to classify."""
    model = network()
    model.backbone.unused = nn.Linear(2, 2)
    assert has_idle_parameters(model, IMAGES, {("heatmaps", 0)})
    model.backbone.unused.requires_grad_(False)
    assert not has_idle_parameters(model, IMAGES, {("heatmaps", 0)})


def test_maps_of_ones_own_learn_too() -> None:
    model = network(outputs=lambda o: [StageOutput(None, o.heatmaps, None, {"center": o.tags})])
    assert not has_idle_parameters(model, IMAGES, {("center", 0)})
