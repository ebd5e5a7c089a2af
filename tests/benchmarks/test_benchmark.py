"""tools/benchmark.py runs, compares results, and writes both reports. No test looks at a time."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import Bench, Row

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = importlib.import_module("benchmark")
    monkeypatch.setattr(importlib.import_module("benchmarks.postprocessing"), "MAP_SIZE", (64, 96))
    return tool


def test_decoding_is_measured(benchmark, tmp_path: Path) -> None:
    names = ["grouping", "refinement", "decoding"]
    only = [word for name in names for word in ("--only", name)]
    assert (
        benchmark.main(
            [
                "--device",
                "cpu",
                "--people",
                "3",
                "--seconds",
                "0",
                "--calls",
                "1",
                "--out",
                str(tmp_path),
                *only,
            ]
        )
        == 0
    )
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["benchmark"] for row in report["rows"]] == names and not report["problems"]
    assert all(
        row["ratio"] == row["plain_ms"] / row["ours_ms"] and row["same"] is True
        for row in report["rows"]
    )
    assert (tmp_path / "benchmark.md").read_text().count("\n| ") == 1 + len(names)
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json", "benchmark.md"}


def test_a_benchmark_that_fails_is_named(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(bench: object) -> None:
        raise RuntimeError("the plain version gives another result")

    monkeypatch.setitem(benchmark.BENCHMARKS, "grouping", broken)
    assert benchmark.main(["--device", "cpu", "--only", "grouping", "--out", str(tmp_path)]) == 1
    assert (
        "Not measured: grouping: RuntimeError: the plain" in (tmp_path / "benchmark.md").read_text()
    )


def test_both_versions_are_called_in_turn_and_as_often(tmp_path: Path) -> None:
    bench = Bench("cpu", [1], seconds=0, calls=4, folder=tmp_path)
    calls: list[str] = []
    row = bench.row("x", "y", lambda: calls.append("plain"), lambda: calls.append("ours"))
    assert calls[2:] == ["plain", "ours"] * 4 and sorted(calls[:2]) == ["ours", "plain"]
    assert row.same is None and row.plain_ms is not None
    calls.clear()
    assert bench.row("x", "y", None, lambda: calls.append("ours")).ratio is None
    assert calls == ["ours"] * 5


def test_different_results_are_reported(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    def wrong(bench: Bench) -> Iterator[Row]:
        yield bench.row("grouping", "3 people", lambda: 1, lambda: 2, lambda a, b: a == b)

    monkeypatch.setitem(benchmark.BENCHMARKS, "grouping", wrong)
    given = ["--device", "cpu", "--only", "grouping", "--out", str(tmp_path), "--seconds", "0"]
    assert benchmark.main(given) == 1
    assert "Results differ: grouping, 3 people" in capsys.readouterr().err
    report = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    assert "Results differ: grouping, 3 people" in report
    assert "- command: `python tools/benchmark.py --device cpu --only grouping" in report


@pytest.mark.parametrize(
    "words, message",
    [
        (["--people", "0"], "1 person or more"),
        (["--calls", "0"], "1 time or more"),
        (["--only", "x"], "invalid choice"),
    ],
)
def test_invalid_arguments_are_refused(benchmark, capsys, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--device", "cpu", *words])
    assert message in capsys.readouterr().err


def test_no_benchmark_starts_when_the_time_is_over(benchmark, tmp_path: Path) -> None:
    assert (
        benchmark.main(
            ["--device", "cpu", "--only", "grouping", "--minutes", "0", "--out", str(tmp_path)]
        )
        == 1
    )
    assert (
        "Not measured: grouping: the 0 minutes were over" in (tmp_path / "benchmark.md").read_text()
    )


def test_operations_of_an_evaluation_are_counted(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The fast way moves less memory, and the rows have no times."""
    network = importlib.import_module("benchmarks.network")
    operations = importlib.import_module("benchmarks.operations")
    monkeypatch.setattr(network, "W32", network.TINY)
    monkeypatch.setattr(operations, "IMAGE", (64, 96, 3))
    monkeypatch.setattr(operations, "PEOPLE", 2)
    monkeypatch.setattr(operations, "BATCHES", (1,))
    name = "evaluation operations"
    given = ["--device", "cpu", "--only", name, "--out", str(tmp_path)]
    opts = ["TEST.FLIP_TEST", True, "TEST.PROJECT2IMAGE", True, "DATASET.INPUT_SIZE", 128]
    crowd = operations.crowd_predictor
    monkeypatch.setattr(
        operations,
        "crowd_predictor",
        lambda bench, more, *args, **options: crowd(bench, [*opts, *more], *args, **options),
    )
    assert benchmark.main(given) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert len(rows) == 6 and all(row["ours_ms"] is row["ratio"] is None for row in rows)
    cases = [row["case"] for row in rows]
    assert cases[0].startswith("exact, network with flip") and "0 waits" in cases[0]

    def moved(way: str) -> int:
        numbers = [re.search(rf"^{way}, 1 x.* ([\d,]+) MB", case) for case in cases]
        return sum(int(number[1].replace(",", "")) for number in numbers if number)

    assert 0 < moved("fast") < moved("exact")
