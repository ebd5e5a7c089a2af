"""From the configuration to a network.

A module of your own adds to the dicts: `from swahr.models.build import BACKBONES` and
`BACKBONES["mine"] = build_mine`. It is then named by MODEL.BACKBONE or MODEL.HEAD.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from swahr.models.backbones.hrnet import build_hrnet
from swahr.models.backbones.timm import build_timm
from swahr.models.heads.higher_hrnet import build_higher_hrnet
from swahr.models.network import Backbone, Head, ModelError, PoseNetwork
from swahr.parts import choose

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

# MODEL.BACKBONE, up to the first "/" -> build(cfg) -> backbone.
BACKBONES: dict[str, Callable[[Any], Backbone]] = {
    "hrnet": build_hrnet,
    "timm": build_timm,
}

# MODEL.HEAD -> build(cfg, backbone) -> head.
HEADS: dict[str, Callable[[Any, Backbone], Head]] = {
    "higher_hrnet": build_higher_hrnet,
}


def amp_dtype(cfg: Any, device: torch.device | str = "cpu") -> torch.dtype | None:
    """The type that convolutions are computed in under AMP.*; None is float32.

    AMP.DTYPE auto is bf16 where the device has units for it; elsewhere bf16 is emulated, several
    times slower than float32.
    """
    if not cfg.AMP.ENABLED:
        return None
    device = torch.device(device)
    if cfg.AMP.DTYPE == "auto":
        return torch.bfloat16 if has_bf16_units(device) else None
    has_units = has_bf16_units if cfg.AMP.DTYPE == "bf16" else has_fp16_units
    if not has_units(device):
        _warn_of_emulation(cfg.AMP.DTYPE, "CPU" if device.type == "cpu" else "GPU")
    return DTYPES[cfg.AMP.DTYPE]


@cache
def _warn_of_emulation(name: str, device: str) -> None:
    logger.warning(
        "AMP.DTYPE %s: this %s has no units for it and emulates it, many times slower than "
        "float32; AMP.DTYPE auto takes what is fast",
        name,
        device,
    )


def has_bf16_units(device: torch.device) -> bool:
    """Whether the device multiplies in bf16: GPUs since Ampere, CPUs with avx512_bf16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return _cpu_has("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def has_fp16_units(device: torch.device) -> bool:
    """Whether the device multiplies in fp16: GPUs, and the few CPUs with AMX for it."""
    return device.type == "cuda" or _cpu_has("_is_amx_fp16_supported")


def _cpu_has(*questions: str) -> bool:
    """Whether torch.cpu answers yes to one of these; versions that do not know it say no."""
    return any(getattr(torch.cpu, name, lambda: False)() for name in questions)


def build_model(cfg: Any) -> PoseNetwork:
    """The network of MODEL.*, with fresh weights; the caller loads MODEL.PRETRAINED.

    MODEL.INIT_WEIGHTS False keeps the weights that the constructors draw. Raises PartError for an
    unknown part and ModelError for settings that make no network.
    """
    backbone = choose(BACKBONES, cfg.MODEL.BACKBONE.split("/")[0], "MODEL.BACKBONE")(cfg)
    for name in ("channels", "stride", "size_divisor"):
        if not isinstance(getattr(backbone, name, None), int):
            raise ModelError(
                f"MODEL.BACKBONE {cfg.MODEL.BACKBONE}: has no whole number {name!r}, see Backbone"
            )
    head = choose(HEADS, cfg.MODEL.HEAD, "MODEL.HEAD")(cfg, backbone)
    if not getattr(head, "upsampling", ()):
        raise ModelError(f"MODEL.HEAD {cfg.MODEL.HEAD}: has no tuple 'upsampling'; see Head")
    model = PoseNetwork(backbone, head)
    if cfg.MODEL.INIT_WEIGHTS:
        model.init_weights()
    return model
