"""A network on a GPU as CUDA graphs: all kernels of a pass are started together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swahr.models.network import StageOutput

SIZES = 8  # whose graphs are kept: the inputs and outputs of each stay in GPU memory


class Recording(NamedTuple):
    """A graph with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    outputs: Sequence[StageOutput]


class CudaGraphs:
    """A network on a GPU whose kernels are recorded once for each input size, then replayed.

    At small batches starting the hundreds of kernels takes longer than running them. A new size
    takes a few runs of the network. Of more than `sizes` sizes, the one that was not used for the
    longest time is forgotten. Threads take turns, since they share the recorded tensors; other
    work may use the GPU at the same time.
    """

    def __init__(
        self, model: Callable[[Tensor], Sequence[StageOutput]], sizes: int = SIZES
    ) -> None:
        self.model = model
        self.sizes = sizes
        self.recorded: OrderedDict[Any, Recording] = OrderedDict()  # the last one used is last
        # All graphs share one memory pool, since they never run at the same time.
        self.memory = torch.cuda.graph_pool_handle()
        self.lock = Lock()
        self.copied: torch.cuda.Event | None = None  # the outputs of the last pass

    def __call__(self, images: Tensor) -> list[StageOutput]:
        """images (B, 3, h, w) -> the network's outputs, which later calls do not overwrite."""
        with self.lock:
            stream = torch.cuda.current_stream()
            if self.copied is not None:
                stream.wait_event(self.copied)  # on the stream of another thread
            recording = self._recording(images)
            recording.inputs.copy_(images)
            recording.graph.replay()
            outputs = [stage.map(torch.clone) for stage in recording.outputs]
            self.copied = stream.record_event()
        return outputs

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles contain the network only; they record their own graphs."""
        return CudaGraphs, (self.model, self.sizes)

    def _recording(self, images: Tensor) -> Recording:
        key = (images.shape, images.dtype, torch.is_autocast_enabled("cuda"))
        if key not in self.recorded:
            while len(self.recorded) >= self.sizes:
                self.recorded.popitem(last=False)
            self.recorded[key] = self._record(images)
        self.recorded.move_to_end(key)
        return self.recorded[key]

    def _record(self, images: Tensor) -> Recording:
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
        return Recording(graph, inputs, outputs)
