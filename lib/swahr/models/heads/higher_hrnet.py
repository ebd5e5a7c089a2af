"""HigherHRNet (Cheng et al., CVPR 2020) with the scale heads of SWAHR (Luo et al., CVPR 2021).

For every resolution, low to high, the network gives a heatmap per keypoint, identity tags where
they are learnt (Associative Embedding, Newell et al., NIPS 2017), and a map per keypoint of how
much wider or narrower than usual its Gaussian should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from swahr.models.backbones.hrnet import HRNet, StageSettings
from swahr.models.blocks import residual_blocks
from swahr.models.network import ModelError, StageOutput

# Of a transposed convolution of stride 2: kernel -> (padding, output padding) that doubles the size
# exactly.
DECONV_PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}


class DeconvSettings(NamedTuple):
    """A step to twice the resolution: its width, kernel (4, 3 or 2), blocks, and whether it sees
    the maps so far.
    """

    num_channels: int
    kernel_size: int = 4
    num_blocks: int = 4
    cat_output: bool = True


class HigherHRNet(HRNet):
    """HRNet features, heads on them, and transposed convolutions to higher resolutions with heads
    of their own.

    stages: stages 2 to 4 of the backbone. num_joints: K.
    tag_channels: how many tag maps each resolution has: K, 1 (shared by all joints) or 0; one entry
    more than deconvs. deconvs: the steps to higher resolutions; none makes it the bottom-up HRNet.
    scale_heads: with the heads of SWAHR, or plain HigherHRNet. final_kernel: size of the
    convolutions of the heads.
    """

    def __init__(
        self,
        *,
        stages: Sequence[StageSettings],
        num_joints: int,
        tag_channels: Sequence[int],
        deconvs: Sequence[DeconvSettings] = (),
        scale_heads: bool = True,
        final_kernel: int = 1,
    ) -> None:
        super().__init__(stages=stages)
        if len(tag_channels) != len(deconvs) + 1:
            raise ModelError(
                f"tag_channels has {len(tag_channels)} entries for {len(deconvs) + 1} resolutions"
            )
        self.num_joints = num_joints
        self.tag_channels = tuple(tag_channels)
        self.cat_output = (*(deconv.cat_output for deconv in deconvs), False)
        widths = [self.num_features, *(deconv.num_channels for deconv in deconvs)]
        outputs = [num_joints + tags for tags in self.tag_channels]
        self.final_layers = nn.ModuleList(
            nn.Conv2d(width, maps, final_kernel, padding=final_kernel // 2)
            for width, maps in zip(widths, outputs)
        )
        inputs = [width + maps * cat for width, maps, cat in zip(widths, outputs, self.cat_output)]
        self.deconv_layers = nn.ModuleList(
            _deconv(width, deconv) for width, deconv in zip(inputs, deconvs)
        )
        self.conv_scale_layers = nn.ModuleList(
            _scale_head(width, num_joints) for width in widths if scale_heads
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels to a pixel of each output, low resolution to high."""
        return tuple(4 >> stage for stage in range(len(self.final_layers)))

    @property
    def size_divisor(self) -> int:
        """Of which the sides of images are multiples."""
        return self.stride

    def forward(self, images: Tensor) -> list[StageOutput]:
        """(B, 3, H, W) normalised images -> one StageOutput per resolution, H / 4 first, each twice
        the one before.

        ModelError where H or W is no multiple of self.stride.
        """
        x = self.features(images)
        outputs: list[StageOutput] = []
        for stage, final_layer in enumerate(self.final_layers):
            if stage:
                x = self.deconv_layers[stage - 1](x)
            maps = final_layer(x)
            scales = self.conv_scale_layers[stage](x) if self.conv_scale_layers else None
            tags = maps[:, self.num_joints :] if self.tag_channels[stage] else None
            outputs.append(StageOutput(scales, maps[:, : self.num_joints], tags))
            if self.cat_output[stage]:
                x = torch.cat((x, maps), 1)
        return outputs


def _deconv(in_channels: int, settings: DeconvSettings) -> nn.Sequential:
    """(B, in_channels, h, w) -> (B, num_channels, 2 h, 2 w)."""
    width = settings.num_channels
    kernel = settings.kernel_size
    if kernel not in DECONV_PADDING:
        raise ModelError(
            f"deconvolution kernel of {kernel}; it is one of {', '.join(map(str, DECONV_PADDING))}"
        )
    padding, output_padding = DECONV_PADDING[kernel]
    up = nn.ConvTranspose2d(in_channels, width, kernel, 2, padding, output_padding, bias=False)
    blocks = (residual_blocks("BASIC", width, width, 1) for _ in range(settings.num_blocks))
    return nn.Sequential(nn.Sequential(up, nn.BatchNorm2d(width), nn.ReLU(inplace=True)), *blocks)


def _scale_head(in_channels: int, num_joints: int) -> nn.Sequential:
    """(B, in_channels, h, w) -> (B, K, h, w): each joint looks at its own 9 x 9 neighbourhood
    (SWAHR, section 3.2).
    """
    spread = nn.Conv2d(num_joints, num_joints, 9, padding=4, groups=num_joints)
    project = nn.Conv2d(in_channels, num_joints, 1)
    return nn.Sequential(project, nn.BatchNorm2d(num_joints), nn.ReLU(inplace=True), spread)
