"""Weights from and for files: published ones, ImageNet backbones, and those that training writes.

Files are read with weights_only=True, so no code in them is executed. Every problem of a file is
reported in one line.
"""

from __future__ import annotations

import logging
import re
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from swahr.exported import is_exported
from swahr.files import why_unreadable
from swahr.models.published_names import (
    advice,
    file_names,
    has_layer,
    joints_of,
    to_file_names,
)

logger = logging.getLogger(__name__)

SAFETENSORS = ".safetensors"
# Prefixes that DistributedDataParallel and torch.compile add to every name.
WRAPPERS = ("module.", "_orig_mod.")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Of counters and masks.
WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class CheckpointError(ValueError):
    """A file of weights that cannot be used; the message names the file and what would fit."""


class PretrainedReport(NamedTuple):
    """How many of a file's tensors were taken or skipped.

    reshaped: skipped, tensors of the head with another shape. unasked: skipped, tensors that were
    not asked for or that the network lacks. total: tensors of the network.
    """

    taken: int
    reshaped: int
    unasked: int
    total: int

    def __str__(self) -> str:
        return (
            f"took {self.taken} of the network's {self.total} tensors; skipped {self.reshaped} of "
            f"another shape and {self.unasked} that the network lacks or PRETRAINED_LAYERS does "
            "not name"
        )


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Names and tensors, on the CPU, of a file of weights.

    The file holds a bare state_dict or {'state_dict': ...}, also of a wrapped model, or is a
    .safetensors file. Raises CheckpointError for files that are missing, truncated, no checkpoint,
    or hold more than plain data, and for tensors that are not those of FLOATS and WHOLE.
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
                f"{path}: entry {str(name)[:80]!r} is of type {type(value).__name__}, not a "
                "tensor; files of weights hold names and tensors, or have them under 'state_dict'"
            )
        if problem := _unusual(value):
            raise CheckpointError(
                f"{path}: tensor {name} {problem}; files of weights hold dense tensors of "
                f"{', '.join(str(dtype).removeprefix('torch.') for dtype in FLOATS)}, and whole "
                "numbers: save it as one of these"
            )
    return _unwrapped(content)


def _unusual(tensor: Tensor) -> str:
    """What keeps a tensor from being copied into a network; "" for nothing."""
    if tensor.dtype not in FLOATS + WHOLE:
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.layout != torch.strided or tensor.is_nested:
        layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        return f"has the layout {layout}"
    return "has no values (it is on the meta device)" if tensor.is_meta else ""


def _read(path: Path) -> object:
    if reason := why_unreadable(path):
        raise CheckpointError(f"{path}: {reason}")
    if is_exported(path):
        raise CheckpointError(
            f"{path}: is an exported network, which can be tested (TEST.MODEL_FILE) but not "
            "trained or converted; name the weights that it was made from"
        )
    if path.suffix.lower() == SAFETENSORS:
        return _read_safetensors(path)
    try:
        plain = _is_plain_archive(path)
        if plain:
            verify_checksums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that are refused below
            # A mapped file takes no memory until its tensors are known to fit the network.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=plain)
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises many types for damaged files
        raise CheckpointError(f"{path}: {_load_problem(error)}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"{path}: needs safetensors: pip install safetensors") from None
    try:
        return load_file(path)
    except Exception:  # safetensors raises its own types for damaged files
        raise CheckpointError(
            f"{path}: no safetensors file, or only a part of one (was the download or the copy cut "
            "short?)"
        ) from None


def _load_problem(error: Exception) -> str:
    code = re.search(r"GLOBAL `?([\w.]+)", str(error))
    if code:
        return (
            f"refused: it holds Python objects ({code[1]}) that could run code; "
            "only plain tensors are read"
        )
    return "no PyTorch checkpoint, or only a part of one (was the download or the copy cut short?)"


def verify_checksums(path: Path) -> None:
    """Raise CheckpointError if bytes of PyTorch's archive differ from those that were written.

    torch.load does not check this. Files that are no such archives pass; torch.load refuses them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, RuntimeError):
        return
    if damaged:
        raise CheckpointError(
            f"{path}: damaged: the bytes of {damaged} do not have the checksum they were written "
            "with; copy or download it again"
        )


def _is_plain_archive(path: Path) -> bool:
    """True for the format that PyTorch writes since 1.6, False for older ones.

    Raises BadZipFile for compressed archives, which are neither.
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
    state = model.state_dict()
    return {file: state[name] for name, file in file_names(model).items()}


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill the model from a file with exactly its tensors.

    CheckpointError says what differs and which settings would fit.
    """
    load_state(model, read_state_dict(path), str(path))


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str = "state_dict") -> None:
    """Fill the model from names and tensors; messages call them `source`.

    Names are those of files; the network's own names are understood too. Counters of batches
    (num_batches_tracked) may be missing: checkpoints older than PyTorch 0.4.1 have none.
    """
    own = published_state(model)
    state = _renamed(model, state, source)
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
            f"{source}: does not fit the network: {', '.join(parts)}"
            f"{advice(own, state, joints_of(model))}"
        )
    _reject_non_finite(state, source)
    _fill(model, state)


def _renamed(
    model: nn.Module, given: Mapping[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """The same tensors, in the same order, under the names that the network's files have.

    Raises CheckpointError where two of them would have one name.
    """
    first: dict[str, str] = {}
    for name, file in to_file_names(model, given).items():
        if file in first:
            raise CheckpointError(
                f"{source}: {first[file]} and {name} are both the network's {file}; "
                "a file has each tensor once: remove one of them"
            )
        first[file] = name
    return {file: given[name] for file, name in first.items()}


def _fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors under their names in files; all of them exist in the model."""
    names = {file: name for name, file in file_names(model).items()}
    model.load_state_dict({names[file]: tensor for file, tensor in state.items()}, strict=False)


def _reject_non_finite(state: Mapping[str, Tensor], source: str | Path) -> None:
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{source}: {len(bad)} tensors hold values that are no finite numbers "
            f"(first {bad[0]}); no network works with those"
        )


def load_pretrained(
    model: nn.Module, path: str | Path, layers: Sequence[str] = ("*",)
) -> PretrainedReport:
    """Start from a file's tensors where they fit.

    The file is of an ImageNet backbone, or of a network for another set of keypoints. layers: first
    components of names in the file (conv1, stage2, ...; MODEL.EXTRA.PRETRAINED_LAYERS), or "*" for
    all. A head of another shape keeps its fresh weights. Warns if less than half of the backbone is
    taken. Raises CheckpointError if the backbone has another shape, if no tensor is taken, or for a
    layer that neither the file nor the network has.
    """
    own = published_state(model)
    given = read_state_dict(path)
    state = _renamed(model, given, path)
    _check_layers(model, given, path, layers)
    wanted = [
        file
        for name, file in zip(given, state, strict=True)
        if file in own and ("*" in layers or name.split(".")[0] in layers)
    ]
    reshaped = [file for file in wanted if state[file].shape != own[file].shape]
    head = {file for name, file in file_names(model).items() if name.startswith("head.")}
    foreign = [file for file in reshaped if file not in head]
    if foreign:
        raise CheckpointError(
            f"{path}: the backbone is another one: {len(foreign)} tensors are of another shape "
            f"({_shapes(foreign[0], state, own)}){advice(own, state, head=False)}"
        )
    taken = {file: state[file] for file in wanted if file not in reshaped}
    if not taken:
        raise CheckpointError(
            f"{path}: none of its {len(state)} tensors (first {next(iter(state))}) is one of the "
            f"network's in PRETRAINED_LAYERS ({', '.join(layers) or 'which is empty'})"
        )
    _reject_non_finite(taken, path)
    _fill(model, taken)
    _warn_of_small_share(model, taken, path, layers)
    return PretrainedReport(len(taken), len(reshaped), len(state) - len(wanted), len(own))


def _check_layers(
    model: nn.Module, given: Iterable[str], path: str | Path, layers: Sequence[str]
) -> None:
    """Raise CheckpointError for a layer that neither the file nor the network has."""
    if "*" in layers:
        return
    there = dict.fromkeys(name.split(".")[0] for name in given)
    for layer in filter(None, layers):
        if layer not in there and not has_layer(model, layer):
            raise CheckpointError(
                f"{path}: MODEL.EXTRA.PRETRAINED_LAYERS: neither this file nor the network has a "
                f"layer {layer!r}; the file's are {', '.join(there)}"
            )


def _warn_of_small_share(
    model: nn.Module, taken: Collection[str], path: str | Path, layers: Sequence[str]
) -> None:
    """Warn if most of what was asked for of the backbone keeps its fresh weights."""
    asked = [
        file
        for name, file in file_names(model).items()
        if name.startswith("backbone.") and ("*" in layers or file.split(".")[0] in layers)
    ]
    fresh = [file for file in asked if file not in taken]
    if 2 * len(fresh) > len(asked):
        logger.warning(
            "%s: has only %d of %d tensors asked for of the backbone; the others keep their "
            "initial weights (first %s). Is it a file of the network that MODEL.BACKBONE names?",
            path,
            len(asked) - len(fresh),
            len(asked),
            fresh[0],
        )


def _shapes(name: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    return (
        f"first {name}, {list(state[name].shape)} in the file, "
        f"{list(own[name].shape)} in the network"
    )
