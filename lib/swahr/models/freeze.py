"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn.modules.batchnorm import _NormBase

from swahr.models.network import ModelError, PoseNetwork
from swahr.models.published_names import file_names


def freeze(model: PoseNetwork, parts: Sequence[str]) -> None:
    """Freeze parts of a network, in-place: their parameters get no gradient, and their batch norms
    keep their statistics and use them, also after model.train().

    parts: first components of names in files of weights, such as conv1 or layer1; longer ones with
    dots are understood too, such as stage2.0. Raises ModelError for a part that is not there, or if
    nothing is left to train.
    """
    names = file_names(model)
    for part in parts:
        if not any(_is_in(file, part) for file in names.values()):
            there = ", ".join(dict.fromkeys(file.split(".")[0] for file in names.values()))
            raise ModelError(f"the network has no part {part!r}; its parts are {there}")

    def is_frozen(name: str) -> bool:
        return any(_is_in(names[name], part) for part in parts)

    for name, parameter in model.named_parameters():
        if is_frozen(name):
            parameter.requires_grad = False
    norms = {
        name: module for name, module in model.named_modules() if isinstance(module, _NormBase)
    }
    model.always_eval = [
        module
        for name, module in norms.items()
        if all(is_frozen(f"{name}.{tensor}") for tensor in module.state_dict())
    ]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError("every part of the network is frozen, so nothing is left to train")
    model.train(model.training)


def _is_in(file: str, part: str) -> bool:
    """Whether a tensor's name in a file is that of the part or of something in it."""
    return file == part or file.startswith(f"{part}.")
