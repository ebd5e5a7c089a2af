"""Names of tensors in files of weights, and what they tell about the network.

Inside, every name starts with "backbone." or "head.". Published files have no such prefix, so HRNet
and HigherHRNet's head are saved without it; other parts keep it. All knowledge about the names in
published files is in this module.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from swahr.models.backbones.hrnet import HRNet
from swahr.models.heads.higher_hrnet import HigherHRNetHead
from swahr.models.network import ModelError, PoseNetwork
from swahr.skeleton import SKELETONS

WITHOUT_PREFIX = (HRNet, HigherHRNetHead)
KNOWN_JOINTS = frozenset(len(skeleton.keypoints) for skeleton in SKELETONS.values())
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
    backbone alone: the backbone's own, or those of `Backbone.name_of_pretrained`. Unknown names
    stay as they are.
    """
    own = file_names(model)
    known = set(own.values())
    backbone = model.backbone if isinstance(model, PoseNetwork) else None

    def file_name(name: str) -> str:
        if name in known:
            return name
        of_backbone = name if backbone is None else backbone.name_of_pretrained(name)
        inside = (name, f"backbone.{of_backbone}", f"backbone.{name}")
        return next((own[each] for each in inside if each in own), name)

    return {name: file_name(name) for name in given}


def has_layer(model: nn.Module, layer: str) -> bool:
    """Whether the network has tensors whose names begin with that component, in its own files or in
    those of its backbone alone.
    """
    own = file_names(model)
    if any(file.split(".")[0] == layer for file in own.values()):
        return True
    if not isinstance(model, PoseNetwork):
        return False
    start = f"backbone.{model.backbone.name_of_pretrained(f'{layer}.')}"
    return any(name.startswith(start) for name in own)


def joints_of(model: nn.Module) -> tuple[int, ...]:
    """The number of keypoints of a network with HigherHRNet's head; () for others."""
    head = model.head if isinstance(model, PoseNetwork) else None
    return (head.num_joints,) if isinstance(head, HigherHRNetHead) else ()


def advice(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    joints: Collection[int] = (),
    head: bool = True,
) -> str:
    """Settings under which the weights `given` would fit, as the end of a sentence.

    own: tensors of the network by their names in files. joints: see `describe_settings`. head: the
    head must fit too. Empty where the names tell nothing.
    """
    mine = describe_settings(own, joints)
    theirs = describe_settings(given, joints)
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
    if head and "MODEL.SCALE_HEADS" not in theirs:
        return (
            f"{name}; they are of a backbone without keypoint heads, "
            "which MODEL.PRETRAINED can start from"
        )
    return f"{name}; settings that would fit: {', '.join(fitting)}" if fitting else name


def describe_settings(state: Mapping[str, Tensor], joints: Collection[int] = ()) -> dict[str, Any]:
    """The settings that tensors of a file were made with, as far as names and shapes tell.

    The inverse of build_hrnet and build_higher_hrnet; {} for other backbones. joints: the number of
    keypoints to look for where shapes fit several, before those of the known skeletons. Where they
    fit none of these, MODEL.NUM_JOINTS and the settings of the tags are left out.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.dim() == 4}
    if "stage2.0.branches.0.0.conv1.weight" not in shapes:
        return {}
    found: dict[str, Any] = {}
    if stem := _numbered(shapes, r"layer1\.(\d+)\.conv1\.weight"):
        found["MODEL.EXTRA.STEM_BLOCKS"] = len(stem)
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
    return found | _describe_head(shapes, joints)


def _describe_head(
    shapes: Mapping[str, tuple[int, ...]], expected: Collection[int]
) -> dict[str, Any]:
    finals = _numbered(shapes, r"final_layers\.(\d+)\.weight")
    if not finals:
        return {}
    deconvs = _numbered(shapes, r"deconv_layers\.(\d+)\.0\.0\.weight")
    scales = _numbered(shapes, r"conv_scale_layers\.(\d+)\.0\.weight")
    outputs = [shape[0] for shape in finals]
    # Scale heads have a channel for each joint.
    joints = scales[0][0] if scales else _joints_of_outputs(outputs, expected)
    found: dict[str, Any] = {"MODEL.NUM_JOINTS": joints} if joints else {}
    found["MODEL.SCALE_HEADS"] = bool(scales)
    if joints:
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


def _joints_of_outputs(outputs: Sequence[int], expected: Collection[int]) -> int | None:
    """The number of joints of resolutions with so many heatmaps and tags; None where it is open.

    A resolution without tags beside one with tags tells it. Equal numbers have several readings: a
    tag for each joint, a shared one, or none.
    """
    count = min(outputs)
    if max(outputs) > count:
        return count
    readings = {count, count - 1} | ({count // 2} if count % 2 == 0 else set())
    for wanted in (expected, KNOWN_JOINTS):
        fitting = readings & set(wanted)
        if len(fitting) == 1:
            return fitting.pop()
    return None


def _numbered(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> list[tuple[int, ...]]:
    """The shapes of the names that match, in the order of the index in them."""
    matches = ((re.fullmatch(pattern, name), shape) for name, shape in shapes.items())
    return [
        shape for _, shape in sorted((int(match[1]), shape) for match, shape in matches if match)
    ]
