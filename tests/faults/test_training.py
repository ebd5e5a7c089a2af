"""Machines that die, signals, lost processes and nodes, full disks: training comes back to where it
was, or says why not.
"""

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

from tests.faults.conftest import EPOCHS, Job, Weights, same, weights

Start = Callable[..., Job]
Undisturbed = Callable[[int], Weights]
TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node=2",
    "--max-restarts=1",
    "--monitor-interval=0.5",
)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 0)])
def test_kill_at_any_moment(
    start: Start, folder: Path, undisturbed: Undisturbed, processes: int, workers: int
) -> None:
    """The whole job is killed again and again, at moments drawn at random; the same command ends
    with the same bits.
    """
    options = ("--gpus", processes, *EPOCHS, "WORKERS", workers, "TRAIN.CHECKPOINT_MINUTES", 0.001)
    steps = 8 // processes
    draw = random.Random(0)
    for epoch in range(1, 6):
        job = start(*options)
        job.wait_for(f"epoch {epoch}/6, step {draw.randint(1, steps)}/{steps}")
        time.sleep(draw.uniform(0.0, 0.2))
        job.kill()
    job = start(*options)
    assert job.end() == 0, job.text()
    assert same(weights(folder), undisturbed(processes))


@pytest.mark.parametrize(
    ("number", "processes", "whole_job"),
    [
        (signal.SIGTERM, 1, False),
        (signal.SIGUSR1, 1, True),
        (signal.SIGUSR1, 2, False),
        (signal.SIGTERM, 2, True),
    ],
)
def test_signals(
    start: Start,
    folder: Path,
    undisturbed: Undisturbed,
    number: int,
    processes: int,
    whole_job: bool,
) -> None:
    """Sent to the process that was started, or by a scheduler to the whole job, loading workers
    included.
    """
    options = ("--gpus", processes, *EPOCHS, "WORKERS", 1)
    job = start(*options)
    job.wait_for("epoch 2/6, step 1/")
    for pid in job.pids() if whole_job else [job.process.pid]:
        os.kill(pid, number)
    assert job.end(60) == 128 + number, job.text()
    assert job.gone_within(10) and f"stopped by {signal.Signals(number).name}" in job.text(), (
        job.text()
    )
    job = start(*options)
    assert job.end() == 0 and "resuming from" in job.text(), job.text()
    assert same(weights(folder), undisturbed(processes))


@pytest.mark.parametrize("victim", [0, 1])
def test_elastic_restart(start: Start, folder: Path, undisturbed: Undisturbed, victim: int) -> None:
    """Under torchrun, a killed worker costs the steps since the last checkpoint, even without
    AUTO_RESUME.
    """
    job = start(*EPOCHS, "AUTO_RESUME", False, launcher=TORCHRUN)
    job.wait_for("epoch 2/6, step 2/")
    os.kill(job.ranks()[victim], signal.SIGKILL)
    assert job.end() == 0, job.text()
    assert "resuming from" in job.text() and same(weights(folder), undisturbed(2))


def test_two_nodes(start: Start, folder: Path, undisturbed: Undisturbed) -> None:
    """Two launchers on the loopback address with one process each do what one launcher with two
    processes does.
    """
    url = f"tcp://127.0.0.1:{free_port()}"
    nodes = [
        start("--gpus", 1, "--world-size", 2, "--rank", rank, "--dist-url", url, *EPOCHS)
        for rank in (1, 0)
    ]
    assert [node.end() for node in nodes] == [0, 0], "\n".join(node.text() for node in nodes)
    assert same(weights(folder), undisturbed(2))


@pytest.mark.parametrize(("victim", "auto_resume"), [(0, False), (1, False), (1, True)])
def test_elastic_restart_of_two_nodes(
    start: Start, folder: Path, undisturbed: Undisturbed, victim: int, auto_resume: bool
) -> None:
    """A worker dies on one of two nodes; the launchers, which count restarts for themselves, start
    both again.
    """
    options = (*EPOCHS, "AUTO_RESUME", auto_resume)
    launcher = (
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=1",
        "--max-restarts=2",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{free_port()}",
        "--local-addr=127.0.0.1",
        "--monitor-interval=0.5",
    )
    nodes = [start(*options, launcher=launcher) for _ in range(2)]
    while not any("epoch 2/6, step 2/" in node.text() for node in nodes):
        assert all(node.process.poll() is None for node in nodes), "\n".join(
            node.text() for node in nodes
        )
        time.sleep(0.02)
    os.kill(nodes[victim].ranks()[0], signal.SIGKILL)
    assert [node.end() for node in nodes] == [0, 0], "\n".join(node.text() for node in nodes)
    assert same(weights(folder), undisturbed(2))


@pytest.mark.parametrize(("victim", "workers"), [(0, 2), (1, 0)])
def test_a_killed_process_takes_the_others_down(start: Start, victim: int, workers: int) -> None:
    job = start(
        "--gpus", 2, *EPOCHS, "WORKERS", workers, "TRAIN.END_EPOCH", 1000, "TRAIN.VAL_INTERVAL", 0
    )
    job.wait_for("epoch 2/1000, step 1/")
    os.kill(job.ranks()[victim], signal.SIGKILL)
    assert job.end(60) == 137, job.text()
    assert job.gone_within(10)
    assert (
        f"process {victim} of the run failed: Signal 9 (SIGKILL)"
        in job.text().strip().splitlines()[-1]
    )


def test_a_killed_launcher_leaves_no_orphans(start: Start, folder: Path) -> None:
    job = start(
        "--gpus", 2, *EPOCHS, "WORKERS", 2, "TRAIN.END_EPOCH", 1000, "TRAIN.VAL_INTERVAL", 0
    )
    job.wait_for("epoch 2/1000, step 1/")
    os.kill(job.process.pid, signal.SIGKILL)
    assert job.gone_within(60), job.text()
    assert (folder / "checkpoint.pth.tar").exists()


def test_an_image_that_one_process_cannot_read(start: Start, tmp_path: Path, images: Path) -> None:
    """Its line is the last thing said, once, without a traceback."""
    shutil.copytree(images, tmp_path / "damaged")
    broken = sorted((tmp_path / "damaged/images/train2017").iterdir())[5]
    broken.write_bytes(broken.read_bytes()[:100])
    options = (*EPOCHS, "DATASET.ROOT", tmp_path / "damaged", "TRAIN.END_EPOCH", 1)
    for arguments in (("--gpus", 2, "WORKERS", 2), ("WORKERS", 2)):
        job = (
            start(*arguments[:2], *options, *arguments[2:])
            if "--gpus" in arguments
            else start(*options, *arguments)
        )
        assert job.end() == 2, job.text()
        assert job.gone_within(10)
        assert (
            str(broken) in job.text().strip().splitlines()[-1] and "Traceback" not in job.text()
        ), job.text()
    job = start("--gpus", 2, *options, "DATASET.ON_BAD_SAMPLE", "skip")
    assert job.end() == 0 and "replaced by others: 1" in job.text(), job.text()


def test_a_full_disk(start: Start, folder: Path, undisturbed: Undisturbed) -> None:
    """No file may grow beyond 64 KiB: the run ends with one line, and resumes once there is
    room.
    """
    options = ("--gpus", 2, *EPOCHS)
    job = start(*options)
    job.wait_for("epoch 2/6, step 1/")
    os.kill(job.process.pid, signal.SIGTERM)
    assert job.end() == 143
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth.tar")}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    job = start(*options, preexec_fn=limit)
    assert job.end() == 3, job.text()
    last = "checkpoint.pth.tar: could not be written (File too large); what was there is whole"
    assert last in job.text().strip().splitlines()[-1] and "Traceback" not in job.text(), job.text()
    assert {path.name: path.read_bytes() for path in folder.glob("*.pth.tar")} == before
    assert start(*options).end() == 0
    assert same(weights(folder), undisturbed(2))
