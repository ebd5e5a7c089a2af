"""The network of a configuration, with the weights of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from swahr.exported import is_exported
from swahr.inference.exported_network import ExportedNetwork, load_exported
from swahr.models.build import build_model
from swahr.models.network import PoseNetwork
from swahr.models.weights import load_weights


def load_model(
    cfg: Any, weights: str | Path, device: torch.device | str
) -> PoseNetwork | ExportedNetwork:
    """What `build_predictor` takes: `load_network`, or the exported network of an .onnx file.

    Raises CheckpointError or ExportedError.
    """
    if is_exported(weights):
        return load_exported(cfg, weights, device)
    return load_network(cfg, weights, device)


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
