from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from swahr.codec.copies import HostCopy


class OnSecondGpu(torch.Tensor):
    """A tensor that says it is on cuda:1."""

    device = property(lambda self: torch.device("cuda:1"))  # type: ignore[assignment]


def test_the_copy_is_awaited_on_the_gpu_that_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever GPU is the current one of the thread."""
    recorded: list[Any] = []
    waited: list[Any] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            pass

        def record(self, stream: Any = "of the thread") -> None:
            recorded.append(stream)

        def synchronize(self) -> None:
            waited.append(self)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"of {device}")
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    copy = HostCopy(torch.arange(3.0).as_subclass(OnSecondGpu))
    assert recorded == ["of cuda:1"] and not waited
    np.testing.assert_array_equal(copy.numpy(), [0, 1, 2])
    assert len(waited) == 1
