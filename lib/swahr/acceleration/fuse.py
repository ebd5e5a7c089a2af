"""A copy of the network for testing: the same heatmaps and tags, sooner.

In evaluation a batch norm is a fixed scale and shift, so it can be part of the convolution before
it; the scale heads only serve the loss and are left out. On a CPU, bias, shortcut and ReLU are then
applied where the convolution's result is still at hand. Most 3x3 convolutions are those of
winograd.py, the others oneDNN's, whose weights are laid out once instead of in every call.
"""

from __future__ import annotations

import copy
import platform
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from swahr.acceleration import winograd
from swahr.models.backbones.hrnet import HighResolutionModule
from swahr.models.blocks import BasicBlock, Bottleneck
from swahr.models.heads.higher_hrnet import HigherHRNet


def optimize_for_inference(
    model: HigherHRNet, channels_last: bool = True, dtype: torch.dtype = torch.float32
) -> HigherHRNet:
    """A copy, in evaluation mode, whose outputs are those of model.eval() up to rounding, with
    scales None.

    channels_last: lay weights out as NHWC, which oneDNN and tensor cores prefer; images may come in
    either layout. dtype: of the weights, and so of images and maps; see `supports_dtype`. The copy
    cannot be trained. For torch.compile, which fuses by itself, take fold_batch_norms instead.
    """
    fast = fold_batch_norms(model).to(dtype)
    if channels_last:
        fast = fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fast.conv1.weight.device.type == "cpu" and _has_fused_convolutions():
        _fuse(fast)
    return fast


@cache
def supports_dtype(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a network on the device can have weights of that type, which autocast would round
    anew in every pass.
    """
    if device.type == "cpu":
        return dtype == torch.float32 or (
            dtype == torch.bfloat16
            and _has_fused_convolutions()
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    return device.type == "cuda"


def fold_batch_norms(model: HigherHRNet) -> HigherHRNet:
    """A copy, in evaluation mode, without batch norms and scale heads.

    A batch norm is folded into the convolution registered right before it, as all of them follow
    one:
    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    folded.conv_scale_layers = nn.ModuleList()
    for parent in list(folded.modules()):
        children = list(parent.named_children())
        for (_, conv), (name, norm) in zip(children, children[1:], strict=False):
            if isinstance(norm, _BatchNorm) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                mean = cast(Tensor, norm.running_mean)
                variance = cast(Tensor, norm.running_var)
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    mean,
                    variance,
                    norm.eps,
                    norm.weight,
                    norm.bias,
                    transpose=isinstance(conv, nn.ConvTranspose2d),
                )
                setattr(parent, name, nn.Identity())
    return folded


def _has_fused_convolutions() -> bool:
    """Whether this PyTorch has oneDNN for x86, which torch.compile's operations used below are made
    for.
    """
    return platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()


class _FusedConv(nn.Module):
    """Convolution, then an optional sum, then an optional ReLU, in one pass: (B, C, h, w) -> (B,
    C', h', w').
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.relu = relu
        self.geometry = (
            list(cast(tuple[int, int], conv.padding)),
            list(conv.stride),
            list(conv.dilation),
            conv.groups,
        )
        self.packed: Tensor | None = None  # the weights in oneDNN's own layout
        self.filters: winograd.Filters | None = (
            None  # and those of winograd.py, which leaves small maps to oneDNN
        )

    def forward(self, x: Tensor, total: Tensor | None = None) -> Tensor:
        """`total`, where given, is added to the result, and is overwritten with it."""
        if (
            x.device.type != "cpu"
            or not supports_dtype(x.dtype, x.device)
            or torch.is_autocast_enabled("cpu")
        ):
            out = self.conv(x) if total is None else self.conv(x).add_(total)
            return F.relu_(out) if self.relu else out
        if winograd.can_convolve(self.conv, x, total):
            self.filters = self.filters or winograd.transform_filters(self.conv.weight.detach())
            return winograd.convolve(
                x, self.filters, cast(Tensor, self.conv.bias), total, self.relu
            )
        if self.packed is None or self.packed.dtype != x.dtype:
            # The best layout depends on the size of the input; mostly the first one fits all.
            weight = self.conv.weight.detach()
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(
                weight, *self.geometry, list(x.shape)
            )
        weights = (self.packed, self.conv.bias, *self.geometry)
        relu = "relu" if self.relu else None
        if total is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *weights, relu or "none", [], "")
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, *weights, "add", 1.0, relu, [], ""
        )


class _FusedBlock(nn.Module):
    """A residual block; its result overwrites its input where the shortcut is the identity."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        convs = [conv for name, conv in block.named_children() if name.startswith("conv")]
        self.convs = nn.Sequential(
            *(_FusedConv(cast(nn.Conv2d, conv), relu=True) for conv in convs)
        )
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        total = x if self.downsample is None else self.downsample(x)
        *first, last = self.convs
        for conv in first:
            x = conv(x)
        return last(x, total)


class _FusedModule(nn.Module):
    """HighResolutionModule with the same sums in an order that needs fewer passes over the larger
    maps.

    Nearest neighbours by 4 are those by 2 of those by 2, so lower branches are added up on their
    way to the higher one.
    """

    def __init__(self, module: HighResolutionModule) -> None:
        super().__init__()
        self.branches = module.branches
        self.fuse_layers = module.fuse_layers  # with _FusedConv first in each group

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        return [self._sum(features, target) for target in range(len(self.fuse_layers))]

    def _sum(self, features: list[Tensor], target: int) -> Tensor:
        layers = cast(list[nn.Sequential], self.fuse_layers[target])
        total = None
        for source in range(len(features) - 1, target, -1):
            total = F.interpolate(
                layers[source][0](features[source], total), scale_factor=2.0, mode="nearest"
            )
        for source in range(target):
            *halvings, (last, _) = cast(list[nn.Sequential], layers[source])
            x = features[source]
            for halving in halvings:
                x = halving(x)
            total = last(x, total)
        return F.relu_(features[target].clone() if total is None else total.add_(features[target]))


def _fuse(model: HigherHRNet) -> None:
    """In place: put what follows each convolution of a folded model into it."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BasicBlock | Bottleneck):
                setattr(parent, name, _FusedBlock(child))
            elif isinstance(child, HighResolutionModule):
                setattr(parent, name, _FusedModule(child))
        if isinstance(parent, nn.Sequential) and len(parent) and isinstance(parent[0], nn.Conv2d):
            activations = [
                index for index, layer in enumerate(parent) if isinstance(layer, nn.ReLU)
            ]
            parent[0] = _FusedConv(parent[0], relu=bool(activations))
            for index in activations:
                parent[index] = nn.Identity()
    for name in ("conv1", "conv2"):
        setattr(model, name, _FusedConv(getattr(model, name), relu=True))
    setattr(model, "relu", nn.Identity())  # noqa: B010 (it is declared as a ReLU)
