"""Runs in processes of their own: at the same time, failing, and stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from swahr.ablation.plan import PlannedRun, find_files, plan_runs
from swahr.ablation.processes import RunProcesses, make_slots

# Stands for the command that trains: writes what it was given; the network "both" fails.
PROGRAM = """
import json, os, sys
print("started")
if "both" in sys.argv[2]:
    print("\\nboth cannot be trained\\n")
    sys.exit(3)
seed = sys.argv[sys.argv.index("TRAIN.SEED") + 1]
with open(os.environ["OUT"] + "/" + seed, "w") as file:
    json.dump([sys.argv[1:], os.environ.get("CUDA_VISIBLE_DEVICES")], file)
"""
# Waits for a signal, and says that it got it.
WAITING = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(int(os.environ["PARENT"]), signal.SIGINT)
signal.sigwait([signal.SIGTERM])
open(os.environ["OUT"] + "/saved", "w").close()
"""


@pytest.fixture
def runs(toy: Path) -> list[PlannedRun]:
    return [run for group in plan_runs(find_files([toy]), 2).values() for run in group]


def command(program: str, folder: Path) -> list[str]:
    path = folder / "program.py"
    path.write_text(program)
    return [sys.executable, "-S", str(path)]


def test_a_run_that_fails_does_not_stop_the_others(
    runs: list[PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    slots = make_slots(0, ["3", "5"], 2)
    problems = RunProcesses(slots, ["my_loss"], command(PROGRAM, tmp_path)).run(runs)
    assert set(problems) == {"toy_both_seed0", "toy_both_seed1"}
    log = runs[0].folder / "train_output.txt"
    assert problems["toy_both_seed0"] == f"exit status 3: both cannot be trained ({log})"
    for seed in "01":
        text = (tmp_path / seed).read_text()
        assert f'"TRAIN.SEED", "{seed}"' in text and '"--import", "my_loss"' in text
        assert '"3"]' in text or '"5"]' in text


def test_a_trained_run_is_tested_only(
    runs: list[PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    run = runs[2]
    run.weights.parent.mkdir(parents=True)
    run.weights.touch()
    processes = RunProcesses(
        [{}],
        train_command=[str(tmp_path / "none")],
        test_command=command(PROGRAM, tmp_path),
    )
    assert processes.run([run]) == {}
    assert (run.folder / "test_output.txt").read_text() == "started\n"
    words = json.loads((tmp_path / "0").read_text())[0]
    assert words[-2:] == ["TEST.MODEL_FILE", str(run.weights)]


def test_an_interrupt_lets_the_runs_save_and_starts_no_more(
    runs: list[PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("PARENT", str(os.getpid()))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            RunProcesses([{}], train_command=command(WAITING, tmp_path)).run(runs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "saved").exists()
    assert [run.folder.exists() for run in runs[:1]] == [True]
    assert not (runs[-1].folder / "final_state.pth.tar").exists()


def test_a_program_that_is_not_there_is_a_failure(runs: list[PlannedRun], tmp_path: Path) -> None:
    problems = RunProcesses([{}], train_command=[str(tmp_path / "none")]).run(runs[:1])
    assert "No such file" in problems[runs[0].name]


def test_processes_share_gpus_or_cores() -> None:
    assert make_slots(0, [], 4) == [{}]
    assert make_slots(2, [], 5) == [{"OMP_NUM_THREADS": "2"}] * 2
    assert make_slots(9, [], 2)[0] == {"OMP_NUM_THREADS": "1"}
    assert make_slots(0, ["1", "2"], 8) == [
        {"CUDA_VISIBLE_DEVICES": "1"},
        {"CUDA_VISIBLE_DEVICES": "2"},
    ]
    assert make_slots(3, ["0"], 8) == [{"CUDA_VISIBLE_DEVICES": "0"}] * 3
