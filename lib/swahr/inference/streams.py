"""The order of work on a GPU: decoding beside the network, and not behind its next batch.

Work that is given to one stream runs in its order. If decoding shared the network's stream, it
would wait for every batch that the network was given meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

import torch


class DecodingStreams:
    """A stream for each thread that decodes on a GPU; on a CPU there is nothing to do."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.own = local()

    def mark(self) -> torch.cuda.Event | None:
        """The end of what the network's stream was given so far."""
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event

    @contextmanager
    def after(self, event: torch.cuda.Event | None) -> Iterator[None]:
        """Within, work is given to this thread's stream, and begins after the event."""
        if event is None:
            yield
            return
        if not hasattr(self.own, "stream"):
            self.own.stream = torch.cuda.Stream(self.device)
        stream = self.own.stream
        stream.wait_event(event)
        with torch.cuda.stream(stream):
            yield
        # Maps may be freed from now on, and the network's stream may use their memory.
        stream.synchronize()
