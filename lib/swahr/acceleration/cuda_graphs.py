"""A network on a GPU as CUDA graphs: all kernels of a pass are started together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from swahr.models.network import StageOutput


class CudaGraphs:
    """A network on a GPU whose kernels are recorded once for each input size, then replayed.

    At small batches starting the hundreds of kernels takes longer than running them. A new size
    takes a few runs of the network, and its inputs and outputs stay in GPU memory. Other threads
    may use the GPU at the same time.
    """

    def __init__(self, model: Callable[[Tensor], Sequence[StageOutput]]) -> None:
        self.model = model
        self.recorded: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Sequence[StageOutput]]] = {}
        # All graphs share one memory pool, since they never run at the same time.
        self.memory = torch.cuda.graph_pool_handle()

    def __call__(self, images: Tensor) -> list[StageOutput]:
        """images (B, 3, h, w) -> the network's outputs, which later calls do not overwrite."""
        key = (images.shape, images.dtype, torch.is_autocast_enabled("cuda"))
        if key not in self.recorded:
            self.recorded[key] = self._record(images)
        graph, inputs, outputs = self.recorded[key]
        inputs.copy_(images)
        graph.replay()
        return [stage.map(torch.clone) for stage in outputs]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles contain the network only; they record their own graphs."""
        return CudaGraphs, (self.model,)

    def _record(self, images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Sequence[StageOutput]]:
        inputs = images.clone()
        stream = torch.cuda.Stream()
        graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries choose their kernels and allocate their memory
                self.model(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, pool=self.memory, capture_error_mode="thread_local"):
            outputs = self.model(inputs)
        return graph, inputs, outputs
