"""A stub of torch.cuda: what would be kernels runs at once, or when its graph is replayed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

Work = Callable[[], Any]


class Graph:
    """In place of a CUDA graph. work: what it repeats, in order."""

    def __init__(self) -> None:
        self.work: list[Work] = []

    def replay(self) -> None:
        for work in self.work:
            work()


class Stream:
    """On a device. waited: for the events or streams, in order."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.waited: list[Any] = []

    def wait_stream(self, stream: Any) -> None:
        self.waited.append(stream)

    wait_event = wait_stream

    def record_event(self) -> Event:
        event = Event()
        event.record(self)
        return event


class Event:
    """stream: the one that recorded it; None where it was not given."""

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream


class StubCuda(threading.local):
    """The current device of a thread, and its current stream on each device. graph: that is being
    recorded in it. devices: whose streams were used, by any thread. captures: recordings under way,
    in all threads, and most: how many there were at a time.
    """

    devices: set[Any] = set()
    captures = 0
    most = 0

    def __init__(self) -> None:
        self.device: Any = "another"
        self.streams: dict[Any, Stream] = {}
        self.graph: Graph | None = None

    def do(self, work: Work) -> None:
        """A kernel."""
        if self.graph is None:
            work()
        else:
            self.graph.work.append(work)

    def wait_for_gpu(self) -> None:
        """As reading a value does."""
        if self.graph is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    @contextmanager
    def on_device(self, device: Any) -> Iterator[None]:
        before = self.device
        self.device = device
        try:
            yield
        finally:
            self.device = before

    @contextmanager
    def on_stream(self, stream: Stream) -> Iterator[None]:
        before = self.current_stream(stream.device)
        with self.on_device(stream.device):
            self.streams[stream.device] = stream
            try:
                yield
            finally:
                self.streams[stream.device] = before

    def current_stream(self, device: Any = None) -> Stream:
        device = self.device if device is None else device
        self.devices.add(device)
        return self.streams.setdefault(device, Stream(device))

    @contextmanager
    def capture(
        self, graph: Graph, *, stream: Stream, pool: Any, capture_error_mode: str
    ) -> Iterator[None]:
        """Like torch's, it leaves its stream the current one where a recording fails."""
        before = self.current_stream(stream.device)
        self.streams[stream.device] = stream
        self.graph = graph
        StubCuda.captures += 1
        StubCuda.most = max(StubCuda.most, StubCuda.captures)
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904
        finally:
            self.graph = None
            StubCuda.captures -= 1
        self.streams[stream.device] = before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StubCuda:
    stub = StubCuda()
    StubCuda.devices = set()
    StubCuda.most = 0
    stubs: dict[str, Any] = {
        "graph_pool_handle": object,
        "CUDAGraph": Graph,
        "Event": Event,
        "Stream": lambda device=None: Stream(stub.device if device is None else device),
        "device": stub.on_device,
        "stream": stub.on_stream,
        "current_stream": stub.current_stream,
        "graph": stub.capture,
    }
    for name, value in stubs.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return stub
