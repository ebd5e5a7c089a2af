"""A network, or a training step, on a GPU as CUDA graphs: all kernels are started together."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from swahr.models.network import StageOutput

logger = logging.getLogger("swahr")
WARM_UP = 3  # plain calls before a recording: libraries choose kernels, optimizers make their state
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


class StepGraphs:
    """A function on a GPU that changes tensors of its own, such as a training step, as CUDA graphs.

    function: inputs (tensors) -> plain data and tensors. It is called plainly WARM_UP times for
    each shape of its inputs, on another stream as recording needs it, then recorded, and replayed
    from then on. It must not wait for the GPU. If it cannot be recorded, one line says so, and it
    is called plainly for good. on_failure: called then.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Tensor]], Any],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.function = function
        self.on_failure = on_failure
        self.failed = False
        self.calls: Counter[Any] = Counter()
        self.recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}
        self.memory = torch.cuda.graph_pool_handle()

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """What the function gives, which later calls do not overwrite."""
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if not self.failed and key not in self.recorded:
            self.calls[key] += 1
            if self.calls[key] <= WARM_UP:
                return self._on_other_stream(inputs)
            self._record(key, inputs)
        if self.failed:
            return self.function(inputs)
        graph, static, outputs = self.recorded[key]
        torch._foreach_copy_(static, list(inputs), non_blocking=True)
        graph.replay()
        return tree_map_only(Tensor, torch.clone, outputs)

    def _on_other_stream(self, inputs: Sequence[Tensor]) -> Any:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self.function(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _record(self, key: Any, inputs: Sequence[Tensor]) -> None:
        static = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.memory, capture_error_mode="thread_local"):
                outputs = self.function(static)
        except RuntimeError as error:
            self.failed = True
            reason = str(error).strip().splitlines()[0]
            logger.warning("TRAIN.CUDA_GRAPHS: steps are not recorded: %s", reason)
            self.on_failure()
            return
        self.recorded[key] = graph, static, outputs
