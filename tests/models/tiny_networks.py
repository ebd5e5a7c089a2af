"""Networks small enough for tests, and the published configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from swahr.config import load_config
from swahr.models.backbones.hrnet import HRNet, StageSettings
from swahr.models.heads.higher_hrnet import DeconvSettings, HigherHRNetHead
from swahr.models.network import PoseNetwork
from swahr.models.weights import published_state

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
W32 = "coco/higher_hrnet/w32_512_adam_lr1e-3"
W48 = "coco/higher_hrnet/w48_640_adam_lr1e-3"
CROWD_POSE = "crowd_pose/higher_hrnet/w48_640_adam_lr1e-3"
PLAIN = ("MODEL.SCALE_HEADS", "False", "LOSS.SCALE_ADAPTIVE", "False")

STAGES = (
    StageSettings(1, (1, 1), (4, 6)),
    StageSettings(1, (1, 2, 1), (4, 6, 8)),
    StageSettings(2, (1,) * 4, (4, 6, 8, 4)),
)
WIDE = (*STAGES[:2], StageSettings(1, (1,) * 4, (2, 3, 2, 2), "BOTTLENECK"))
DECONV = DeconvSettings(4, num_blocks=1)

# What the settings can ask for, beyond the published network: name -> arguments of `bare_network`.
VARIANTS: dict[str, dict] = {
    "published": {},
    "plain": {"scale_heads": False},
    "bottom-up": {"deconvs": (), "tag_channels": (3,)},
    "shared tags": {"tag_channels": (1, 0)},
    "no tags": {"tag_channels": (0, 0)},
    "two steps": {
        "deconvs": (DeconvSettings(4, 3, 1, False), DeconvSettings(5, 2, 0)),
        "tag_channels": (3, 0, 3),
    },
    "wide": {"stages": WIDE, "final_kernel": 3},
}


def bare_network(variant: str = "published", **changes: Any) -> PoseNetwork:
    """A tiny HigherHRNet of three joints as the constructors make it.

    changes: `stages` of the backbone, and arguments of the head.
    """
    standard = {"stages": STAGES, "num_joints": 3, "tag_channels": (3, 0), "deconvs": (DECONV,)}
    settings = standard | VARIANTS[variant] | changes
    backbone = HRNet(stages=settings.pop("stages"))
    return PoseNetwork(backbone, HigherHRNetHead(backbone.channels, **settings))


def network(variant: str = "published", seed: int = 0, **changes: Any) -> PoseNetwork:
    """The same in evaluation mode, with random tensors that are large enough to tell apart."""
    return randomized(bare_network(variant, **changes), seed)


def randomized(model: PoseNetwork, seed: int = 0) -> PoseNetwork:
    """The model in evaluation mode with random weights and statistics, of about unit variance."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in published_state(model).items():
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=random)
            elif tensor.is_floating_point():
                tensor.normal_(
                    0, 0.2 if tensor.dim() == 1 else tensor[0].numel() ** -0.5, generator=random
                )
    return model.eval()


def images(batch: int = 2, height: int = 64, width: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def published(name: str, *opts: str) -> CfgNode:
    return load_config(EXPERIMENTS / f"{name}.yaml", opts)
