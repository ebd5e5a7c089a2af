"""The network of a configuration, with the weights of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from swahr.models.build import build_model
from swahr.models.network import PoseNetwork
from swahr.models.weights import load_weights


def load_network(cfg: Any, weights: str | Path, device: torch.device | str) -> PoseNetwork:
    """The configured network with the weights of a file, on the device. Raises CheckpointError."""
    set_cudnn(cfg)
    model = build_model(cfg)
    load_weights(model, weights)
    return model.to(device)


def set_cudnn(cfg: Any) -> None:
    """Set PyTorch's cuDNN flags, which hold for the whole process, from the section CUDNN of a
    configuration.
    """
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.backends.cudnn.deterministic = cfg.CUDNN.DETERMINISTIC
