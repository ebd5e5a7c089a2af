from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from swahr.models.build import build_model
from swahr.models.network import ModelError
from tests.models.tiny_networks import CROWD_POSE, W32, W48, published


@pytest.mark.parametrize(
    ("name", "key"),
    [(W32, "coco_w32_512"), (W48, "coco_w48_640"), (CROWD_POSE, "crowdpose_w48_640")],
)
def test_published_architectures(shared: Path, name: str, key: str) -> None:
    expected = json.loads((shared / "golden/architecture.json").read_text())[key]
    with torch.device("meta"):
        model = build_model(published(name))
    assert [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()] == expected[
        "state_dict"
    ]


def test_settings_reach_the_network() -> None:
    deconv = ("MODEL.EXTRA.DECONV.CAT_OUTPUT", "[False]", "MODEL.EXTRA.DECONV.KERNEL_SIZE", "[2]")
    heads = ("MODEL.TAG_PER_JOINT", "False", "MODEL.EXTRA.FINAL_CONV_KERNEL", "3")
    with torch.device("meta"):
        model = build_model(published(W32, *heads, *deconv))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["final_layers.0.weight"] == (18, 32, 3, 3)
    assert shapes["deconv_layers.0.0.0.weight"] == (32, 32, 2, 2)


def test_initial_weights_only_if_asked_for() -> None:
    small = (
        "MODEL.EXTRA.STAGE2.NUM_CHANNELS",
        "[4, 4]",
        "MODEL.EXTRA.STAGE3.NUM_CHANNELS",
        "[4, 4, 4]",
        "MODEL.EXTRA.STAGE4.NUM_CHANNELS",
        "[4, 4, 4, 4]",
    )
    assert build_model(published(W32, *small)).conv2.weight.std() < 0.002
    assert (
        build_model(published(W32, *small, "MODEL.INIT_WEIGHTS", "False")).conv2.weight.std() > 0.01
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "MODEL.EXTRA.STAGE3.NUM_BRANCHES",
            4,
            "MODEL.EXTRA.STAGE3.NUM_BRANCHES is 4; HRNet has 3 here",
        ),
        (
            "MODEL.EXTRA.STAGE2.NUM_CHANNELS",
            [32],
            "MODEL.EXTRA.STAGE2.NUM_CHANNELS has 1 entries for 2 branches",
        ),
        (
            "MODEL.EXTRA.STAGE2.NUM_BLOCKS",
            [4, 0],
            "MODEL.EXTRA.STAGE2.NUM_BLOCKS is [4, 0]; every entry must be at least 1",
        ),
        (
            "MODEL.EXTRA.STAGE4.NUM_MODULES",
            0,
            "MODEL.EXTRA.STAGE4.NUM_MODULES is 0; a stage has at least 1",
        ),
        (
            "MODEL.EXTRA.STAGE2.BLOCK",
            "BIG",
            "MODEL.EXTRA.STAGE2.BLOCK is 'BIG'; it is one of BASIC, BOTTLENECK",
        ),
        (
            "MODEL.EXTRA.STAGE2.FUSE_METHOD",
            "CAT",
            "MODEL.EXTRA.STAGE2.FUSE_METHOD is 'CAT'; only SUM is known",
        ),
        (
            "MODEL.EXTRA.DECONV.KERNEL_SIZE",
            [5],
            "MODEL.EXTRA.DECONV.KERNEL_SIZE has 5; it is one of 4, 3, 2",
        ),
        (
            "MODEL.EXTRA.DECONV.CAT_OUTPUT",
            [],
            "MODEL.EXTRA.DECONV.CAT_OUTPUT has 0 entries for NUM_DECONVS 1",
        ),
        (
            "MODEL.EXTRA.FINAL_CONV_KERNEL",
            2,
            "MODEL.EXTRA.FINAL_CONV_KERNEL is 2; it must be odd, as published 1 or 3",
        ),
        ("LOSS.WITH_AE_LOSS", [True], "LOSS.WITH_AE_LOSS needs 2 entries, one for each resolution"),
    ],
)
def test_settings_that_make_no_network(key: str, value: object, message: str) -> None:
    cfg = published(W32).clone()
    cfg.defrost()
    node: CfgNode = cfg
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(ModelError) as error:
        build_model(cfg)
    assert str(error.value) == message
