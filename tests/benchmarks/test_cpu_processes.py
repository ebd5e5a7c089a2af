"""The benchmark of one process per core: what it starts, and how its times compare."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cpu_processes
from benchmarks.harness import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", [1], seconds=0, calls=1, folder=tmp_path)


def test_the_best_rate_of_each_way_counts_and_all_times_are_of_one_batch(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    rates = {(1, 8): [10.0, 20.0, 15.0], (2, 4): [25.0, 10.0, 10.0], (2, 8): [30.0, 30.0, 40.0]}

    def measured(bench: Bench, file: Path, *way: int) -> float:
        return rates[way].pop(0)

    monkeypatch.setattr(cpu_processes.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cpu_processes, "BATCHES", {Path("small.yaml"): 8})
    monkeypatch.setattr(cpu_processes, "images_per_second", measured)
    rows = list(cpu_processes.cpu_processes(bench))
    assert [row.case for row in rows] == [
        "small, 2 processes x 4 images against 1 x 8",
        "small, 2 processes x 8 images against 1 x 8",
    ]
    assert [row.plain_ms for row in rows] == [400, 400]
    assert [row.ours_ms for row in rows] == [320, 200]


def test_one_core_has_nothing_to_compare(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(cpu_processes.os, "cpu_count", lambda: 1)
    assert list(cpu_processes.cpu_processes(bench)) == []


def test_a_training_of_the_asked_processes_and_images_is_started(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        commands.append(command)
        output = Path(command[command.index("OUTPUT_DIR") + 1])
        output.mkdir(parents=True)
        (output / "results.csv").write_text("epoch,images_per_second\n1,5\n2,7.5\n")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert cpu_processes.images_per_second(bench, Path("small.yaml"), 2, 4) == 7.5
    (command,) = commands
    after = dict(zip(command, command[1:]))
    assert after["--cfg"] == "small.yaml"
    assert after["--gpus"] == "2"
    assert after["TRAIN.IMAGES_PER_GPU"] == "4"
    # 24 steps of 2 x 4 images from a set of 8
    assert after["DATASET.REPEAT"] == "24"
