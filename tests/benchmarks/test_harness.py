"""The clock of benchmarks, rows that fail, memory, and the end of the time."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import harness
from benchmarks.harness import Bench, Row, TimeOver, close, time_limit
from swahr.acceleration import cuda_graphs


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", [1], seconds=0, calls=4, folder=tmp_path)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """For a GPU whose memory is stubs."""
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3 << 20)
    return Bench("cuda", [1], seconds=0, calls=4, folder=tmp_path)


class Cycle:
    """An object that only the garbage collector frees, as training steps are."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize(
    ("seconds", "clocked"),
    [(35.0, 1), (1.5, 2), (0.75, 3), (0.001, 4)],
)
def test_a_plain_version_is_called_no_more_once_it_has_taken_its_time(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, seconds: float, clocked: int
) -> None:
    now = 0.0
    calls: list[str] = []

    def plain() -> None:
        nonlocal now
        now += seconds
        calls.append("plain")

    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: now))
    bench.plain_seconds = 2.0
    row = bench.row("x", "y", plain, lambda: calls.append("ours"))
    assert (calls.count("plain"), calls.count("ours")) == (1 + clocked, 1 + 4)
    assert row.plain_ms == pytest.approx(1e3 * seconds)


def test_only_on_a_gpu_plain_versions_are_called_less_often(bench: Bench, gpu: Bench) -> None:
    """On a CPU the ratio counts, which needs both as often."""
    assert (bench.plain_seconds, gpu.plain_seconds) == (float("inf"), 2)
    assert "each as often" in harness.describe(bench, [])["times"]


def test_a_row_that_fails_is_noted_and_the_next_goes_on(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Row:
        raise torch.OutOfMemoryError("no memory\nfor this")

    cases: dict[str, Callable[[], Row | list[Row]]] = {
        "first": fails,
        "second": lambda: Row("x", "second", None, 1.0),
        "third": lambda: [Row("x", "third", None, 1.0), Row("x", "fourth", None, 1.0)],
    }
    assert [row.case for row in bench.each("x", cases)] == ["second", "third", "fourth"]
    assert bench.problems == {"x, first": "OutOfMemoryError: no memory"}
    assert "for this" in capsys.readouterr().err


def test_a_row_starts_without_the_memory_of_the_one_before(bench: Bench) -> None:
    """Also where that one failed, or what it used is in reference cycles."""
    used: list[weakref.ref[Cycle]] = []

    def row() -> Row:
        assert not used or used[-1]() is None
        cycle = Cycle()
        used.append(weakref.ref(cycle))
        if len(used) == 1:
            raise ValueError
        return Row("x", "y", None, 1.0)

    assert len(list(bench.each("x", {"a": row, "b": row, "c": row}))) == 2
    assert bench.problems == {"x, a": "ValueError: "}


def test_memory_is_what_was_taken_from_the_card_until_graphs_are_recorded(
    monkeypatch: pytest.MonkeyPatch, gpu: Bench
) -> None:
    """What nobody uses any more is given back before, and a recorded step allocates nothing."""
    events: list[str] = []
    unused = weakref.ref(Cycle())

    def reset() -> None:
        events.append("reset" if unused() is None else "reset too early")

    def reserved() -> int:
        events.append("read")
        return 3 << 20

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", reserved)
    row = gpu.row("x", "y", None, lambda: events.append("ours"))
    assert row.memory_mb == 3
    before = ["empty", "reset", *["ours"] * harness.WARM_UP, "read"]
    assert events == [*before, *["ours"] * gpu.calls]
    assert harness.WARM_UP > cuda_graphs.WARM_UP


def test_a_gpu_that_works_no_more_fails_every_row_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, gpu: Bench
) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    cases = {name: lambda: Row("x", "y", None, 1.0) for name in "ab"}
    assert list(gpu.each("x", cases)) == []
    assert list(gpu.problems) == ["x, a", "x, b"]


def test_no_row_starts_after_the_minutes(bench: Bench) -> None:
    def last() -> Row:
        bench.end = 0.0
        return Row("x", "last", None, 1.0)

    rows: list[Row] = []
    with pytest.raises(TimeOver):
        rows.extend(bench.each("x", {"last": last, "late": last}))
    assert len(rows) <= 1 and not bench.problems


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs alarms")
def test_an_alarm_ends_what_catches_errors() -> None:
    before = signal.getsignal(signal.SIGALRM)

    def swallowing() -> Iterator[None]:
        try:
            signal.raise_signal(signal.SIGALRM)
        except Exception:
            yield

    with pytest.raises(TimeOver), time_limit(1e6):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        next(swallowing())
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == before
    for forever in (float("inf"), 1e300):
        with time_limit(forever):
            assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(
    ("got", "want", "same"),
    [
        ([1e-10, 2e-10], [1e-10, 2.0001e-10], True),
        ([1e-10, 2e-10], [1e-10, 2.01e-10], False),
        ([0.0, 0.0], [1e-10, 2e-10], False),
        ([0.0, 0.0], [0.0, 0.0], False),
        ([float("nan"), 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [float("nan"), 1.0], False),
    ],
)
def test_differences_count_relative_to_the_largest_value(
    got: list[float], want: list[float], same: bool
) -> None:
    assert close(torch.tensor(got), torch.tensor(want), 1e-3) is same
