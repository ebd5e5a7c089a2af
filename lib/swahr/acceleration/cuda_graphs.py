"""A network, or a training step, on a GPU as CUDA graphs: all kernels are started together."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from swahr.acceleration.cudnn_search import PASSES
from swahr.models.network import StageOutput

logger = logging.getLogger("swahr")
WARM_UP = PASSES  # plain calls for a shape; cuDNN may search in the next one, which records it
SIZES = 8  # whose graphs are kept: the inputs and outputs of each stay in GPU memory
_capture = Lock()  # torch records one graph at a time in a process


class Recording(NamedTuple):
    """A graph with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class _Graphs:
    """A function on a GPU, and its recordings for the `sizes` kinds of inputs that were used last.

    function: inputs (tensors) -> plain data and tensors. A kind of inputs is recorded after WARM_UP
    plain calls. If that fails, one line says so, which begins with `complaint`, and nothing is
    recorded any more. on_failure: called then.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Tensor]], Any],
        complaint: str,
        sizes: int = SIZES,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.function = function
        self.complaint = complaint
        self.sizes = sizes
        self.on_failure = on_failure
        self.failed = False
        self.broken: torch.cuda.CUDAGraph | None = None
        # The number of plain calls, or the recording, of each kind; the one used last is last.
        self.kinds: OrderedDict[Any, int | Recording] = OrderedDict()
        # All graphs share one memory pool and one stream, since they never run at the same time.
        self.memory = torch.cuda.graph_pool_handle()
        self.stream: torch.cuda.Stream | None = None

    def _recording(self, kind: Any, inputs: Sequence[Tensor]) -> Recording | None:
        """What is to be replayed for the inputs; None if the function is to be called plainly."""
        if self.failed:
            return None
        known: int | Recording | None = self.kinds.pop(kind, 0)
        while len(self.kinds) >= self.sizes:
            self.kinds.popitem(last=False)
        if isinstance(known, int):
            known = known + 1 if known < WARM_UP else self._record(inputs)
        if known is None:
            return None
        self.kinds[kind] = known
        return known if isinstance(known, Recording) else None

    def _record(self, inputs: Sequence[Tensor]) -> Recording | None:
        static = [tensor.clone() for tensor in inputs]
        stream = self._own_stream()
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(
            graph, pool=self.memory, stream=stream, capture_error_mode="thread_local"
        )
        try:
            # Where a recording fails, torch itself leaves its stream the current one.
            with _capture, torch.cuda.stream(stream), recording:
                outputs = self.function(static)
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a recording that failed fails too
            reason = str(cause).strip() or type(cause).__name__
            logger.warning("%s: %s", self.complaint, reason.splitlines()[0])
            self.failed = True
            self.broken = graph  # torch's allocator refers to a graph that was never ended
            self.kinds.clear()
            self.on_failure()
            return None
        return Recording(graph, static, outputs)

    def _replay(self, recording: Recording, inputs: Sequence[Tensor]) -> Any:
        """The outputs, which later calls do not overwrite."""
        torch._foreach_copy_(recording.inputs, list(inputs), non_blocking=True)
        recording.graph.replay()
        return tree_map_only(Tensor, torch.clone, recording.outputs)

    def _on_own_stream(self, inputs: Sequence[Tensor]) -> Any:
        """A plain call where recordings are made."""
        stream = self._own_stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self.function(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _own_stream(self) -> torch.cuda.Stream:
        if self.stream is None:
            self.stream = torch.cuda.Stream()
        return self.stream


class CudaGraphs(_Graphs):
    """A network on a GPU whose kernels are recorded once for each input size, then replayed.

    At small batches starting the hundreds of kernels takes longer than running them. A recording
    takes a few runs of the network, so that only sizes that come again are recorded. Of more than
    `sizes` sizes, the one that was not used for the longest time is forgotten. A network that
    cannot be recorded is called plainly for good. Threads take turns with replaying, since they
    share the recorded tensors; other work may use the GPU at the same time.
    """

    def __init__(
        self, model: Callable[[Tensor], Sequence[StageOutput]], sizes: int = SIZES
    ) -> None:
        super().__init__(
            lambda inputs: model(*inputs), "TEST.CUDA_GRAPHS: the network is not recorded", sizes
        )
        self.model = model
        self.lock = Lock()
        self.copied: torch.cuda.Event | None = None  # the outputs of the last replay

    def __call__(self, images: Tensor) -> list[StageOutput]:
        """images (B, 3, h, w) -> the network's outputs, which later calls do not overwrite."""
        kind = (images.shape, images.dtype, torch.is_autocast_enabled("cuda"))
        with torch.cuda.device(images.device):
            with self.lock:
                recording = self._recording(kind, [images])
                if recording is not None:
                    stream = torch.cuda.current_stream()
                    if self.copied is not None:
                        stream.wait_event(self.copied)  # on the stream of another thread
                    outputs = self._replay(recording, [images])
                    self.copied = stream.record_event()
                    return list(outputs)
            return list(self.model(images))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles contain the network only; they record their own graphs."""
        return CudaGraphs, (self.model, self.sizes)

    def _record(self, inputs: Sequence[Tensor]) -> Recording | None:
        """After a few plain calls: libraries choose kernels, which cuDNN does for each thread.

        Autocast keeps no weights meanwhile: it would free them, and graphs would read them on.
        """
        keeps = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            for _ in range(3):
                self._on_own_stream(inputs)
            return super()._record(inputs)
        finally:
            torch.set_autocast_cache_enabled(keeps)


class StepGraphs(_Graphs):
    """A function on a GPU that changes tensors of its own, such as a training step, as CUDA graphs.

    function: inputs (tensors) -> plain data and tensors. Each call counts once: the first WARM_UP
    for each shape of its inputs are plain, on another stream as recording needs it, later ones are
    replayed. It must not wait for the GPU. If it cannot be recorded, one line says so, and it is
    called plainly for good. on_failure: called then.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Tensor]], Any],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            function, "TRAIN.CUDA_GRAPHS: steps are not recorded", on_failure=on_failure
        )

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """What the function gives, which later calls do not overwrite."""
        kind = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        with torch.cuda.device(inputs[0].device):
            recording = self._recording(kind, inputs)
            if recording is not None:
                return self._replay(recording, inputs)
            return self.function(inputs) if self.failed else self._on_own_stream(inputs)
