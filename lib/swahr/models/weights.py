"""Fresh weights (HigherHRNet's initialisation), and weights out of files: published, of ImageNet
backbones, our own.

Files are read with weights_only=True, so nothing in them is ever run. Whatever is wrong with one is
said in one line.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from swahr.models.heads.higher_hrnet import HigherHRNet

# The parts of the network whose shapes follow from the keypoints; the rest is the backbone, which
# data sets share.
HEADS = ("final_layers", "deconv_layers", "conv_scale_layers")
# What DistributedDataParallel and torch.compile put in front of every name.
WRAPPERS = ("module.", "_orig_mod.")


class CheckpointError(ValueError):
    """A file of weights that cannot be used; the message says which file, what is wrong and what
    would fit.
    """


class PretrainedReport(NamedTuple):
    """How many of a file's tensors were taken, or left out: heads of another shape, and what was
    not asked for.

    total: tensors of the network.
    """

    taken: int
    reshaped: int
    unasked: int
    total: int

    def __str__(self) -> str:
        return (
            f"took {self.taken} of the network's {self.total} tensors; left out {self.reshaped} of another shape "
            f"and {self.unasked} that the network lacks or PRETRAINED_LAYERS does not name"
        )


@torch.no_grad()
def init_weights(model: nn.Module) -> None:
    """In place: convolutions drawn from N(0, 0.001^2), biases 0, batch norms 1 and 0; scale maps
    start as exactly 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        if re.fullmatch(r"conv_scale_layers\.\d+\.3", name):
            nn.init.zeros_(module.get_parameter("weight"))


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors, on the CPU, of a bare state_dict, of {'state_dict': ...}, or of either
    from a wrapped model.

    Raises CheckpointError for files that are missing, cut short, no checkpoint, or hold more than
    plain data.
    """
    content = _read(Path(path))
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: is a {type(content).__name__}, not the weights of a network by name"
        )
    if not content:
        raise CheckpointError(f"{path}: holds no weights at all")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: entry {str(name)[:80]!r} is of type {type(value).__name__}, not a tensor; "
                "files of weights hold names and tensors, or have them under 'state_dict'"
            )
    return _unwrapped(content)


def _read(path: Path) -> object:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: {'is a folder, not a file of weights' if path.is_dir() else 'no such file'}"
        )
    try:
        plain = _is_plain_archive(path)
        if plain:
            verify_checksums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are refused a line later
            # Mapped, a file of any size takes no memory until its tensors have proved to be the
            # network's.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=plain)
    except CheckpointError:
        raise
    except PermissionError:
        raise CheckpointError(f"{path}: may not be read by this user") from None
    except (
        Exception
    ) as error:  # torch.load answers damaged files with whatever its many readers happen to raise
        code = re.search(r"GLOBAL `?([\w.]+)", str(error))
        if code:
            problem = f"refused: it holds Python objects ({code[1]}) that could run code; only plain tensors are read"
        else:
            problem = "no PyTorch checkpoint, or only a part of one (was the download or the copy cut short?)"
        raise CheckpointError(f"{path}: {problem}") from None


def verify_checksums(path: Path) -> None:
    """CheckpointError where a byte of PyTorch's archive is not the one that was written; torch.load
    takes any.

    Nothing is said of files that are no such archives: torch.load notices that itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return
    if damaged:
        raise CheckpointError(
            f"{path}: damaged: the bytes of {damaged} do not have the checksum they were written "
            "with; copy or download it again"
        )


def _is_plain_archive(path: Path) -> bool:
    """True for the format PyTorch writes since 1.6, False for older ones; raises for compressed
    archives, a third.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise zipfile.BadZipFile("compressed")
    return True


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = list(state)
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in names)), None):
        names = [name.removeprefix(wrapper) for name in names]
    return dict(zip(names, state.values(), strict=True))


def published_state(model: nn.Module) -> dict[str, Tensor]:
    """Names and tensors of a bare network as files hold them: under the published names."""
    return model.state_dict()


def load_weights(model: HigherHRNet, path: str | Path) -> None:
    """Fill the model from a file with exactly its tensors; CheckpointError says what differs and
    what would fit.
    """
    load_state(model, read_state_dict(path), str(path))


def load_state(model: HigherHRNet, state: Mapping[str, Tensor], source: str = "state_dict") -> None:
    """As load_weights, from names and tensors at hand; `source` is what a message calls them.

    Counters of batches (num_batches_tracked) may be missing: checkpoints older than PyTorch 0.4.1
    have none.
    """
    own = model.state_dict()
    missing = [
        name for name in own if name not in state and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in own]
    reshaped = [name for name in state if name in own and state[name].shape != own[name].shape]
    if missing or unexpected or reshaped:
        parts = [
            f"{len(names)} names are {what} (first {names[0]})"
            for names, what in ((missing, "missing"), (unexpected, "unexpected"))
            if names
        ]
        if reshaped:
            parts.append(
                f"{len(reshaped)} are of another shape ({_shapes(reshaped[0], state, own)})"
            )
        raise CheckpointError(
            f"{source}: does not fit the network: {', '.join(parts)}{_advice(model, state)}"
        )
    _refuse_spoilt(state, source)
    model.load_state_dict(state, strict=False)


def _refuse_spoilt(state: Mapping[str, Tensor], source: str | Path) -> None:
    spoilt = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if spoilt:
        raise CheckpointError(
            f"{source}: {len(spoilt)} tensors hold values that are no finite numbers "
            f"(first {spoilt[0]}); no network works with those"
        )


def load_pretrained(
    model: HigherHRNet, path: str | Path, layers: Sequence[str] = ("*",)
) -> PretrainedReport:
    """Start from a file's tensors where they fit: ImageNet backbones, or the network of another set
    of keypoints.

    layers: first components of the names to take (conv1, stage2, ...;
    MODEL.EXTRA.PRETRAINED_LAYERS), or "*" for all. Heads of another shape keep their fresh weights.
    CheckpointError where the backbone is of another shape, or nothing is taken.
    """
    own = model.state_dict()
    state = read_state_dict(path)
    wanted = [
        name for name in state if name in own and ("*" in layers or name.split(".")[0] in layers)
    ]
    reshaped = [name for name in wanted if state[name].shape != own[name].shape]
    foreign = [name for name in reshaped if name.split(".")[0] not in HEADS]
    if foreign:
        raise CheckpointError(
            f"{path}: the backbone is another one: {len(foreign)} tensors are of another shape "
            f"({_shapes(foreign[0], state, own)}){_advice(model, state, heads=False)}"
        )
    taken = {name: state[name] for name in wanted if name not in reshaped}
    if not taken:
        raise CheckpointError(
            f"{path}: none of its {len(state)} tensors (first {next(iter(state))}) is one of the "
            f"network's in PRETRAINED_LAYERS ({', '.join(layers) or 'which is empty'})"
        )
    _refuse_spoilt(taken, path)
    model.load_state_dict(taken, strict=False)
    return PretrainedReport(len(taken), len(reshaped), len(state) - len(wanted), len(own))


def _shapes(name: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    return f"first {name}, {list(state[name].shape)} in the file, {list(own[name].shape)} in the network"


def _advice(model: HigherHRNet, state: Mapping[str, Tensor], heads: bool = True) -> str:
    """The settings under which these weights would fit, as the end of a sentence; empty where names
    tell nothing.
    """
    mine = describe_settings(model.state_dict())
    theirs = describe_settings(state)
    if not theirs:
        return "; these are not the weights of an HRNet"
    differing = {key: f"{key} {value}" for key, value in theirs.items() if mine.get(key) != value}
    stages = [text for key, text in differing.items() if ".STAGE" in key]
    others = [text for key, text in differing.items() if ".STAGE" not in key] if heads else []
    name = f"; these are W{theirs['MODEL.EXTRA.STAGE2.NUM_CHANNELS'][0]} weights" if stages else ""
    if heads and "MODEL.NUM_JOINTS" not in theirs:
        return f"{name}; they are of a backbone without keypoint heads, which MODEL.PRETRAINED can start from"
    return f"{name}; settings that would fit: {', '.join(others + stages)}" if differing else name


def describe_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings tensors were made with, by key, as far as their names and shapes tell; {} where
    it is no HRNet.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.dim() == 4}
    if "stage2.0.branches.0.0.conv1.weight" not in shapes:
        return {}
    found: dict[str, Any] = {}
    for stage in (2, 3, 4):
        key = f"MODEL.EXTRA.STAGE{stage}"
        name = rf"stage{stage}\.0\.branches"
        branches = _numbered(shapes, name + r"\.(\d+)\.0\.conv1\.weight")
        blocks = (
            _numbered(shapes, rf"{name}\.{branch}\.(\d+)\.conv1\.weight")
            for branch in range(len(branches))
        )
        found[f"{key}.NUM_MODULES"] = len(
            _numbered(shapes, rf"stage{stage}\.(\d+)\.branches\.0\.0\.conv1\.weight")
        )
        found[f"{key}.NUM_CHANNELS"] = [shape[0] for shape in branches]
        found[f"{key}.NUM_BLOCKS"] = [len(names) for names in blocks]
        found[f"{key}.BLOCK"] = (
            "BOTTLENECK" if f"stage{stage}.0.branches.0.0.conv3.weight" in shapes else "BASIC"
        )
    return found | _describe_heads(shapes)


def _describe_heads(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    heads = _numbered(shapes, r"final_layers\.(\d+)\.weight")
    if not heads:
        return {}
    deconvs = _numbered(shapes, r"deconv_layers\.(\d+)\.0\.0\.weight")
    scales = _numbered(shapes, r"conv_scale_layers\.(\d+)\.0\.weight")
    outputs = [shape[0] for shape in heads]
    # Scale heads have a channel for each joint. Without them the resolution without tags tells; if
    # all have tags, half.
    halve = len(set(outputs)) == 1 and outputs[0] % 2 == 0
    joints = scales[0][0] if scales else min(outputs) // (2 if halve else 1)
    found: dict[str, Any] = {"MODEL.NUM_JOINTS": joints, "MODEL.SCALE_HEADS": bool(scales)}
    if max(outputs) > joints:
        found["MODEL.TAG_PER_JOINT"] = max(outputs) == 2 * joints
    found["LOSS.WITH_AE_LOSS"] = [count > joints for count in outputs]
    found["MODEL.EXTRA.FINAL_CONV_KERNEL"] = heads[0][2]
    found["MODEL.EXTRA.DECONV.NUM_DECONVS"] = len(deconvs)
    if deconvs:
        blocks = _numbered(shapes, r"deconv_layers\.0\.(\d+)\.0\.conv1\.weight")
        found["MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS"] = len(blocks)
        found["MODEL.EXTRA.DECONV.NUM_CHANNELS"] = [shape[1] for shape in deconvs]
        found["MODEL.EXTRA.DECONV.KERNEL_SIZE"] = [shape[2] for shape in deconvs]
        found["MODEL.EXTRA.DECONV.CAT_OUTPUT"] = [
            d[0] > head[1] for d, head in zip(deconvs, heads, strict=False)
        ]
    return found


def _numbered(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> list[tuple[int, ...]]:
    """The shapes of the names that match, in the order of the number in them."""
    matches = ((re.fullmatch(pattern, name), shape) for name, shape in shapes.items())
    return [
        shape for _, shape in sorted((int(match[1]), shape) for match, shape in matches if match)
    ]
