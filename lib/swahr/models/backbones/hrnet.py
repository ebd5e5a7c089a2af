"""HRNet: parallel branches of falling resolution that exchange their features.

Sun et al., CVPR 2019; Wang et al., TPAMI 2020. Branch b works at 1 / 2^(2 + b) of the image's size.
Attribute names and the order of modules are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from swahr.models.blocks import BLOCKS, conv_bn, init_normal, residual_blocks
from swahr.models.network import Backbone, ModelError

STEM_CHANNELS = 64


class StageSettings(NamedTuple):
    """The settings of one stage.

    num_blocks and num_channels have an entry for each branch, highest resolution first.
    """

    num_modules: int
    num_blocks: tuple[int, ...]
    num_channels: tuple[int, ...]
    block: str = "BASIC"

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of each branch."""
        return tuple(channels * BLOCKS[self.block].expansion for channels in self.num_channels)


class HighResolutionModule(nn.Module):
    """Residual blocks on every branch, then an exchange between the branches.

    Each output is the sum of all branches, resized to its resolution. Takes a list of
    (B, C_b, h / 2^b, w / 2^b) and returns the first `num_outputs` entries of such a list.
    """

    def __init__(self, in_channels: Sequence[int], stage: StageSettings, num_outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            residual_blocks(stage.block, width, channels, count)
            for width, channels, count in zip(
                in_channels, stage.num_channels, stage.num_blocks, strict=True
            )
        )
        sources = range(len(stage.widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_exchange(stage.widths, source, target) for source in sources)
            for target in range(num_outputs)
        )
        self.relu = nn.ReLU()

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        return [
            self.relu(_sum_of(cast(nn.ModuleList, layers), features)) for layers in self.fuse_layers
        ]


def _sum_of(layers: nn.ModuleList, features: list[Tensor]) -> Tensor:
    return reduce(torch.add, (layer(x) for layer, x in zip(layers, features, strict=True)))


def _exchange(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Layers from the width and resolution of branch `source` to those of branch `target`."""
    if source == target:
        return nn.Identity()
    if source > target:
        projection = conv_bn(widths[source], widths[target], kernel=1, relu=False)
        return projection.append(nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"))
    halvings = [
        conv_bn(widths[source], widths[source], stride=2) for _ in range(target - source - 1)
    ]
    return nn.Sequential(*halvings, conv_bn(widths[source], widths[target], stride=2, relu=False))


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """Layers from the branches of one stage to those of the next.

    Existing branches change their width; new branches are made from the lowest resolution.
    """
    layers: list[nn.Module] = [
        nn.Identity() if old == new else conv_bn(old, new) for old, new in zip(before, after)
    ]
    for new in range(len(before), len(after)):
        halvings = [conv_bn(before[-1], before[-1], stride=2) for _ in range(new - len(before))]
        layers.append(nn.Sequential(*halvings, conv_bn(before[-1], after[new], stride=2)))
    return nn.ModuleList(layers)


def _apply_transition(layers: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
    return [layer(features[min(branch, len(features) - 1)]) for branch, layer in enumerate(layers)]


def _stage(in_channels: Sequence[int], stage: StageSettings, num_outputs: int) -> nn.Sequential:
    """All modules of a stage; only the last may return fewer branches than there are."""
    inputs = [in_channels] + [stage.widths] * (stage.num_modules - 1)
    outputs = [len(stage.widths)] * (stage.num_modules - 1) + [num_outputs]
    return nn.Sequential(
        *(HighResolutionModule(widths, stage, count) for widths, count in zip(inputs, outputs))
    )


class HRNet(Backbone):
    """The backbone up to its features at a quarter of the image's size.

    stages: the settings of stages 2, 3 and 4. stem_blocks: residual blocks before them, 4 as
    published. Unlike the classification network, stage 4 returns its highest resolution only.
    Raises ModelError for settings that make no network.
    """

    def __init__(self, *, stages: Sequence[StageSettings], stem_blocks: int = 4) -> None:
        super().__init__()
        _check(stages, stem_blocks)
        stage2, stage3, stage4 = stages
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_blocks("BOTTLENECK", STEM_CHANNELS, 64, stem_blocks)
        self.transition1 = _transition([256], stage2.widths)
        self.stage2 = _stage(stage2.widths, stage2, len(stage2.widths))
        self.transition2 = _transition(stage2.widths, stage3.widths)
        self.stage3 = _stage(stage3.widths, stage3, len(stage3.widths))
        self.transition3 = _transition(stage3.widths, stage4.widths)
        self.stage4 = _stage(stage4.widths, stage4, 1)
        self.channels = stage4.widths[0]
        self.stride = 4
        self.size_divisor = 4 * 2 ** (len(stage4.widths) - 1)  # stride of the lowest resolution

    def init_weights(self) -> None:
        """Draw fresh weights in-place, see `init_normal`."""
        init_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H / 4, W / 4); H and W are multiples of size_divisor."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        branches = [self.layer1(x)]
        branches = self.stage2(_apply_transition(self.transition1, branches))
        branches = self.stage3(_apply_transition(self.transition2, branches))
        return self.stage4(_apply_transition(self.transition3, branches))[0]


def _check(stages: Sequence[StageSettings], stem_blocks: int) -> None:
    if stem_blocks < 1:
        raise ModelError(f"stem_blocks is {stem_blocks}; it must be at least 1")
    if len(stages) != 3:
        raise ModelError(f"stages has {len(stages)} entries; HRNet needs those of stages 2, 3, 4")
    for branches, stage in enumerate(stages, 2):  # stage n has n branches
        name = f"stage {branches}"
        if stage.block not in BLOCKS:
            raise ModelError(f"{name}: block is {stage.block!r}; it is one of {', '.join(BLOCKS)}")
        if stage.num_modules < 1:
            raise ModelError(f"{name}: num_modules is {stage.num_modules}; it must be at least 1")
        for key, values in (("num_blocks", stage.num_blocks), ("num_channels", stage.num_channels)):
            if len(values) != branches or min(values) < 1:
                raise ModelError(
                    f"{name}: {key} is {list(values)}; "
                    f"it must have {branches} entries of at least 1"
                )


def build_hrnet(cfg: Any) -> HRNet:
    """The HRNet of MODEL.EXTRA.STEM_BLOCKS, STAGE2, STAGE3 and STAGE4."""
    stages = [cfg.MODEL.EXTRA[f"STAGE{number}"] for number in (2, 3, 4)]
    return HRNet(
        stem_blocks=cfg.MODEL.EXTRA.STEM_BLOCKS,
        stages=[
            StageSettings(
                stage.NUM_MODULES, tuple(stage.NUM_BLOCKS), tuple(stage.NUM_CHANNELS), stage.BLOCK
            )
            for stage in stages
        ],
    )
