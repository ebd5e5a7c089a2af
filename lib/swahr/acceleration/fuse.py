"""A copy of the network for testing: the same heatmaps and tags, faster.

In evaluation a batch norm is a fixed scale and shift, so it can be part of the convolution before
it. Parts of the head that only the loss reads are dropped. On a CPU, bias, shortcut and ReLU are
applied while the convolution's result is in the cache. Most 3x3 convolutions are those of
winograd.py; the others are oneDNN's, whose weights are reordered once instead of in every call. On
a GPU cuDNN can apply them too, see `can_fuse_by_cudnn`.

Modules are only changed where their own code says in which order they run: nn.Sequential, the
residual blocks and HRNet. All others, such as those of a network of your own, stay as they are.
"""

from __future__ import annotations

import copy
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from swahr.acceleration import winograd
from swahr.models.backbones.hrnet import HighResolutionModule, HRNet
from swahr.models.blocks import BasicBlock, Bottleneck
from swahr.models.network import PoseNetwork, StageOutput, use_channels_last

logger = logging.getLogger("swahr")

Network = TypeVar("Network", bound=nn.Module)

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
# Largest difference of a fused network that counts as rounding, in units of its largest value.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
# The same in units of the largest difference that the unfused network has in a shorter type. A
# trained network gives low heatmaps for a random image, so rounding is large beside them.
ROUNDINGS = 4


def optimize_for_inference(
    model: PoseNetwork,
    channels_last: bool = True,
    dtype: torch.dtype = torch.float32,
    cudnn: bool = False,
) -> PoseNetwork:
    """A copy, in evaluation mode, whose outputs are those of model.eval() up to rounding.

    channels_last: weights in the NHWC layout, which oneDNN and tensor cores prefer; images may have
    either layout. dtype: of the weights, and so of images and maps; see `supports_dtype`. cudnn: on
    a GPU, cuDNN adds shortcuts and applies ReLUs, where it can. The copy gives no maps that only
    the loss reads, and cannot be trained. For torch.compile, which fuses by itself, use
    fold_batch_norms instead.
    """
    fast = fold_batch_norms(model).to(dtype)
    if channels_last:
        use_channels_last(fast)
    parameter = next(fast.parameters(), None)
    if parameter is None:
        return fast
    if parameter.device.type == "cpu" and _has_fused_convolutions():
        _fuse_children(fast)
        winograd.make_forks_safe()
    elif parameter.device.type == "cuda" and cudnn and can_fuse_by_cudnn(parameter.device, dtype):
        _fuse_children(fast)
        for conv in _fused_convolutions(fast):
            conv.by_cudnn = True
    return fast


def _fused_convolutions(model: nn.Module) -> Iterator[_FusedConv]:
    return (module for module in model.modules() if isinstance(module, _FusedConv))


@cache
def can_fuse_by_cudnn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether cuDNN's convolutions with a sum and a ReLU compute on the device what PyTorch's do.

    One of each is compared once per process; a warning says what is wrong.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        maps = torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
        return maps.to(device, dtype)

    conv = nn.Conv2d(64, 64, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = _FusedConv(conv, relu=True)
    fused.by_cudnn = True
    x, total = (
        random(1, 64, 16, 16).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    try:
        with torch.inference_mode():
            plain = conv(x)
            for output, expected in (
                (fused(x), plain.relu()),
                (fused(x, total.clone()), (plain + total).relu()),
            ):
                error = float((output - expected).abs().max())
                if not error <= 0.02 * float(expected.abs().max()):
                    raise ValueError(f"it differs from PyTorch's by up to {error:.2g}")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        logger.warning("TEST.CUDNN_FUSE: cuDNN's fused convolutions are not used: %s", reason)
        return False
    return True


@cache
def supports_dtype(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether weights on the device can have that type.

    Otherwise autocast has to convert them in every pass.
    """
    if device.type == "cpu":
        return dtype == torch.float32 or (
            dtype == torch.bfloat16
            and _has_fused_convolutions()
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    return device.type == "cuda"


def verified(fast: Network, plain: Network, size: tuple[int, int]) -> Network:
    """`fast` if it computes what `plain` computes, else `plain` and a warning.

    Both see one random image of `size` (h, w), px. Maps that `fast` does not give are not compared.
    If the weights of `fast` have another type than float32, so have those of the network returned.
    """
    dtype = next((p.dtype for p in fast.parameters() if p.is_floating_point()), torch.float32)
    device = next((p.device for p in fast.parameters()), torch.device("cpu"))
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        with torch.inference_mode(), _without_tf32():
            expected = plain(image)
            outputs = fast(image.to(dtype))
            problem = _difference(outputs, expected, dtype)
            if problem and dtype != torch.float32:
                rounded = copy.deepcopy(plain).to(dtype)(image.to(dtype))
                problem = _difference(outputs, expected, dtype, rounded)
    except Exception as error:  # whatever the modules of a user's network raise
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    if not problem:
        return fast
    logger.warning(
        "fusing layers changes what this network computes, so it is used unfused: %s", problem
    )
    return plain if dtype == torch.float32 else copy.deepcopy(plain).to(dtype)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """cuDNN in full float32, as TF32 rounds folded weights otherwise than plain ones."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _difference(
    outputs: Sequence[StageOutput],
    expected: Sequence[StageOutput],
    dtype: torch.dtype,
    rounded: Sequence[StageOutput] = (),
) -> str:
    """What differs by more than rounding; empty if nothing does.

    rounded: outputs of the unfused network in `dtype`, from which rounding is told.
    """
    if len(outputs) != len(expected):
        return f"{len(outputs)} resolutions instead of {len(expected)}"
    tolerance = TOLERANCE.get(dtype, 1e-3)
    for stage, (output, reference) in enumerate(zip(outputs, expected)):
        wanted = dict(_named_maps(reference))
        given = dict(_named_maps(output))
        if missing := {"heatmaps", "tags"} & (wanted.keys() - given.keys()):
            return f"no {min(missing)} at stage {stage}"
        for name, maps in given.items():
            if name not in wanted or maps.shape != wanted[name].shape:
                return f"{name} of another shape at stage {stage}"
            largest = float(wanted[name].abs().max()) if wanted[name].numel() else 0.0
            limit = tolerance * largest + torch.finfo(dtype).smallest_normal
            if rounded:
                unfused = dict(_named_maps(rounded[stage]))[name]
                rounding = float((unfused.float() - wanted[name]).abs().max())
                limit = max(limit, ROUNDINGS * rounding)  # the limit stays where rounding is NaN
            error = (maps.float() - wanted[name]).abs()
            both_nan = maps.isnan() & wanted[name].isnan()
            if not bool(((error <= limit) | both_nan).all()):
                return (
                    f"{name} of stage {stage} differ by up to {float(error.max()):.2g}, "
                    f"the largest is {largest:.2g}"
                )
    return ""


def _named_maps(stage: StageOutput) -> Iterator[tuple[str, Tensor]]:
    for name, maps in (
        ("scales", stage.scales),
        ("heatmaps", stage.heatmaps),
        ("tags", stage.tags),
        *(stage.extra or {}).items(),
    ):
        if maps is not None:
            yield name, maps


def fold_batch_norms(model: PoseNetwork) -> PoseNetwork:
    """A copy, in evaluation mode, whose batch norms are part of the convolution before them.

    The parts of the head that testing does not need are dropped. Norms stay where it is not certain
    that they run directly after a convolution. With mean m, variance v, weight g and bias beta:
    w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    folded.head.for_testing()
    names = {module: name for name, module in folded.named_modules()}
    norms: dict[nn.Module, str] = {}
    uses: dict[nn.Module, int] = {}
    for _, module in folded.named_modules(remove_duplicate=False):
        uses[module] = uses.get(module, 0) + 1
    for parent in list(folded.modules()):
        for conv, name in _followed_by_norm(parent):
            norm = parent.get_submodule(name)
            if _can_fold(conv, norm) and uses[conv] == uses[norm] == 1:
                layer = cast(nn.Conv2d, conv)
                layer.weight, layer.bias = _fold(layer, cast(nn.BatchNorm2d, norm))
                setattr(parent, name, nn.Identity())
                norms[conv] = names[norm]
    folded.origins = [  # type: ignore[assignment]
        Origin(module, names[module], norms.get(module, ""))
        for module in folded.modules()
        if module in names
    ]
    return folded


class Origin(NamedTuple):
    """Where the weights of a module of a folded network come from: the names of the module, and of
    the norm that became a part of it, in the network that is trained.
    """

    module: nn.Module
    name: str
    norm: str


@torch.no_grad()
def refresh(fast: PoseNetwork, model: PoseNetwork) -> bool:
    """Give a copy of fold_batch_norms or optimize_for_inference the weights that the model has now.

    What was compiled or recorded for the copy stays valid. False where the copy's modules do not
    have the model's names and shapes; it must be made again then.
    """
    modules = dict(model.named_modules())
    for origin in getattr(fast, "origins", ()):
        if origin.name not in modules or (origin.norm and origin.norm not in modules):
            return False
        own = _own_tensors(origin.module)
        source = modules[origin.name]
        if any(own[name].shape != tensor.shape for name, tensor in _shared(own, source)):
            return False
        given = _folded_tensors(source, modules[origin.norm] if origin.norm else None)
        if own.keys() - given.keys():
            return False
        for name, tensor in own.items():
            tensor.copy_(given[name])
    for conv in _fused_convolutions(fast):
        conv.forget_layouts()
    return hasattr(fast, "origins")


def _shared(own: Mapping[str, Tensor], source: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a module whose names are among those of `own`."""
    return ((name, tensor) for name, tensor in _own_tensors(source).items() if name in own)


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    parameters = dict(module.named_parameters(recurse=False))
    return {**parameters, **dict(module.named_buffers(recurse=False))}


def _folded_tensors(module: nn.Module, norm: nn.Module | None) -> dict[str, Tensor]:
    """The tensors of a module, with the norm behind it, if there is one, as a part of it."""
    if norm is None:
        return _own_tensors(module)
    weight, bias = _fold(cast(nn.Conv2d, module), cast(nn.BatchNorm2d, norm))
    return {"weight": weight, "bias": bias}


def _followed_by_norm(parent: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Modules that `parent` applies directly before another one, with the name of the latter."""
    if type(parent) is nn.Sequential:
        children = list(parent.named_children())
        for (_, module), (name, _) in zip(children, children[1:], strict=False):
            yield module, name
    elif type(parent) in (BasicBlock, Bottleneck, HRNet):
        for name, module in parent.named_children():
            if name.startswith("conv"):
                yield module, name.replace("conv", "bn")


def _can_fold(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        (type(conv) is nn.Conv2d or (type(conv) is nn.ConvTranspose2d and conv.groups == 1))
        and type(norm) in NORMS
        and isinstance(norm.running_mean, Tensor)
        and isinstance(norm.running_var, Tensor)
        and not _has_hooks(conv)
        and not _has_hooks(norm)
    )


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """The weight and the bias of both together."""
    return fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        cast(Tensor, norm.running_mean),
        cast(Tensor, norm.running_var),
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(conv, nn.ConvTranspose2d),
    )


def _has_hooks(module: nn.Module) -> bool:
    """Such as those of weight norm, which compute the weight anew in every pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


@cache
def _has_fused_convolutions() -> bool:
    """Whether this PyTorch has oneDNN for x86, for which torch.compile's operations are made."""
    return platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()


class _FusedConv(nn.Module):
    """Convolution, then an optional sum, then an optional ReLU, in one pass.

    (B, C, h, w) -> (B, C', h', w').
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.relu = relu
        self.by_cudnn = False  # on a GPU, where `can_fuse_by_cudnn`
        self.geometry = (
            list(cast(tuple[int, int], conv.padding)),
            list(conv.stride),
            list(conv.dilation),
            conv.groups,
        )
        self.forget_layouts()

    def forget_layouts(self) -> None:
        """The weights have changed: other layouts of them are made at the next call."""
        self.packed: Tensor | None = None  # the weights in oneDNN's own layout
        self.filters: winograd.Filters | None = None  # the weights transformed by winograd.py

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> nn.Module:
        """Weights that are moved or converted need other layouts."""
        self.forget_layouts()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles without the layouts, which are made again at the first call."""
        return self.__dict__ | {"packed": None, "filters": None}

    def forward(self, x: Tensor, total: Tensor | None = None) -> Tensor:
        """`total`, if given, is added to the result, and may be overwritten with it."""
        if self.by_cudnn and self.relu and x.device.type == "cuda":
            return self._by_cudnn(x, total)
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
            # The best layout depends on the input size; mostly the first one fits all sizes.
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

    def _by_cudnn(self, x: Tensor, total: Tensor | None) -> Tensor:
        weight = self.conv.weight
        bias = self.conv.bias
        padding, stride, dilation, groups = self.geometry
        if total is None:
            return torch.cudnn_convolution_relu(x, weight, bias, stride, padding, dilation, groups)
        return torch.cudnn_convolution_add_relu(
            x, weight, total, 1.0, bias, stride, padding, dilation, groups
        )


class _FusedBlock(nn.Module):
    """A residual block.

    in_place: the result overwrites the input if the shortcut is the identity. Only for blocks whose
    input nothing else reads.
    """

    def __init__(self, block: BasicBlock | Bottleneck, in_place: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(_FusedConv(conv, relu=True) for conv in _convs_of(block)))
        self.downsample = block.downsample
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            total = self.downsample(x)
        else:
            total = x if self.in_place else x.clone()
        *first, last = self.convs
        for conv in first:
            x = conv(x)
        return last(x, total)


class _FusedModule(nn.Module):
    """HighResolutionModule with its sums in an order that needs fewer passes over the larger maps.

    Nearest neighbours by 4 are those by 2 of those by 2, so lower branches are added up on their
    way to the higher one.
    """

    def __init__(self, module: HighResolutionModule) -> None:
        super().__init__()
        self.branches = module.branches
        self.fuse_layers = module.fuse_layers  # each group starts with a _FusedConv

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


def _fused(module: nn.Module, owns_input: bool = False) -> nn.Module:
    """What takes the module's place; its children are replaced in-place.

    owns_input: nothing else reads the module's input, so it may be overwritten.
    """
    if isinstance(module, BasicBlock | Bottleneck) and _is_unmodified_block(module):
        _fuse_children(module)  # the projection of its shortcut
        return _FusedBlock(module, in_place=owns_input)
    if type(module) is HighResolutionModule and _is_unmodified_module(module):
        _fuse_children(module.fuse_layers)
        for index, branch in enumerate(module.branches):
            module.branches[index] = _fused(branch, owns_input)
        return _FusedModule(module)
    if type(module) is nn.Sequential:
        _fuse_sequence(module, owns_input)
    elif type(module) is HRNet and _is_unmodified_hrnet(module):
        _fuse_hrnet(module)
    else:
        _fuse_children(module)
    return module


def _fuse_children(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        replacement = _fused(child)
        if replacement is not child:
            setattr(module, name, replacement)


def _fuse_sequence(layers: nn.Sequential, owns_input: bool) -> None:
    """Fuse each convolution with a ReLU directly behind it, and the layers inside the others."""
    for index, layer in enumerate(layers):
        layers[index] = _fused(layer, owns_input)
        owns_input = owns_input or _allocates(layer)
    for index, layer in enumerate(layers):
        if not _is_plain(layer):
            continue
        behind = index + 1
        while behind < len(layers) and type(layers[behind]) is nn.Identity:
            behind += 1  # a batch norm that was folded
        relu = behind < len(layers) and _is_relu(layers[behind])
        layers[index] = _FusedConv(cast(nn.Conv2d, layer), relu)
        if relu:
            layers[behind] = nn.Identity()


def _fuse_hrnet(model: HRNet) -> None:
    """Every feature map of HRNet is read once after it was handed on, so all may be overwritten."""
    for name, child in list(model.named_children()):
        if name in ("layer1", "stage2", "stage3", "stage4"):
            layers = cast(nn.Sequential, child)
            for index, layer in enumerate(layers):
                layers[index] = _fused(layer, owns_input=True)
        else:
            setattr(model, name, _fused(child))
    for name in ("conv1", "conv2"):
        setattr(model, name, _FusedConv(getattr(model, name), relu=True))
    setattr(model, "relu", nn.Identity())  # noqa: B010 (it is declared as a ReLU)


def _is_unmodified_hrnet(model: HRNet) -> bool:
    """Whether the parts that forward calls are those of the constructor, with folded norms."""
    stages = (model.stage2, model.stage3, model.stage4)
    transitions = (model.transition1, model.transition2, model.transition3)
    return (
        _is_plain(model.conv1)
        and _is_plain(model.conv2)
        and type(model.bn1) is nn.Identity
        and type(model.bn2) is nn.Identity
        and _is_relu(model.relu)
        and type(model.layer1) is nn.Sequential
        and all(type(stage) is nn.Sequential for stage in stages)
        and all(type(module) is HighResolutionModule for stage in stages for module in stage)
        and all(
            type(layer) in (nn.Identity, nn.Sequential)
            for transition in transitions
            for layer in transition
        )
    )


def _is_unmodified_block(block: BasicBlock | Bottleneck) -> bool:
    convs = _convs_of(block)
    norms = [child for name, child in block.named_children() if name.startswith("bn")]
    return (
        type(block) in (BasicBlock, Bottleneck)
        and len(convs) == len(norms) == (2 if type(block) is BasicBlock else 3)
        and all(_is_plain(conv) for conv in convs)
        and all(type(norm) is nn.Identity for norm in norms)
        and _is_relu(block.relu)
        and not _has_hooks(block)
    )


def _convs_of(block: BasicBlock | Bottleneck) -> list[nn.Conv2d]:
    return [
        cast(nn.Conv2d, child) for name, child in block.named_children() if name.startswith("conv")
    ]


def _is_unmodified_module(module: HighResolutionModule) -> bool:
    return (
        _is_relu(module.relu)
        and not _has_hooks(module)
        and all(
            _is_exchange(layer, source, target)
            for target, layers in enumerate(module.fuse_layers)
            for source, layer in enumerate(cast(nn.ModuleList, layers))
        )
    )


def _is_exchange(layer: nn.Module, source: int, target: int) -> bool:
    """Whether the layers from branch `source` to `target` are those of HighResolutionModule."""
    if source == target:
        return type(layer) is nn.Identity
    if type(layer) is not nn.Sequential:
        return False
    if source > target:
        return (
            _types(layer) == [nn.Conv2d, nn.Identity, nn.Upsample]
            and _is_plain(layer[0])
            and layer[2].mode == "nearest"
            and layer[2].scale_factor == 2 ** (source - target)
        )
    conv_relu = [nn.Conv2d, nn.Identity, nn.ReLU]
    wanted = [conv_relu] * (target - source - 1) + [conv_relu[:2]]
    steps = cast(list[nn.Sequential], list(layer))
    return [_types(step) for step in steps] == wanted and all(_is_plain(step[0]) for step in steps)


def _types(layers: nn.Module) -> list[type[nn.Module]]:
    return [type(layer) for layer in layers.children()]


def _is_plain(layer: nn.Module) -> bool:
    """A convolution padded with zeros; its weight is a parameter, not computed by a hook."""
    return (
        type(layer) is nn.Conv2d
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and not _has_hooks(layer)
    )


def _is_relu(layer: nn.Module) -> bool:
    return type(layer) is nn.ReLU and not _has_hooks(layer)


def _allocates(layer: nn.Module) -> bool:
    """Whether the layer's output never shares memory with its input."""
    if type(layer) is nn.Sequential:
        return any(_allocates(part) for part in layer)
    return type(layer) in (
        nn.Conv2d,
        nn.ConvTranspose2d,
        nn.BatchNorm2d,
        BasicBlock,
        Bottleneck,
        _FusedConv,
        _FusedBlock,
    )
