"""tools/benchmark.py runs, compares results, and writes both reports; how long things take is not a
test's business.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

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
            ["--device", "cpu", "--people", "3", "--seconds", "0", "--calls", "1", "--out", str(tmp_path), *only]
        )
        == 0
    )
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["benchmark"] for row in report["rows"]] == names and not report["problems"]
    assert all(
        row["ratio"] == row["plain_ms"] / row["ours_ms"] and row["same"] is not False
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


@pytest.mark.parametrize(
    "words, message", [(["--people", "0"], "1 person or more"), (["--only", "x"], "invalid choice")]
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
