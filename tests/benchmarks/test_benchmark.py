"""tools/benchmark.py runs, compares results, and writes both reports. No test looks at a time."""

from __future__ import annotations

import importlib
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import Bench, Row
from swahr.files import WriteError
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
        (["--minutes", "-1"], "--minutes -1: it must be at least 0"),
        (["--minutes", "nan"], "nan is not a number"),
        (["--seconds", "-1e-3"], "--seconds -0.001: it must be at least 0"),
        (["--data", "nope"], "--data nope: no such folder"),
        (["--out", ""], "--out: it is empty; name a folder"),
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
        "Not measured: grouping: not finished after 0 minutes"
        in (tmp_path / "benchmark.md").read_text()
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


def measured(benchmark, bench: Bench, names: list[str]) -> list[Row]:
    return benchmark.measure_all(bench, names, lambda rows, left: None)


def test_a_benchmark_ends_early_when_the_time_is_over(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = Bench("cpu", [1], seconds=0, calls=1, folder=tmp_path, minutes=1)

    def row() -> Row:
        bench.end = 0.0
        return Row("long", "a case", None, 1.0)

    monkeypatch.setitem(
        benchmark.BENCHMARKS, "long", lambda bench: bench.each("long", {"a": row, "b": row})
    )
    assert len(measured(benchmark, bench, ["long", "grouping"])) == 1
    over = "not finished after 1 minutes"
    assert bench.problems == {"long": over, "grouping": over}


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs alarms")
def test_a_row_that_goes_on_after_the_time_is_ended(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = Bench("cpu", [1], seconds=0, calls=1, folder=tmp_path, minutes=1)

    def hanging() -> Row:
        assert 60 < signal.getitimer(signal.ITIMER_REAL)[0] <= 90
        signal.raise_signal(signal.SIGALRM)
        return Row("hanging", "a case", None, 1.0)

    monkeypatch.setitem(
        benchmark.BENCHMARKS, "hanging", lambda bench: bench.each("hanging", {"a": hanging})
    )
    assert measured(benchmark, bench, ["hanging", "grouping"]) == []
    assert list(bench.problems) == ["hanging", "grouping"]


def test_the_report_is_on_the_disk_after_every_row(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    """A run that is killed leaves what it had measured, and says what is missing."""
    seen: list[dict] = []

    def look() -> None:
        assert "- device: " in (tmp_path / "benchmark.md").read_text()
        seen.append(json.loads((tmp_path / "benchmark.json").read_text()))

    def looking(bench: Bench) -> Iterator[Row]:
        look()
        yield Row("grouping", "one", 2.0, 1.0)
        look()
        assert "| grouping | one | 2.00 | 1.000 |" in capsys.readouterr().out
        yield Row("grouping", "two", 2.0, 1.0)

    monkeypatch.setitem(benchmark.BENCHMARKS, "grouping", looking)
    monkeypatch.setitem(benchmark.BENCHMARKS, "decoding", lambda bench: look() or iter([]))
    only = ["--only", "grouping", "--only", "decoding"]
    assert benchmark.main(["--device", "cpu", *only, "--out", str(tmp_path)]) == 0
    look()
    assert [len(report["rows"]) for report in seen] == [0, 1, 2, 2]
    unfinished = [list(report["problems"]) for report in seen]
    assert unfinished == [["grouping", "decoding"]] * 2 + [["decoding"], []]
    assert seen[0]["problems"]["grouping"] == "not finished when this was written"


def test_a_report_that_cannot_be_written_is_written_after_the_next_row(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    write = benchmark.write_text

    def full(path: Path, text: str) -> None:
        raise WriteError(f"{path}: the disk is full")

    def rows(bench: Bench) -> Iterator[Row]:
        monkeypatch.setattr(benchmark, "write_text", full)
        yield Row("grouping", "one", None, 1.0)
        monkeypatch.setattr(benchmark, "write_text", write)
        yield Row("grouping", "two", None, 1.0)

    monkeypatch.setitem(benchmark.BENCHMARKS, "grouping", rows)
    given = ["--device", "cpu", "--only", "grouping", "--out", str(tmp_path)]
    assert benchmark.main(given) == 0
    assert "the disk is full" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "benchmark.json").read_text())["rows"]) == 2


def test_nothing_is_measured_where_no_report_can_be_written(
    benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    started: list[Bench] = []
    monkeypatch.setitem(benchmark.BENCHMARKS, "grouping", lambda bench: started.append(bench))
    (tmp_path / "file").touch()
    given = ["--device", "cpu", "--only", "grouping", "--out", str(tmp_path / "file/out")]
    assert benchmark.main(given) == 2
    assert "could not be written" in capsys.readouterr().err and not started


def test_compiled_benchmarks_come_last(benchmark) -> None:
    """Compiling takes the most time, so the others are measured first."""
    assert list(benchmark.BENCHMARKS)[-2:] == ["compiled latency", "compiled training"]


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
