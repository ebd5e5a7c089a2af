"""tools/benchmark.py runs, compares results, and writes both reports. No test looks at a time."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import Bench, Row
from tests.engine.conftest import CONFIG

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


def test_engines_take_turns_and_missing_packages_are_named(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engines = importlib.import_module("benchmarks.engines")
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(out=tmp_path, data=tmp_path))
    monkeypatch.setattr(engines, "CONFIG", config)
    monkeypatch.setattr(engines, "SIZE", 64)
    monkeypatch.setattr(engines, "EXPORT", ("not_there",))
    variants = {
        "plain": engines.VARIANTS["plain"],
        "absent": engines.Variant((), packages=("not_there",)),
    }
    monkeypatch.setattr(engines, "VARIANTS", variants)
    out = tmp_path / "out"
    given = ["--device", "cpu", "--only", "engines", "--seconds", "0", "--out", str(out)]
    assert benchmark.main(given) == 1
    report = json.loads((out / "benchmark.json").read_text())
    [row] = report["rows"]
    assert row["case"] == "plain, tiny, 64 px" and row["same"] is True and row["ratio"] == 1
    assert report["problems"] == {"engines": "RuntimeError: not installed: not_there"}


def test_engines_are_called_in_turn(tmp_path: Path) -> None:
    engines = importlib.import_module("benchmarks.engines")
    calls: list[str] = []

    class Fake:
        def __init__(self, name: str, seconds: list[float]) -> None:
            self.name = name
            self.times = seconds

        def seconds(self) -> float:
            calls.append(self.name)
            return self.times.pop(0)

    bench = Bench("cpu", [1], seconds=0, calls=2, folder=tmp_path)
    assert engines.measure(bench, [Fake("a", [3, 1]), Fake("b", [2, 4])]) == [1, 2]
    assert calls == ["a", "b", "a", "b"]


def test_drawing_and_tracking_are_measured(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.import_module("benchmarks.video"), "FRAME_SIZE", (216, 384))
    only = ["--only", "drawing", "--only", "tracking"]
    once = ["--seconds", "0", "--calls", "1", "--out", str(tmp_path)]
    assert benchmark.main(["--device", "cpu", *once, *only]) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert [row["benchmark"] for row in rows] == ["drawing", "drawing", "tracking"]
    assert [row["goal_ms"] for row in rows] == [50, 50, None]


def test_training_steps_are_measured_against_the_published_way(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Computed limits stand below the table of what was measured."""
    steps = importlib.import_module("benchmarks.training_steps")
    monkeypatch.setattr(steps, "EAGER", {"float32": steps.FLOAT32})
    words = ["--device", "cpu", "--seconds", "0", "--calls", "1", "--out", str(tmp_path)]
    assert benchmark.main([*words, "--only", "card", "--only", "training steps"]) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    cases = [row["case"] for row in rows]
    assert len(rows) == 5 and "TFLOP/s" in cases[0] and "GB/s" in cases[2]
    assert cases[3] == "tiny, 64 px, batch 2: the published way"
    assert "of the measured product in float32" in cases[4]
    assert rows[4]["plain_ms"] == rows[3]["ours_ms"] and rows[4]["images"] == 2
    report = (tmp_path / "benchmark.md").read_text()
    table, computed = report.split("## Computed from the card's measured limits, not measured")
    assert "at most" in computed and "at most" not in table


def test_the_published_losses_are_ours() -> None:
    """The row of the published way computes what our step computes."""
    steps = importlib.import_module("benchmarks.training_steps")
    bench = Bench("cpu", [1], seconds=0, calls=1, folder=Path())
    [network] = steps.networks(bench)
    step, batch, _ = steps.build(bench, network, [*steps.FLOAT32, "LOSS.AE_LOSS_TYPE", "exp"])
    targets, outputs = step.forward(batch)
    ours = step.criterion(outputs, targets)
    published = steps.PublishedCriterion()(outputs, targets)
    assert published.keys() == ours.keys()
    for name, value in ours.items():
        assert published[name].mean().item() == pytest.approx(
            value.mean().item(), rel=1e-3, abs=1e-7
        )


def test_a_benchmark_ends_early_when_the_time_is_over(benchmark, tmp_path: Path) -> None:
    clock = iter([0.0, 0.0, 100.0])
    rows, problems = [], {}

    def endless(bench: Bench) -> Iterator[Row]:
        while True:
            yield Row("endless", "a case", None, 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(benchmark.BENCHMARKS, "endless", endless)
        patch.setattr(benchmark.time, "monotonic", lambda: next(clock))
        bench = Bench("cpu", [1], seconds=0, calls=1, folder=tmp_path)
        rows, problems = benchmark.measure_all(bench, ["endless"], 1)
    assert len(rows) == 1 and problems == {"endless": "ended early: the 1 minutes were over"}


def test_the_card_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = importlib.import_module("benchmarks.training_steps")
    monkeypatch.setattr(steps.shutil, "which", lambda name: None)
    assert steps.describe_card() == {"driver and clocks": "unknown: there is no nvidia-smi"}


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
    opts += ["AMP.ENABLED", False]
    crowd = operations.crowd_predictor
    monkeypatch.setattr(
        operations,
        "crowd_predictor",
        lambda bench, more, *args, **options: crowd(bench, [*opts, *more], *args, **options),
    )
    assert benchmark.main(given) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert len(rows) == 9 and all(row["ours_ms"] is row["ratio"] is None for row in rows)
    cases = [row["case"] for row in rows]
    assert cases[0].startswith("exact, network with flip") and "0 waits" in cases[0]
    assert cases[6].startswith("TEST.CUDNN_FUSE, network with flip")

    def moved(way: str) -> int:
        numbers = [re.search(rf"^{way}, 1 x.* ([\d,]+) MB", case) for case in cases]
        return sum(int(number[1].replace(",", "")) for number in numbers if number)

    assert 0 < moved("fast") < moved("exact")
