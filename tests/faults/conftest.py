"""Training runs as processes of their own, watched and killed from outside. `make faults` runs this folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.conftest import CONFIG

ROOT = Path(__file__).resolve().parents[2]
RUN = "output/coco_kpt/pose_higher_hrnet/tiny"
EPOCHS = ("TRAIN.END_EPOCH", 6, "TRAIN.VAL_INTERVAL", 3, "PRINT_FREQ", 1)
Weights = dict[str, torch.Tensor]


class Job:
    """A command in a session of its own, with what it says; everything it started is known by that session."""

    def __init__(self, command: list[str], folder: Path, **options: Any) -> None:
        self.said = folder / f"said_{time.monotonic_ns()}"
        with open(self.said, "wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)

    def text(self) -> str:
        return self.said.read_text()

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Until the job has said something."""
        end = time.monotonic() + seconds
        while text not in self.text():
            assert self.process.poll() is None, f"ended before it said {text!r}:\n{self.text()}"
            assert time.monotonic() < end, f"did not say {text!r} in {seconds} s:\n{self.text()}"
            time.sleep(0.02)

    def end(self, seconds: float = 300) -> int:
        """The exit status, once it is over; fails if it takes longer."""
        return self.process.wait(seconds)

    def pids(self) -> list[int]:
        """Processes of its session that still run, workers and zombies' children included."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:  # it has just ended
                    continue
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return found

    def ranks(self) -> list[int]:
        """Process ids of the training processes, in the order of their ranks."""
        ranks = {}
        for pid in self.pids():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                environment = dict(part.split(b"=", 1) for part in variables if b"=" in part)
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if b"RANK" in environment and parent not in ranks.values() and b"dist_train" in command:
                ranks[int(environment[b"RANK"])] = pid
        return [ranks[rank] for rank in sorted(ranks)]

    def gone_within(self, seconds: float) -> bool:
        """Whether every process of the session ends in time."""
        end = time.monotonic() + seconds
        while self.pids():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def kill(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a data set of 16 training and 2 validation pictures."""
    from swahr.data.synthetic import SceneSettings, write_dataset

    root = tmp_path_factory.mktemp("pictures")
    scenes = SceneSettings(width=(64, 80), height=(64, 80), people=(1, 2), figure_height=(0.5, 0.9), unlabelled=0.0)
    write_dataset(root, num_train=16, num_val=2, seed=1, settings=scenes)
    return root


@pytest.fixture(scope="session")
def write_config(pictures: Path) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "tiny.yaml"
        path.write_text(CONFIG.format(out=folder, data=pictures))
        return path

    return write


def start_training(config: Path, *arguments: Any, launcher: tuple[str, ...] = (), **options: Any) -> Job:
    command = [sys.executable, *launcher, str(ROOT / "tools/dist_train.py"), "--cfg", str(config), "--device", "cpu"]
    return Job([*command, *map(str, arguments)], config.parent, **options)


@pytest.fixture
def start(tmp_path: Path, write_config: Callable[[Path], Path]) -> Iterator[Callable[..., Job]]:
    """start(*arguments, launcher=(...)) -> the job of tools/dist_train.py; the same folder each time. Killed after the
    test.
    """
    jobs: list[Job] = []
    path = write_config(tmp_path)

    def call(*arguments: Any, **options: Any) -> Job:
        jobs.append(start_training(path, *arguments, **options))
        return jobs[-1]

    yield call
    for job in jobs:
        job.kill()


@pytest.fixture(scope="session")
def undisturbed(write_config: Callable[[Path], Path],
                tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Weights]:
    """undisturbed(processes) -> the final weights of a run that was left alone."""
    @cache
    def weights_of(processes: int) -> Weights:
        path = write_config(tmp_path_factory.mktemp("undisturbed"))
        job = start_training(path, "--gpus", processes, *EPOCHS)
        assert job.end() == 0, job.text()
        return weights(path.parent / RUN)

    return weights_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / RUN


def weights(folder: Path) -> Weights:
    return torch.load(folder / "final_state.pth.tar", weights_only=True)


def same(ours: Weights, theirs: Weights) -> bool:
    """Equal to the bit."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
