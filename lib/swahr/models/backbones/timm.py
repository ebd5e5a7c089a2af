"""Backbones of timm (Wightman, PyTorch Image Models), joined to stride 4 by a feature pyramid.

Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017. Needs timm and torchvision,
which are imported only when such a backbone is built. No weights are downloaded: MODEL.PRETRAINED
may name a file of timm's weights, or of efficientnet_pytorch's.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from functools import partial
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from swahr.models.backbones.efficientnet_names import timm_name
from swahr.models.depthwise import depthwise_conv2d, is_depthwise, use_depthwise_gradients
from swahr.models.network import Backbone, ModelError

STRIDE = 4  # of the features


class TimmBackbone(Backbone):
    """images (B, 3, H, W) -> features (B, channels, H / 4, W / 4).

    name: a network of timm whose features have stride 4 and more, such as resnet18. channels: width
    of the feature pyramid. Weights are initialised by timm and torchvision. Raises ModelError for
    unknown names, networks that give no such features, and missing packages.
    """

    def __init__(self, name: str, channels: int = 64) -> None:
        super().__init__()
        self.body = _create(name)
        _adapt_convolutions(self.body)
        info = self.body.feature_info
        strides = info.reduction()
        if STRIDE not in strides or getattr(self.body, "output_fmt", "NCHW") != "NCHW":
            raise ModelError(
                f"timm's {name} gives features of strides {strides}; "
                f"a backbone needs convolutional features from stride {STRIDE} on"
            )
        self.first = strides.index(STRIDE)
        self.pyramid = _pyramid(info.channels()[self.first :], channels)
        self.channels = channels
        self.stride = STRIDE
        self.size_divisor = max(strides)

    def name_of_pretrained(self, name: str) -> str:
        """Files hold the names of timm, or for an EfficientNet those of efficientnet_pytorch."""
        if hasattr(self.body, "blocks"):
            name = timm_name(name, [len(stage) for stage in self.body.blocks])
        return f"body.{_name_in_body(self.body, name)}"

    def forward(self, images: Tensor) -> Tensor:
        """H and W are multiples of size_divisor."""
        features = self.body(images)[self.first :]
        levels = OrderedDict((str(level), maps) for level, maps in enumerate(features))
        return self.pyramid(levels)["0"]


def _create(name: str) -> Any:
    timm = _import_timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        known = f"; the nearest are {', '.join(near)}" if near else ""
        raise ModelError(f"timm has no network {name!r}{known}")
    try:
        return timm.create_model(name, pretrained=False, features_only=True)
    except RuntimeError as error:  # such as: features_only not implemented for ... models
        raise ModelError(f"timm's {name} cannot be a backbone: {error}") from None


def _name_in_body(body: nn.Module, name: str) -> str:
    """The body's name of a tensor that timm's whole network calls `name`.

    features_only either flattens sequences of layers (stages.0.conv.weight -> stages_0.conv.weight)
    or wraps the whole network as its one child (conv.weight -> model.conv.weight).
    """
    children = [child for child, _ in body.named_children()]
    parts = name.split(".")
    for count in range(1, len(parts)):
        child = "_".join(parts[:count])
        if child in children:
            return ".".join([child, *parts[count:]])
    return f"{children[0]}.{name}" if len(children) == 1 else name


def _adapt_convolutions(body: nn.Module) -> None:
    """Let convolutions train as `depthwise_conv2d` does, and pad by constants."""
    from timm.layers import Conv2dSame

    use_depthwise_gradients(body)
    for layer in body.modules():
        if isinstance(layer, Conv2dSame) and layer.dilation == (1, 1):
            # Unlike a bound method, it can be pickled.
            layer.forward = partial(_forward_same, layer)


def _forward_same(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution that pads as TensorFlow does, whose maps are multiples of its stride.

    The padding is then the same for every size. timm computes it from the size, with which
    exporting takes forever.
    """
    padding: list[int] = []
    for kernel, stride in zip(reversed(conv.kernel_size), reversed(conv.stride), strict=True):
        total = max(kernel - stride, 0)
        padding += [total // 2, total - total // 2]
    padded = F.pad(x, padding)
    if is_depthwise(conv):
        return depthwise_conv2d(padded, conv.weight, conv.bias, conv.stride)
    return F.conv2d(padded, conv.weight, conv.bias, conv.stride, groups=conv.groups)


def _import_timm() -> ModuleType:
    try:
        import timm
        import torchvision.ops  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"backbones of timm need a package that is missing ({error}); "
            "install it with: pip install 'swahr[timm]'"
        ) from None
    return timm


def _pyramid(in_channels: list[int], channels: int) -> nn.Module:
    """Levels {"0": (B, C_0, h, w), "1": (B, C_1, h / 2, w / 2), ...} -> the same, `channels` wide.

    Only level 0 is used, so the output convolutions of the others are dropped: they would be
    parameters without a gradient.
    """
    from torchvision.ops import FeaturePyramidNetwork

    pyramid = FeaturePyramidNetwork(in_channels, channels)
    for level in range(1, len(in_channels)):
        pyramid.layer_blocks[level] = nn.Identity()
    return pyramid


def build_timm(cfg: Any) -> TimmBackbone:
    """The backbone of MODEL.BACKBONE "timm/NAME", MODEL.EXTRA.FPN_CHANNELS wide."""
    _, _, name = cfg.MODEL.BACKBONE.partition("/")
    return TimmBackbone(name, cfg.MODEL.EXTRA.FPN_CHANNELS)
