"""The benchmark of a shared CPU: its competitors end with it, and its share is right."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cpu_processes, shared_cpu
from benchmarks.harness import Bench


def test_competitors_end_with_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[Any]] = []
    start = subprocess.Popen

    def popen(*args: Any, **options: Any) -> subprocess.Popen[Any]:
        started.append(start(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(ZeroDivisionError), shared_cpu.competitors(2):
        assert [process.poll() for process in started] == [None, None]
        raise ZeroDivisionError
    assert len(started) == 2 and all(process.returncode is not None for process in started)


def test_the_fair_share_is_that_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two cores and four competitors: a third of the speed alone would be fair."""
    seconds = iter([1.0, 6.0])
    monkeypatch.setattr(shared_cpu, "COMPETITORS", (0, 4))
    monkeypatch.setattr(shared_cpu, "SETTINGS", {"default": shared_cpu.Setting({}, [])})
    monkeypatch.setattr(shared_cpu, "competitors", lambda count: nullcontext())
    monkeypatch.setattr(shared_cpu.os, "cpu_count", lambda: 2)

    def measured(steps: int, setting: shared_cpu.Setting) -> float:
        return next(seconds)

    monkeypatch.setattr(shared_cpu, "step_seconds", measured)
    bench = Bench("cpu", [1], seconds=0, calls=1, folder=tmp_path)
    alone, shared = shared_cpu.shared_cpu(bench)
    assert alone.case.endswith("0 competitors, default: alone") and alone.ours_ms == 1000
    assert shared.case.endswith("4 competitors, default: 50% of the fair share")


def test_a_run_that_fails_is_named_by_its_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho first >&2\necho the reason >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RuntimeError, match="^the reason$"):
        shared_cpu.step_seconds(1, shared_cpu.Setting({}, []))
    bench = Bench("cpu", [1], seconds=0, calls=1, folder=tmp_path)
    with pytest.raises(RuntimeError, match="^the reason$"):
        cpu_processes.images_per_second(bench, Path("small.yaml"), 1, 8)
