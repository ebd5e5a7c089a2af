"""Machines that die, signals, lost processes and nodes, full disks: training comes back to where it was, or says why not."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Job, same, weights

Start = Callable[..., Job]
EPOCHS = ("TRAIN.END_EPOCH", 6, "TRAIN.VAL_INTERVAL", 2, "PRINT_FREQ", 1)
TORCHRUN = ("-m", "torch.distributed.run")


def finished(start: Start, folder: Path, *arguments: object, **options: object) -> dict:
    """The weights of a run that is left alone; its folder is removed."""
    job = start(*arguments, **options)
    assert job.end() == 0, job.text()
    final = weights(folder)
    shutil.rmtree(folder)
    return final


@pytest.mark.parametrize("arguments", [("WORKERS", 0), ("WORKERS", 2), ("--gpus", 2)], ids=["plain", "workers", "two"])
def test_kill_at_any_moment(start: Start, folder: Path, arguments: tuple) -> None:
    """The whole job is killed again and again, at moments drawn at random; the same command ends with the same bits."""
    options = arguments + EPOCHS if arguments[0] == "--gpus" else EPOCHS + arguments
    expected = finished(start, folder, *options)
    draw = random.Random(0)
    for _ in range(6):
        job = start(*options, "TRAIN.CHECKPOINT_MINUTES", 0.001)
        job.wait_for("images; an epoch is")
        time.sleep(draw.uniform(0.0, 2.0))
        job.kill()
    job = start(*options)
    assert job.end() == 0, job.text()
    assert same(weights(folder), expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("arguments", [(), ("--gpus", 2)], ids=["one", "two"])
@pytest.mark.parametrize("whole_job", [False, True], ids=["launcher", "everyone"])
def test_signals(start: Start, folder: Path, number: int, arguments: tuple, whole_job: bool) -> None:
    """Sent to the process that was started, or by a scheduler to all of the job, loading workers included."""
    options = (*arguments, *EPOCHS, "WORKERS", 2)
    expected = finished(start, folder, *options)
    job = start(*options)
    job.wait_for("epoch 3/6, step 1/")
    for pid in job.pids() if whole_job else [job.process.pid]:
        os.kill(pid, number)
    assert job.end(40) == 128 + number, job.text()
    assert job.gone_within(10) and f"stopped by {signal.Signals(number).name}" in job.text()
    job = start(*options)
    assert job.end() == 0 and "going on from" in job.text(), job.text()
    assert same(weights(folder), expected)


@pytest.mark.parametrize("victim", [0, 1])
def test_elastic_restart(start: Start, folder: Path, victim: int) -> None:
    """Under torchrun, a killed worker costs the steps since the last checkpoint, even without AUTO_RESUME."""
    launcher = (*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.5")
    options = (*EPOCHS, "AUTO_RESUME", False)
    expected = finished(start, folder, *options, launcher=launcher)
    job = start(*options, launcher=launcher)
    job.wait_for("epoch 3/6, step 2/")
    os.kill(job.ranks()[victim], signal.SIGKILL)
    assert job.end() == 0, job.text()
    assert "going on from" in job.text() and same(weights(folder), expected)


def test_two_nodes(start: Start, folder: Path) -> None:
    """Two launchers on the loopback address with one process each do what one launcher with two processes does."""
    expected = finished(start, folder, "--gpus", 2, *EPOCHS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    nodes = [start("--gpus", 1, "--world-size", 2, "--rank", rank, "--dist-url", url, *EPOCHS) for rank in (1, 0)]
    assert [node.end() for node in nodes] == [0, 0], "\n".join(node.text() for node in nodes)
    assert same(weights(folder), expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_takes_the_others_down(start: Start, victim: int, workers: int) -> None:
    job = start("--gpus", 2, *EPOCHS, "WORKERS", workers, "TRAIN.END_EPOCH", 1000, "TRAIN.VAL_INTERVAL", 0)
    job.wait_for("epoch 2/1000, step 1/")
    os.kill(job.ranks()[victim], signal.SIGKILL)
    assert job.end(60) == 137, job.text()
    assert job.gone_within(10)
    assert f"process {victim} of the run failed: Signal 9 (SIGKILL)" in job.text().strip().splitlines()[-1]


def test_a_killed_launcher_leaves_no_orphans(start: Start, folder: Path) -> None:
    job = start("--gpus", 2, *EPOCHS, "WORKERS", 2, "TRAIN.END_EPOCH", 1000, "TRAIN.VAL_INTERVAL", 0)
    job.wait_for("epoch 2/1000, step 1/")
    os.kill(job.process.pid, signal.SIGKILL)
    assert job.gone_within(60), job.text()
    assert (folder / "checkpoint.pth.tar").exists()


def test_an_image_that_one_process_cannot_read(start: Start, tmp_path: Path, pictures: Path) -> None:
    """Its line is the last thing said, once, without a traceback."""
    shutil.copytree(pictures, tmp_path / "damaged")
    broken = sorted((tmp_path / "damaged/images/train2017").iterdir())[5]
    broken.write_bytes(broken.read_bytes()[:100])
    for arguments in (("--gpus", 2), ("--gpus", 2, "WORKERS", 2), ("WORKERS", 2)):
        job = start(*arguments, *EPOCHS, "DATASET.ROOT", tmp_path / "damaged", "AUTO_RESUME", False)
        assert job.end(60) == 2, job.text()
        assert job.gone_within(10)
        assert str(broken) in job.text().strip().splitlines()[-1] and "Traceback" not in job.text(), job.text()
    job = start("--gpus", 2, *EPOCHS, "DATASET.ROOT", tmp_path / "damaged", "DATASET.ON_BAD_SAMPLE", "skip")
    assert job.end() == 0 and "1 images could not be read" in job.text(), job.text()


@pytest.mark.parametrize("arguments", [(), ("--gpus", 2)], ids=["one", "two"])
def test_a_full_disk(start: Start, folder: Path, arguments: tuple) -> None:
    """No file may grow beyond 64 KiB: the run ends with one line, and what was there before goes on once there is room."""
    expected = finished(start, folder, *arguments, *EPOCHS)
    job = start(*arguments, *EPOCHS)
    job.wait_for("epoch 3/6, step 1/")
    os.kill(job.process.pid, signal.SIGTERM)
    assert job.end() == 143
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth.tar")}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    job = start(*arguments, *EPOCHS, preexec_fn=limit)
    assert job.end(60) == 1, job.text()
    assert "checkpoint.pth.tar: could not be written (File too large); earlier files are whole" in job.text().strip().splitlines()[-1]
    assert "Traceback" not in job.text(), job.text()
    assert {path.name: path.read_bytes() for path in folder.glob("*.pth.tar")} == before
    assert start(*arguments, *EPOCHS).end() == 0
    assert same(weights(folder), expected)


def test_memory_stays_flat(start: Start, folder: Path) -> None:
    """The memory of a run with workers, all its processes together, after 20 epochs and after 200."""

    def memory(job: Job) -> float:
        total = 0
        for pid in job.pids():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    job = start("WORKERS", 2, "TRAIN.END_EPOCH", 210, "TRAIN.VAL_INTERVAL", 0, "PRINT_FREQ", 1000, "DEBUG.DEBUG", False)
    job.wait_for("epoch 20/210, step 8/8")
    early = memory(job)
    job.wait_for("epoch 200/210, step 8/8", seconds=400)
    assert memory(job) < 1.05 * early
