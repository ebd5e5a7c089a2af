"""Recorded networks and steps, on a stub of CUDA: plain calls first, then one recording."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from swahr.acceleration.cuda_graphs import WARM_UP, CudaGraphs, StepGraphs
from swahr.acceleration.cudnn_search import BoundedSearch
from swahr.acceleration.fuse import optimize_for_inference
from swahr.inference.streams import DecodingStreams
from swahr.models.network import StageOutput
from tests.acceleration.conftest import StubCuda
from tests.acceleration.test_fuse import assert_same
from tests.models.tiny_networks import images, network


class Doubling:
    """A network: doubles its images. Notes for each call whether it was recorded, and `look`."""

    def __init__(self, cuda: StubCuda, look: Callable[[], Any] = lambda: None) -> None:
        self.cuda = cuda
        self.look = look
        self.calls: list[tuple[bool, Any]] = []

    def __call__(self, images: Tensor) -> list[StageOutput]:
        self.calls.append((self.cuda.graph is not None, self.look()))
        doubled = torch.empty_like(images)
        self.cuda.do(lambda: doubled.copy_(2 * images))
        return [StageOutput(None, doubled, None)]

    @property
    def recordings(self) -> int:
        return sum(recorded for recorded, _ in self.calls)


def warm_up(graphs: CudaGraphs, images: Tensor) -> None:
    for _ in range(WARM_UP):
        graphs(images)


def square(side: int = 2) -> Tensor:
    return torch.ones(1, 3, side, side)


# -- networks


def test_recorded_networks_copy_their_inputs_and_outputs(cuda: StubCuda) -> None:
    model = Doubling(cuda)
    graphs = CudaGraphs(model)
    warm_up(graphs, square())
    calls = len(model.calls)
    first = square()
    [one] = graphs(first)
    assert len(model.calls) > calls
    calls = len(model.calls)
    [three] = graphs(3 * first)
    assert (first == 1).all() and (one.heatmaps == 2).all() and (three.heatmaps == 6).all()
    assert model.recordings == 1 and len(model.calls) == calls


def test_sizes_that_do_not_come_again_are_not_recorded(cuda: StubCuda) -> None:
    model = Doubling(cuda)
    graphs = CudaGraphs(model)
    for _ in range(WARM_UP):
        [doubled] = graphs(square())
        assert (doubled.heatmaps == 2).all()
    assert model.calls == [(False, None)] * WARM_UP


def test_the_size_that_was_not_used_for_the_longest_time_is_forgotten(cuda: StubCuda) -> None:
    """With its plain calls, so that sizes in turns are not recorded over and over."""
    model = Doubling(cuda)
    graphs = CudaGraphs(model, sizes=2)
    for side in (1, 2, 1, 3):
        warm_up(graphs, square(side))
        graphs(square(side))
    assert [kind[0][2] for kind in graphs.kinds] == [1, 3] and model.recordings == 3
    for side in (1, 2, 3) * (WARM_UP + 2):
        graphs(square(side))
    assert model.recordings == 3


def test_types_and_autocast_have_graphs_of_their_own(cuda: StubCuda) -> None:
    model = Doubling(cuda)
    graphs = CudaGraphs(model)
    for dtype in (torch.float32, torch.bfloat16):
        for autocast in (False, True):
            torch.set_autocast_enabled("cuda", autocast)
            try:
                warm_up(graphs, square().to(dtype))
                [doubled] = graphs(square().to(dtype))
            finally:
                torch.set_autocast_enabled("cuda", False)
            assert doubled.heatmaps.dtype == dtype and (doubled.heatmaps == 2).all()
    assert model.recordings == 4


def test_a_pass_waits_for_the_outputs_of_the_one_before(cuda: StubCuda) -> None:
    """Its stream waits, in case another thread's stream still copies the recorded outputs."""
    graphs = CudaGraphs(Doubling(cuda))
    warm_up(graphs, square())
    graphs(square())
    copied = graphs.copied
    stream = cuda.streams[square().device]
    assert copied is not None and copied not in stream.waited
    graphs(square())
    assert stream.waited[-1] is copied and graphs.copied is not copied


def test_cudnn_may_search_before_a_recording_and_during_it(
    cuda: StubCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording takes what was found, if cuDNN may still search; it cannot search then."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    model = Doubling(cuda, lambda: torch.backends.cudnn.benchmark)
    graphs = CudaGraphs(model)
    search = BoundedSearch()
    while not model.recordings:
        with search.of((1, 3, 2, 2)):
            graphs(square())
    assert model.calls[:WARM_UP] == [(False, False)] * WARM_UP
    assert model.calls[-2:] == [(False, True), (True, True)]


def test_autocast_keeps_no_weights_that_a_graph_reads(cuda: StubCuda) -> None:
    """They would be freed where autocast ends, and replays would read what is there then."""
    model = Doubling(cuda, torch.is_autocast_cache_enabled)
    graphs = CudaGraphs(model)
    warm_up(graphs, square())
    assert all(keeps for _, keeps in model.calls)
    graphs(square())
    assert not any(keeps for _, keeps in model.calls[WARM_UP:])
    assert torch.is_autocast_cache_enabled()


def test_graphs_are_those_of_the_device_of_the_images(cuda: StubCuda) -> None:
    """Whichever device the thread uses."""
    graphs = CudaGraphs(Doubling(cuda))
    warm_up(graphs, square())
    graphs(square())
    steps = StepGraphs(lambda inputs: [tensor + 1 for tensor in inputs])
    for _ in range(WARM_UP + 1):
        steps([square()])
    assert cuda.devices == {square().device} and cuda.device == "another"


def test_one_graph_is_recorded_at_a_time(cuda: StubCuda) -> None:
    """By all threads: torch's rule."""

    def record(side: int) -> None:
        graphs = CudaGraphs(Doubling(cuda, lambda: time.sleep(0.01)))
        warm_up(graphs, square(side))
        graphs(square(side))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(1, 5)))
    assert StubCuda.most == 1


def test_a_network_that_cannot_be_recorded_is_called_plainly(
    cuda: StubCuda, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line, on the stream of before, and without the graphs of other sizes."""
    model = Doubling(cuda)
    graphs = CudaGraphs(model)
    warm_up(graphs, square(3))
    graphs(square(3))
    stream = cuda.streams[square().device]
    model.look = cuda.wait_for_gpu
    for _ in range(WARM_UP + 3):
        [doubled] = graphs(square())
        assert (doubled.heatmaps == 2).all()
    [doubled] = graphs(square(3))
    assert (doubled.heatmaps == 2).all() and not graphs.kinds
    assert graphs.broken is not None  # torch's allocator still refers to it
    assert cuda.streams[square().device] is stream  # torch leaves its own the current one
    assert caplog.messages == [
        "TEST.CUDA_GRAPHS: the network is not recorded: "
        "operation not permitted when stream is capturing"
    ]


def test_errors_of_the_network_itself_are_raised(cuda: StubCuda) -> None:
    graphs = CudaGraphs(Doubling(cuda, lambda: torch.zeros(2) + torch.zeros(3)))
    with pytest.raises(RuntimeError, match="must match the size"):
        graphs(square())
    assert not graphs.failed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_recorded_networks_give_the_same() -> None:
    """For several sizes, in turn; what was given before is not overwritten."""
    model = optimize_for_inference(network().cuda())
    recorded = CudaGraphs(model)
    batches = [images(*size).cuda() for size in ((2, 64, 32), (1, 32, 64), (2, 64, 32))]
    for batch in batches:
        warm_up(recorded, batch)
    outputs = [recorded(batch + number) for number, batch in enumerate(batches)]
    for number, batch in enumerate(batches):
        assert_same(outputs[number], model(batch + number))
    assert not recorded.failed and len(recorded.kinds) == 2


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda graphs: pickle.loads(pickle.dumps(graphs))]
)
def test_copies_record_their_own_graphs(
    copied: Callable[[CudaGraphs], CudaGraphs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    graphs = CudaGraphs(network(), sizes=3)
    graphs.kinds["kind"] = 1
    again = copied(graphs)
    assert not again.kinds and again.memory is not graphs.memory and again.sizes == 3
    with torch.inference_mode():
        for got, want in zip(again.model(images()), graphs.model(images()), strict=True):
            assert torch.equal(got.heatmaps, want.heatmaps)


# -- steps


class Counting:
    """A step: adds its input to a total, and gives the total. plain, recorded: its calls."""

    def __init__(self, cuda: StubCuda) -> None:
        self.cuda = cuda
        self.total = torch.zeros(())
        self.plain = 0
        self.recorded = 0

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        self.plain += self.cuda.graph is None
        self.recorded += self.cuda.graph is not None
        result = torch.zeros(())
        self.cuda.do(lambda: self.total.add_(inputs[0].sum()))
        self.cuda.do(lambda: result.copy_(self.total))
        return {"total": result}


def test_every_step_counts_once(cuda: StubCuda) -> None:
    step = Counting(cuda)
    graphs = StepGraphs(step)
    results = [graphs([torch.full((2,), float(i))])["total"] for i in range(1, WARM_UP + 4)]
    counts = range(1, WARM_UP + 4)
    assert [float(result) for result in results] == [count * (count + 1) for count in counts]
    assert (step.plain, step.recorded) == (WARM_UP, 1)


def test_each_shape_and_type_is_recorded(cuda: StubCuda) -> None:
    step = Counting(cuda)
    graphs = StepGraphs(step)
    for _ in range(WARM_UP + 2):
        graphs([torch.ones(2)])
        graphs([torch.ones(3)])
        graphs([torch.ones(3, dtype=torch.float64)])
    assert step.recorded == 3 and float(step.total) == 8 * (WARM_UP + 2)


def test_no_more_shapes_are_kept_than_of_a_network(cuda: StubCuda) -> None:
    step = Counting(cuda)
    graphs = StepGraphs(step)
    sides = range(1, graphs.sizes + 4)
    for side in sides:
        for _ in range(WARM_UP + 1):
            graphs([torch.ones(side)])
    assert step.recorded == len(sides) and len(graphs.kinds) == graphs.sizes
    for side in range(100, 150):
        graphs([torch.ones(side)])
    assert len(graphs.kinds) == graphs.sizes


def test_plain_steps_run_on_the_stream_of_the_recordings(cuda: StubCuda) -> None:
    """And each of both streams waits for the other."""
    streams: list[Any] = []
    graphs = StepGraphs(lambda inputs: streams.append(cuda.current_stream()))
    for _ in range(WARM_UP + 1):
        graphs([torch.ones(2)])
    own = graphs.stream
    current = cuda.streams[torch.device("cpu")]
    assert own is not None and streams == [own] * (WARM_UP + 1)
    assert (own.waited, current.waited) == ([current] * WARM_UP, [own] * WARM_UP)  # type: ignore[attr-defined]


def test_a_step_that_cannot_be_recorded_is_called_plainly(
    cuda: StubCuda, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing that was recorded before is kept."""
    failures: list[str] = []
    step = Counting(cuda)

    def refuse(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        if len(inputs[0]) == 2:
            cuda.wait_for_gpu()
        return step(inputs)

    graphs = StepGraphs(refuse, lambda: failures.append("told"))
    for size in (3, 2):
        for _ in range(WARM_UP + 3):
            graphs([torch.ones(size)])
    assert float(step.total) == 5 * (WARM_UP + 3) and failures == ["told"]
    assert step.recorded == 1 and not graphs.kinds
    assert caplog.messages == [
        "TRAIN.CUDA_GRAPHS: steps are not recorded: "
        "operation not permitted when stream is capturing"
    ]


# -- decoding


def test_the_end_of_a_batch_is_marked_on_the_stream_of_its_device(cuda: StubCuda) -> None:
    """Whichever device the thread uses."""
    device = torch.device("cuda", 1)
    event: Any = DecodingStreams(device).mark()
    assert event.stream.device == device
