"""Copies between the host and a GPU that do not stop the host."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def to_device(values: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """An array on a device. The copy to a GPU starts from pinned memory, so the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
