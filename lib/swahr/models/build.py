"""From the configuration to a network: the only reader of cfg in this package."""

from __future__ import annotations

from typing import Any

import torch

from swahr.models.backbones.hrnet import StageSettings
from swahr.models.blocks import BLOCKS
from swahr.models.heads.higher_hrnet import DECONV_PADDING, DeconvSettings, HigherHRNet
from swahr.models.network import ModelError
from swahr.models.weights import init_weights

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def amp_dtype(cfg: Any) -> torch.dtype | None:
    """What the network's convolutions are computed in under AMP.*; None is float32."""
    return DTYPES[cfg.AMP.DTYPE] if cfg.AMP.ENABLED else None


def build_model(cfg: Any) -> HigherHRNet:
    """The network of MODEL.*, with fresh weights if MODEL.INIT_WEIGHTS; MODEL.PRETRAINED is the
    caller's to load.

    Raises ModelError that names the key where the settings make no network.
    """
    extra = cfg.MODEL.EXTRA
    joints = cfg.MODEL.NUM_JOINTS
    deconvs = _deconv_settings(extra.DECONV)
    stages = len(deconvs) + 1
    with_tags = cfg.LOSS.WITH_AE_LOSS[:stages]
    _require(
        len(with_tags) == stages,
        "LOSS.WITH_AE_LOSS",
        f"needs {stages} entries, one for each resolution",
    )
    kernel = extra.FINAL_CONV_KERNEL
    _require(
        kernel % 2 == 1,
        "MODEL.EXTRA.FINAL_CONV_KERNEL",
        f"is {kernel}; it must be odd, as published 1 or 3",
    )
    model = HigherHRNet(
        stages=[
            _stage_settings(f"MODEL.EXTRA.STAGE{number}", extra[f"STAGE{number}"], number)
            for number in (2, 3, 4)
        ],
        num_joints=joints,
        tag_channels=[
            (joints if cfg.MODEL.TAG_PER_JOINT else 1) if tags else 0 for tags in with_tags
        ],
        deconvs=deconvs,
        scale_heads=cfg.MODEL.SCALE_HEADS,
        final_kernel=kernel,
    )
    if cfg.MODEL.INIT_WEIGHTS:
        init_weights(model)
    return model


def _stage_settings(name: str, stage: Any, branches: int) -> StageSettings:
    given = stage.NUM_BRANCHES
    _require(given == branches, f"{name}.NUM_BRANCHES", f"is {given}; HRNet has {branches} here")
    for key in ("NUM_BLOCKS", "NUM_CHANNELS"):
        _require(
            len(stage[key]) == branches,
            f"{name}.{key}",
            f"has {len(stage[key])} entries for {branches} branches",
        )
        _require(
            min(stage[key]) > 0,
            f"{name}.{key}",
            f"is {list(stage[key])}; every entry must be at least 1",
        )
    _require(
        stage.NUM_MODULES > 0,
        f"{name}.NUM_MODULES",
        f"is {stage.NUM_MODULES}; a stage has at least 1",
    )
    _require(
        stage.BLOCK in BLOCKS,
        f"{name}.BLOCK",
        f"is {stage.BLOCK!r}; it is one of {', '.join(BLOCKS)}",
    )
    _require(
        stage.FUSE_METHOD == "SUM",
        f"{name}.FUSE_METHOD",
        f"is {stage.FUSE_METHOD!r}; only SUM is known",
    )
    return StageSettings(
        stage.NUM_MODULES, tuple(stage.NUM_BLOCKS), tuple(stage.NUM_CHANNELS), stage.BLOCK
    )


def _deconv_settings(deconv: Any) -> list[DeconvSettings]:
    count = deconv.NUM_DECONVS
    name = "MODEL.EXTRA.DECONV"
    for key in ("NUM_CHANNELS", "KERNEL_SIZE", "CAT_OUTPUT"):
        _require(
            len(deconv[key]) >= count,
            f"{name}.{key}",
            f"has {len(deconv[key])} entries for NUM_DECONVS {count}",
        )
    for kernel in deconv.KERNEL_SIZE[:count]:
        _require(
            kernel in DECONV_PADDING, f"{name}.KERNEL_SIZE", f"has {kernel}; it is one of 4, 3, 2"
        )
    columns = zip(deconv.NUM_CHANNELS[:count], deconv.KERNEL_SIZE, deconv.CAT_OUTPUT, strict=False)
    return [
        DeconvSettings(width, kernel, deconv.NUM_BASIC_BLOCKS, cat)
        for width, kernel, cat in columns
    ]


def _require(condition: bool, key: str, problem: str) -> None:
    if not condition:
        raise ModelError(f"{key} {problem}")
