from __future__ import annotations

import logging
import sys

import pytest

from swahr.distributed import comm
from swahr.progress_bar import ProgressBar


def count(total: int, items: int, **options: bool) -> None:
    with ProgressBar("photos", total, "image", **options) as bar:
        for _ in range(items):
            bar.update()


@pytest.mark.parametrize(
    ("total", "items", "lines"),
    [
        (3, 3, ["1 of 3", "2 of 3", "3 of 3"]),
        (25, 25, [*(f"{n} of 25" for n in range(3, 25, 3)), "25 of 25"]),
        (1000, 350, ["100 of 1000", "200 of 1000", "300 of 1000"]),
        (0, 250, ["100", "200"]),
    ],
)
def test_a_pipe_gets_a_line_now_and_then(
    total: int,
    items: int,
    lines: list[str],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.INFO, "swahr"):
        count(total, items)
    assert caplog.messages == [f"photos: {line} images" for line in lines]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level(logging.INFO, "swahr"):
        count(3, 3)
    assert caplog.messages == [] and "photos: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_main_process_speaks_and_only_if_asked(
    rank: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comm, "rank", lambda: rank)
    monkeypatch.setattr(comm, "world_size", lambda: 2)
    with caplog.at_level(logging.INFO, "swahr"):
        count(1, 1)
        count(1, 1, shown=False)
    assert caplog.messages == ([] if rank else ["photos: 1 of 1 images of rank 0 of 2"])
