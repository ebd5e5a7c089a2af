"""Tries a network on one image: do its parts give what they say, and does every parameter learn?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from swahr.models.network import ModelError, PoseNetwork, StageOutput, evaluating


def try_network(model: PoseNetwork, images: Tensor, num_joints: int) -> list[StageOutput]:
    """The maps of images (B, 3, H, W) in evaluation mode, without gradients.

    Raises ModelError, in one line, where the backbone's features are not what its channels and
    stride say, or the head's maps are not those that Head describes, for num_joints keypoints.
    """
    with evaluating(model), torch.no_grad():
        features = model.backbone(images)
        _check_features(model, features, images)
        outputs = model.head(features)
    _check_outputs(model, outputs, images, num_joints)
    return list(outputs)


def has_idle_parameters(
    model: PoseNetwork, images: Tensor, terms_read: Iterable[tuple[str, int]]
) -> bool:
    """Whether some parameters get no gradient from a loss that reads only these maps of the images.

    terms_read: (field of StageOutput or name in its extra, stage). DistributedDataParallel has to
    look for such parameters in each step.
    """
    with evaluating(model), torch.enable_grad():
        outputs = model(images)
        maps = [outputs[stage].named(name) for name, stage in terms_read]
        total = torch.stack([each.float().mean() for each in maps if each is not None]).sum()
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(total, learning, allow_unused=True)
    return any(gradient is None for gradient in gradients)


def _check_features(model: PoseNetwork, features: Any, images: Tensor) -> None:
    height, width = (side // model.backbone.stride for side in images.shape[-2:])
    wanted = (len(images), model.backbone.channels, height, width)
    if _shape(features) != wanted:
        raise ModelError(
            f"MODEL.BACKBONE: gives {_describe(features)} for images {tuple(images.shape)}; by its "
            f"channels and stride it must give a tensor {wanted}"
        )


def _check_outputs(model: PoseNetwork, outputs: Any, images: Tensor, num_joints: int) -> None:
    count = len(model.strides)
    is_list = isinstance(outputs, list | tuple) and not isinstance(outputs, StageOutput)
    if not is_list or [type(output) for output in outputs] != [StageOutput] * count:
        raise ModelError(
            f"MODEL.HEAD: gives {_describe(outputs)}; it must give a list with a StageOutput for "
            f"each entry of its upsampling, {count} in all"
        )
    for stage, (output, stride) in enumerate(zip(outputs, model.strides)):
        height, width = (side // stride for side in images.shape[-2:])
        for name, may_lack in (("heatmaps", False), ("scales", True), ("tags", True)):
            maps = getattr(output, name)
            if maps is None and may_lack:
                continue
            wanted = (len(images), num_joints, height, width)
            is_shared = name == "tags" and _shape(maps) == (len(images), 1, height, width)
            if _shape(maps) != wanted and not is_shared:
                raise ModelError(
                    f"MODEL.HEAD: its {name} at stage {stage} are {_describe(maps)}; for "
                    f"{num_joints} keypoints and images {tuple(images.shape)} they must be a "
                    f"tensor {wanted}"
                )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _describe(value: Any) -> str:
    """What a part gave, for messages."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, list | tuple) and not isinstance(value, StageOutput):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
