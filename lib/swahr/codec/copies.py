"""Copies between the host and a GPU that do not stop the host."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def to_device(values: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """An array on a device, without waiting: a copy to a GPU starts from pinned memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """A tensor on its way to the host. The copy from a GPU goes to pinned memory, and only whoever
    needs the values waits for it.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values
        self.arrived: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self.values = torch.empty(values.shape, dtype=values.dtype).pin_memory()
            self.values.copy_(values, non_blocking=True)
            self.arrived = torch.cuda.Event(blocking=True)  # the waiting thread sleeps
            # Not the current stream of this thread, which may be one of another GPU.
            self.arrived.record(torch.cuda.current_stream(values.device))

    def numpy(self) -> NDArray[np.generic]:
        """The values, as soon as they are there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values.numpy()
