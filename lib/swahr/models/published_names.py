"""Names of tensors in files of weights, and what they tell about the network.

Inside, every name starts with "backbone." or "head.". Published files have no such prefix, so HRNet
and HigherHRNet's head are saved without it; other parts keep it. All knowledge about the names in
published files is in this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from swahr.models.backbones.hrnet import HRNet
from swahr.models.heads.higher_hrnet import HigherHRNetHead
from swahr.models.network import ModelError, PoseNetwork

WITHOUT_PREFIX = (HRNet, HigherHRNetHead)
OF_BACKBONE = ("MODEL.EXTRA.STEM", "MODEL.EXTRA.STAGE")  # keys that `describe_settings` gives


def file_names(model: nn.Module) -> dict[str, str]:
    """Names of the network's tensors -> their names in files, in the network's order.

    Raises ModelError where two tensors would have one name in a file.
    """
    names = {name: name for name in model.state_dict()}
    if isinstance(model, PoseNetwork):
        for part in ("backbone", "head"):
            if isinstance(getattr(model, part), WITHOUT_PREFIX):
                names = {name: file.removeprefix(f"{part}.") for name, file in names.items()}
    if len(set(names.values())) < len(names):
        files = list(names.values())
        twice = next(name for name in files if files.count(name) > 1)
        raise ModelError(f"{twice} is the name of two tensors: rename the layer of one of them")
    return names


def to_file_names(model: nn.Module, given: Iterable[str]) -> dict[str, str]:
    """Names that a file gives -> the names that the network's own files would give them.

    Besides these, the network's own names are understood, and those of a file that holds the
    backbone alone. Unknown names stay as they are.
    """
    own = file_names(model)
    known = set(own.values())
    backbone = model.backbone if isinstance(model, PoseNetwork) else None

    def file_name(name: str) -> str:
        if name in known:
            return name
        of_backbone = name if backbone is None else backbone.name_of_pretrained(name)
        return own.get(name) or own.get(f"backbone.{of_backbone}", name)

    return {name: file_name(name) for name in given}


def advice(own: Mapping[str, Tensor], given: Mapping[str, Tensor], head: bool = True) -> str:
    """Settings under which the weights `given` would fit, as the end of a sentence.

    own: tensors of the network by their names in files. head: the head must fit too. Empty where
    the names tell nothing.
    """
    mine = describe_settings(own)
    theirs = describe_settings(given)
    if not mine:
        return "; they are of an HRNet (MODEL.BACKBONE hrnet)" if theirs else ""
    if not theirs:
        return "; these are not the weights of an HRNet"
    differing = {key: f"{key} {value}" for key, value in theirs.items() if mine.get(key) != value}
    of_backbone = [text for key, text in differing.items() if key.startswith(OF_BACKBONE)]
    of_head = [text for key, text in differing.items() if not key.startswith(OF_BACKBONE)]
    fitting = of_head + of_backbone if head else of_backbone
    name = (
        f"; these are W{theirs['MODEL.EXTRA.STAGE2.NUM_CHANNELS'][0]} weights"
        if of_backbone
        else ""
    )
    if head and "MODEL.NUM_JOINTS" not in theirs:
        return (
            f"{name}; they are of a backbone without keypoint heads, "
            "which MODEL.PRETRAINED can start from"
        )
    return f"{name}; settings that would fit: {', '.join(fitting)}" if fitting else name


def describe_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that tensors of a file were made with, as far as names and shapes tell.

    The inverse of build_hrnet and build_higher_hrnet; {} for other backbones.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.dim() == 4}
    if "stage2.0.branches.0.0.conv1.weight" not in shapes:
        return {}
    found: dict[str, Any] = {
        "MODEL.EXTRA.STEM_BLOCKS": len(_numbered(shapes, r"layer1\.(\d+)\.conv1\.weight"))
    }
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
    return found | _describe_head(shapes)


def _describe_head(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    finals = _numbered(shapes, r"final_layers\.(\d+)\.weight")
    if not finals:
        return {}
    deconvs = _numbered(shapes, r"deconv_layers\.(\d+)\.0\.0\.weight")
    scales = _numbered(shapes, r"conv_scale_layers\.(\d+)\.0\.weight")
    outputs = [shape[0] for shape in finals]
    # Scale heads have a channel for each joint. Without them, a resolution without tags tells the
    # number of joints; if all have tags, it is half of the channels.
    halve = len(set(outputs)) == 1 and outputs[0] % 2 == 0
    joints = scales[0][0] if scales else min(outputs) // (2 if halve else 1)
    found: dict[str, Any] = {"MODEL.NUM_JOINTS": joints, "MODEL.SCALE_HEADS": bool(scales)}
    if max(outputs) > joints:
        found["MODEL.TAG_PER_JOINT"] = max(outputs) == 2 * joints
    found["LOSS.WITH_AE_LOSS"] = [count > joints for count in outputs]
    found["MODEL.EXTRA.FINAL_CONV_KERNEL"] = finals[0][2]
    found["MODEL.EXTRA.DECONV.NUM_DECONVS"] = len(deconvs)
    if deconvs:
        blocks = _numbered(shapes, r"deconv_layers\.0\.(\d+)\.0\.conv1\.weight")
        found["MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS"] = len(blocks)
        found["MODEL.EXTRA.DECONV.NUM_CHANNELS"] = [shape[1] for shape in deconvs]
        found["MODEL.EXTRA.DECONV.KERNEL_SIZE"] = [shape[2] for shape in deconvs]
        found["MODEL.EXTRA.DECONV.CAT_OUTPUT"] = [
            deconv[0] > final[1] for deconv, final in zip(deconvs, finals, strict=False)
        ]
    return found


def _numbered(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> list[tuple[int, ...]]:
    """The shapes of the names that match, in the order of the index in them."""
    matches = ((re.fullmatch(pattern, name), shape) for name, shape in shapes.items())
    return [
        shape for _, shape in sorted((int(match[1]), shape) for match, shape in matches if match)
    ]
