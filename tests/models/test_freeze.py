"""Frozen parts of a network."""

from __future__ import annotations

import copy

import pytest
import torch

from swahr.models.freeze import freeze
from swahr.models.network import ModelError, PoseNetwork
from swahr.models.weights import published_state
from tests.models.tiny_networks import network

STEM = ["conv1", "bn1", "conv2", "bn2", "layer1"]


def train_once(model: PoseNetwork) -> None:
    model.train()
    outputs = model(torch.rand(2, 3, 64, 64))
    sum(stage.heatmaps.square().mean() for stage in outputs).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.optim.Adam(trained, 0.1).step()


@pytest.mark.parametrize("copied", [False, True])
def test_training_changes_no_frozen_tensor(copied: bool) -> None:
    model = network()
    freeze(model, STEM)
    model = copy.deepcopy(model) if copied else model
    before = copy.deepcopy(published_state(model))
    train_once(model)
    same = {name for name, tensor in published_state(model).items() if tensor.equal(before[name])}
    frozen = {name for name in before if name.split(".")[0] in STEM}
    assert frozen <= same and "layer1.0.bn1.running_mean" in frozen
    assert not {"stage2.0.branches.0.0.bn1.running_mean", "final_layers.0.weight"} & same
    assert model.training and not model.eval().training


def test_a_part_may_be_named_with_dots() -> None:
    model = network()
    freeze(model, ["stage4.0", "final_layers.1.bias"])
    frozen = {name for name, tensor in model.named_parameters() if not tensor.requires_grad}
    assert "head.final_layers.1.bias" in frozen
    assert {name.rpartition(".")[0][:16] for name in frozen} > {"backbone.stage4."}
    assert all(".stage4.0." in name or name.endswith("layers.1.bias") for name in frozen)


def test_a_part_that_is_not_there() -> None:
    with pytest.raises(ModelError) as caught:
        freeze(network(), ["conv1", "conv"])
    start = "the network has no part 'conv'; its parts are conv1, bn1, conv2, bn2, layer1, "
    assert str(caught.value).startswith(start) and "final_layers" in str(caught.value)


def test_something_must_be_left_to_train() -> None:
    parts = {name.split(".")[0] for name in published_state(network())}
    with pytest.raises(ModelError, match="every part of the network is frozen"):
        freeze(network(), sorted(parts))
