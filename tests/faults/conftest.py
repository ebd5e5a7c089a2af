"""Tools as processes of their own, watched and killed from outside. `make faults` runs this
folder.
"""

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

from swahr.config import load_config
from swahr.models.build import build_model
from tests.engine.conftest import CONFIG, make_images

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ("tools/dist_train.py",)
VALIDATE = ("tools/dist_valid.py",)
RUN = "output/coco_kpt/pose_higher_hrnet/tiny"
EPOCHS = ("TRAIN.END_EPOCH", 6, "TRAIN.VAL_INTERVAL", 3, "PRINT_FREQ", 1)
Weights = dict[str, torch.Tensor]


def _read(path: Path) -> bytes:
    """A file of /proc, empty where the process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Job:
    """A command, with what it says; the processes that it started are known by a variable they have
    all inherited.
    """

    def __init__(self, command: list[str], folder: Path, **options: Any) -> None:
        self.said = folder / f"said_{time.monotonic_ns()}"
        self._mark = f"FAULT_TEST_JOB={self.said}".encode()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FAULT_TEST_JOB": str(self.said)}
        with open(self.said, "wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                **options,
            )

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
        """Its processes that still run, loading workers included."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and self._mark in _read(entry / "environ").split(b"\0")
        ]

    def ranks(self) -> list[int]:
        """Process ids of the training processes that the launcher started, in the order of their
        ranks.
        """
        return sorted(pid for pid in self.pids() if self._is_rank(Path("/proc") / str(pid)))

    def _is_rank(self, entry: Path) -> bool:
        parent = _read(entry / "stat").rpartition(b")")[2].split()[1:2]
        command = _read(entry / "cmdline")
        return parent == [str(self.process.pid).encode()] and (
            b"spawn_main" in command or b"dist_train" in command
        )

    def gone_within(self, seconds: float) -> bool:
        """Whether every process of the session ends in time."""
        end = time.monotonic() + seconds
        while self.pids():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def last_line(self) -> str:
        return self.text().strip().splitlines()[-1]

    def kill(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a data set of 16 training and 2 validation images."""
    return make_images(tmp_path_factory.mktemp("images"), num_train=16)


@pytest.fixture(scope="session")
def write_config(images: Path) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "tiny.yaml"
        path.write_text(CONFIG.format(out=folder, data=images))
        return path

    return write


def start_tool(
    config: Path,
    *arguments: Any,
    tool: tuple[str, ...] = TRAIN,
    launcher: tuple[str, ...] = (),
    **options: Any,
) -> Job:
    command = [sys.executable, *launcher, *tool, "--cfg", str(config), "--device", "cpu"]
    return Job([*command, *map(str, arguments)], config.parent, **options)


@pytest.fixture
def start(tmp_path: Path, write_config: Callable[[Path], Path]) -> Iterator[Callable[..., Job]]:
    """start(*arguments, tool=TRAIN, launcher=(...)) -> the job of a tool; the same folder each
    time. Killed after the test.
    """
    jobs: list[Job] = []
    path = write_config(tmp_path)

    def call(*arguments: Any, **options: Any) -> Job:
        jobs.append(start_tool(path, *arguments, **options))
        return jobs[-1]

    yield call
    for job in jobs:
        job.kill()


@pytest.fixture(scope="session")
def undisturbed(
    write_config: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Weights]:
    """undisturbed(processes) -> the final weights of a run that was left alone."""

    @cache
    def weights_of(processes: int) -> Weights:
        path = write_config(tmp_path_factory.mktemp("undisturbed"))
        job = start_tool(path, "--gpus", processes, *EPOCHS)
        assert job.end() == 0, job.text()
        return weights(path.parent / RUN)

    return weights_of


@pytest.fixture(scope="session")
def untrained(
    write_config: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A file of random weights for the configuration."""
    config = write_config(tmp_path_factory.mktemp("untrained"))
    torch.manual_seed(0)
    torch.save(build_model(load_config(config)).state_dict(), config.with_suffix(".pth"))
    return config.with_suffix(".pth")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / RUN


def weights(folder: Path) -> Weights:
    return torch.load(folder / "final_state.pth.tar", weights_only=True)


def same(ours: Weights, theirs: Weights) -> bool:
    """Equal to the bit."""
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
