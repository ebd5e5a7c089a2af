"""The head of HigherHRNet (Cheng et al., CVPR 2020) with the scale heads of SWAHR (Luo et al.,
CVPR 2021).

For every resolution, low to high, it gives a heatmap per keypoint, identity tags where they are
learnt (Associative Embedding, Newell et al., NIPS 2017), and a scale map per keypoint: how much
wider or narrower than usual its Gaussian should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from swahr.models.blocks import init_normal, residual_blocks
from swahr.models.depthwise import DepthwiseConv2d
from swahr.models.network import Backbone, Head, ModelError, StageOutput

# Kernel of a transposed convolution of stride 2 -> padding and output padding that double the size.
DECONV_PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}


class DeconvSettings(NamedTuple):
    """One step to twice the resolution.

    num_channels: width of its features. kernel_size: 4, 3 or 2. num_blocks: residual blocks after
    it. cat_output: whether its input includes the heatmaps and tags of the resolution below.
    """

    num_channels: int
    kernel_size: int = 4
    num_blocks: int = 4
    cat_output: bool = True


class HigherHRNetHead(Head):
    """Maps at the features' resolution, and at higher ones after transposed convolutions.

    in_channels: of the features. num_joints: K. tag_channels: number of tag maps of each
    resolution: K, 1 (shared by all joints) or 0; one entry more than deconvs. deconvs: the steps to
    higher resolutions; without any it is the head of the bottom-up HRNet. scale_heads: with the
    scale maps of SWAHR, or plain HigherHRNet. final_kernel: kernel of the convolutions that give
    heatmaps and tags, px. Raises ModelError for settings that make no head.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_joints: int,
        tag_channels: Sequence[int],
        deconvs: Sequence[DeconvSettings] = (),
        scale_heads: bool = True,
        final_kernel: int = 1,
    ) -> None:
        super().__init__()
        if len(tag_channels) != len(deconvs) + 1:
            raise ModelError(
                f"tag_channels has {len(tag_channels)} entries for {len(deconvs) + 1} resolutions"
            )
        if final_kernel % 2 == 0:
            raise ModelError(f"final_kernel is {final_kernel}; it must be odd")
        self.num_joints = num_joints
        self.tag_channels = tuple(tag_channels)
        self.upsampling = tuple(2**stage for stage in range(len(tag_channels)))
        self.cat_output = (*(deconv.cat_output for deconv in deconvs), False)
        widths = [in_channels, *(deconv.num_channels for deconv in deconvs)]
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

    def init_weights(self) -> None:
        """Draw fresh weights in-place, see `init_normal`; scale maps start as exactly 0."""
        init_normal(self)
        for layers in self.conv_scale_layers:
            nn.init.zeros_(layers[-1].weight)  # type: ignore[index]

    def for_testing(self) -> None:
        """Drop the scale heads in-place: only the loss reads scale maps."""
        self.conv_scale_layers = nn.ModuleList()

    def forward(self, features: Tensor) -> list[StageOutput]:
        """(B, in_channels, h, w) -> outputs at h x w, 2h x 2w and so on."""
        x = features
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
            f"kernel_size of a deconvolution is {kernel}; "
            f"it is one of {', '.join(map(str, DECONV_PADDING))}"
        )
    padding, output_padding = DECONV_PADDING[kernel]
    up = nn.ConvTranspose2d(in_channels, width, kernel, 2, padding, output_padding, bias=False)
    blocks = (residual_blocks("BASIC", width, width, 1) for _ in range(settings.num_blocks))
    return nn.Sequential(nn.Sequential(up, nn.BatchNorm2d(width), nn.ReLU(inplace=True)), *blocks)


def _scale_head(in_channels: int, num_joints: int) -> nn.Sequential:
    """(B, in_channels, h, w) -> (B, K, h, w); each joint sees its own 9 x 9 neighbourhood.

    SWAHR, section 3.2.
    """
    spread = DepthwiseConv2d(num_joints, kernel_size=9)
    project = nn.Conv2d(in_channels, num_joints, 1)
    return nn.Sequential(project, nn.BatchNorm2d(num_joints), nn.ReLU(inplace=True), spread)


def build_higher_hrnet(cfg: Any, backbone: Backbone) -> HigherHRNetHead:
    """The head of MODEL.* and MODEL.EXTRA.DECONV, with tags where LOSS.WITH_AE_LOSS."""
    deconv = cfg.MODEL.EXTRA.DECONV
    count = deconv.NUM_DECONVS
    joints = cfg.MODEL.NUM_JOINTS
    tags = joints if cfg.MODEL.TAG_PER_JOINT else 1
    return HigherHRNetHead(
        backbone.channels,
        num_joints=joints,
        tag_channels=[tags if learnt else 0 for learnt in cfg.LOSS.WITH_AE_LOSS[: count + 1]],
        deconvs=[
            DeconvSettings(
                deconv.NUM_CHANNELS[step],
                deconv.KERNEL_SIZE[step],
                deconv.NUM_BASIC_BLOCKS,
                deconv.CAT_OUTPUT[step],
            )
            for step in range(count)
        ],
        scale_heads=cfg.MODEL.SCALE_HEADS,
        final_kernel=cfg.MODEL.EXTRA.FINAL_CONV_KERNEL,
    )
