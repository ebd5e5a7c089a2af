"""Questions of rank with and without other processes, and two processes doing what one does."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.distributed.elastic.rendezvous.api import RendezvousTimeoutError

from swahr.distributed import comm
from swahr.distributed import launch as launch_module
from swahr.distributed.comm import DeviceError
from swahr.distributed.launch import (
    FAILED,
    Killed,
    LaunchError,
    WorkerError,
    _failed_while_stopping,
    exit_status,
    launch,
)
from swahr.distributed.signals import Interrupted
from tests.engine.distributed_workers import (
    CPU,
    SmallNet,
    collectives,
    fail,
    fail_once,
    fail_while_stopping,
    ignore_signals,
    waiting_time,
    weights_after_steps,
)

ShowGpus = Callable[[int], None]
FAILING_RANK = (
    r"process 1 of the run failed: ZeroDivisionError: the failing rank\n"
    r"Traceback[\s\S]*DivisionError: the failing rank$"
)


@pytest.fixture
def show_gpus(monkeypatch: pytest.MonkeyPatch) -> ShowGpus:
    """show_gpus(n): as if so many were visible."""

    def show(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return show


def test_answers_without_other_processes() -> None:
    assert (comm.rank(), comm.world_size(), comm.local_rank()) == (0, 1, 0)
    assert comm.is_main()
    assert not comm.launched() and not comm.has_group()
    comm.barrier()
    comm.broadcast_buffers(SmallNet())
    with comm.process_group(CPU):
        assert not comm.has_group()
    assert comm.all_gather("x") == ["x"]
    assert comm.reduce_mean({"a": torch.tensor(2.0)}) == {"a": torch.tensor(2.0)}
    assert comm.reduce_max(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_a_group_knows_its_processes_whoever_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (("is_initialized", True), ("get_rank", 3), ("get_world_size", 4)):
        monkeypatch.setattr(comm.dist, name, lambda answer=answer: answer)
    assert (comm.rank(), comm.world_size()) == (3, 4) and not comm.is_main()


@pytest.mark.slow
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are"
)
def test_memory_that_is_freed_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory of the size of large maps is what was freed before, not pages to be cleared;
    unless told otherwise.
    """
    script = (
        "import resource, torch; from swahr.distributed import comm; comm.select_device('cpu')\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): torch.ones(1 << 24)\n"
        "before = faults()\n"
        "for _ in range(5): torch.ones(1 << 24)\n"
        "print((faults() - before) * resource.getpagesize())"
    )

    def cleared() -> int:
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    monkeypatch.setenv("PYTHONPATH", str(Path(comm.__file__).parents[2]))
    assert cleared() < 1 << 24
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert cleared() > 1 << 28


def test_place_told_by_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "localhost",
    }
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert comm.launched() and not comm.is_main()
    assert (comm.rank(), comm.world_size(), comm.local_rank()) == (5, 8, 1)
    monkeypatch.delenv("MASTER_ADDR")  # half a place is none
    assert (comm.rank(), comm.world_size()) == (0, 1)


def test_half_a_place_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="RANK is 1 and WORLD_SIZE is 2, but MASTER_ADDR not set"):
        launch(pytest.fail, ("started",), 1)


def test_the_gpu_of_a_process(show_gpus: ShowGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "pod-0"}.items():
        monkeypatch.setenv(name, value)
    show_gpus(1)
    assert comm.select_device() == torch.device("cuda:0")  # of one pod with one GPU
    show_gpus(4)
    with pytest.raises(DeviceError, match="set without LOCAL_RANK, and 4 GPUs are visible: start"):
        comm.select_device()
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert comm.select_device() == torch.device("cuda:3")


@pytest.mark.parametrize(("visible", "gpu"), [(1, 0), (4, 2)])
def test_the_gpu_of_a_slurm_task(
    show_gpus: ShowGpus, monkeypatch: pytest.MonkeyPatch, visible: int, gpu: int
) -> None:
    """Slurm may show a task its own GPU only."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    task = {"PROCID": "2", "LOCALID": "2", "NTASKS": "4", "JOB_NODELIST": "a"}
    for name, value in task.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    show_gpus(visible)
    assert comm.select_device() == torch.device("cuda", gpu)


@pytest.mark.parametrize(
    ("device", "gpus", "visible", "expected"),
    [
        ("", None, 0, 1),
        ("", None, 4, 4),
        ("", 2, 4, 2),
        ("cpu", None, 4, 1),
        ("cpu", 3, 0, 3),
        ("cuda:2", None, 4, 1),
        ("cuda:2", 1, 4, 1),
        ("cuda", None, 1, 1),
        ("", 3, 0, 3),
    ],
)
def test_number_of_processes(
    show_gpus: ShowGpus, device: str, gpus: int | None, visible: int, expected: int
) -> None:
    show_gpus(visible)
    assert comm.count_processes(device, gpus) == expected


@pytest.mark.parametrize(
    ("device", "gpus", "visible", "message"),
    [
        ("cuda", None, 0, r"cuda was asked for \(--device, DEVICE\), but no GPU is visible"),
        ("cuda", 3, 2, "--gpus 3 was asked for, but 2 GPUs are visible"),
        ("cpu", 0, 0, "--gpus 0 was asked for"),
        ("cuda:1", 4, 4, "^--gpus 4: the device is cuda:1 alone; give one of them$"),
    ],
)
def test_processes_that_cannot_be(
    show_gpus: ShowGpus, device: str, gpus: int | None, visible: int, message: str
) -> None:
    show_gpus(visible)
    with pytest.raises(DeviceError, match=message):
        comm.count_processes(device, gpus)


def test_select_device(show_gpus: ShowGpus) -> None:
    assert comm.select_device("cpu") == CPU
    show_gpus(1)
    said = (
        '^GPU 3 was asked for, but 1 GPU is visible; device="cpu" in Python and --device cpu '
        r"\(DEVICE cpu\) on the command line need none$"
    )
    with pytest.raises(DeviceError, match=said):
        comm.select_device("cuda:3")
    with pytest.raises(DeviceError, match="DEVICE is 'tpu'"):
        comm.select_device("tpu")


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(8, 1, []), (8, 2, [4]), (7, 3, [2]), (2, 4, [1])]
)
def test_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, threads: list[int]
) -> None:
    """Unless the user has said how many threads they have."""
    chosen: list[int] = []
    monkeypatch.setattr(comm, "count_cores", lambda: cores)
    monkeypatch.setattr(comm, "local_world_size", lambda: processes)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    comm.limit_threads()
    assert chosen == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    comm.limit_threads()
    assert chosen == threads


def test_each_launch_has_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also two by one program."""
    ids = set()
    for run in ("a", "a", "b"):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", run)
        ids.add(comm.launcher_id())
    assert len(ids) == 2


def test_two_processes_do_what_one_does() -> None:
    """Collectives, and the weights after several steps: each process has half of every batch, in
    two accumulated parts.
    """
    found = launch(collectives, (), 2)
    assert found is not None
    for rank, answers in enumerate(found["all"]):
        assert answers["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert answers["mean"] == {"a": 0.5, "b": 1.0} and answers["max"] == [1.0, 5.0]
        assert answers["buffer"] == [1.0, 1.0] and answers["main"] == (rank == 0)
        assert answers["place"] == (rank, 2, rank)
    for ours, theirs in zip(weights_after_steps(1), found["weights"], strict=True):
        torch.testing.assert_close(torch.tensor(theirs), ours, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("how", "message", "status"),
    [
        pytest.param("raise", FAILING_RANK, 1, marks=pytest.mark.slow),
        ("kill", r"^process 1 of the run failed: Signal 9 \(SIGKILL\) received by PID \d+$", 137),
        pytest.param(
            "known", r"^person_keypoints.json: line 3 is wrong$", 2, marks=pytest.mark.slow
        ),
        pytest.param("interrupted", "^stopped by SIGTERM$", 143, marks=pytest.mark.slow),
    ],
)
def test_the_failing_rank_is_named(how: str, message: str, status: int) -> None:
    with pytest.raises(WorkerError, match=message) as caught:
        launch(fail, (1, how), 2)
    assert caught.value.exit_status == status


def test_nodes_that_cannot_be() -> None:
    for nodes in (0, -1):
        with pytest.raises(LaunchError, match=f"^--world-size {nodes}: it must be 1 or more$"):
            launch(fail, (), 1, nodes=nodes)
    with pytest.raises(
        LaunchError, match="--rank 2 of --world-size 2: nodes are numbered from 0 to 1"
    ):
        launch(fail, (), 1, nodes=2, node_rank=2, url="tcp://localhost:1")
    for url in ("localhost:1", "tcp://localhost", "tcp://localhost:x", ""):
        with pytest.raises(LaunchError, match="need tcp://HOST:PORT"):
            launch(fail, (), 1, nodes=2, url=url)


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(LaunchError) as caught:
            launch(fail, (), 1, nodes=2, url=f"tcp://{address}")
    assert str(caught.value) == f"{address}: the nodes cannot meet there (address already in use)"


@pytest.mark.parametrize(
    ("rank", "refuses", "error", "reason"),
    [
        (0, "getaddrinfo", socket.gaierror(-2, "Name or service not known"), "Name or service not"),
        (1, "create_connection", ConnectionRefusedError(111, "Connection refused"), "Connection r"),
        (1, "create_connection", UnicodeError("label empty"), "not the name of a host"),
    ],
)
def test_a_node_0_that_cannot_be_reached_is_named(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rank: int,
    refuses: str,
    error: Exception,
    reason: str,
) -> None:
    """It is waited for, which is said once."""
    waited: list[float] = []
    monkeypatch.setattr(socket, refuses, Mock(side_effect=error))
    monkeypatch.setattr(launch_module.time, "monotonic", lambda: 200.0 * len(waited))
    monkeypatch.setattr(launch_module.time, "sleep", waited.append)
    said = rf"^--dist-url tcp://node0:1: node 0 could not be reached in 300 s \({reason}.*\)$"
    with pytest.raises(LaunchError, match=said):
        launch(fail, (), 1, nodes=2, node_rank=rank, url="tcp://node0:1")
    [line] = caplog.messages
    assert line.startswith(f"waiting for node 0 at tcp://node0:1 ({reason}") and len(waited) == 2


@pytest.mark.parametrize("met", [False, True])
def test_nodes_that_do_not_meet(monkeypatch: pytest.MonkeyPatch, met: bool) -> None:
    """An error after they have met has nothing to do with the address."""

    def elastic_launch(config: Any, entrypoint: Any) -> Callable[..., None]:
        def start(function: Any, args: tuple, folder: str) -> None:
            (Path(folder) / f"run/{'attempt_0' if met else 'other'}").mkdir(parents=True)
            raise RendezvousTimeoutError

        return start

    monkeypatch.setattr(launch_module, "elastic_launch", elastic_launch)
    with pytest.raises((LaunchError, RendezvousTimeoutError)) as caught:
        launch(fail, (), 1, nodes=2, url="tcp://localhost:1")
    if met:
        assert caught.type is RendezvousTimeoutError
    else:
        assert str(caught.value) == "localhost:1: not all nodes came there in time"


@pytest.mark.parametrize("stubborn", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_processes_that_do_not_stop_in_time_are_named(stubborn: int) -> None:
    expected = Killed if stubborn == 1 else Interrupted
    with pytest.raises(expected) as caught:
        launch(ignore_signals, (stubborn,), 2, stop_seconds=3)
    if stubborn == 1:
        assert str(caught.value) == (
            "SIGTERM: process 1 killed after 3 s (STOP_SECONDS), nothing saved since the last "
            "checkpoint"
        )
    assert exit_status(caught.value) == (4 if stubborn == 1 else 143)


@pytest.mark.parametrize(
    ("how", "error", "message", "status"),
    [
        ("known", WorkerError, r"^a.pth.tar: could not be written \(No space left on device\)$", 3),
        pytest.param("raise", WorkerError, FAILING_RANK, 1, marks=pytest.mark.slow),
        pytest.param("stop", Interrupted, "^stopped by SIGTERM$", 143, marks=pytest.mark.slow),
    ],
)
def test_an_error_after_a_signal_is_told(
    how: str, error: type[BaseException], message: str, status: int
) -> None:
    """Unless all that happened is that a process waited for one that had stopped already."""
    with pytest.raises(error, match=message) as caught:
        launch(fail_while_stopping, (how,), 2)
    assert exit_status(caught.value) == status


def test_an_error_from_before_a_restart_is_not_told(tmp_path: Path) -> None:
    for attempt, name in ((9, FAILED), (10, "other")):
        folder = tmp_path / f"run/attempt_{attempt}/0"
        folder.mkdir(parents=True)
        (folder / name).write_text("0 3")
        (folder / "error.json").write_text('{"message": {"message": "WriteError: a"}}')
    assert _failed_while_stopping(str(tmp_path)) is None
    (folder / FAILED).write_text("0 3")
    assert str(_failed_while_stopping(str(tmp_path))) == "a"


@pytest.mark.slow
def test_a_process_is_restarted(tmp_path: Path) -> None:
    """Also a single one."""
    assert launch(fail_once, (tmp_path,), 1, restarts=1) == 2


def test_restarts_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match="--restarts -1: it must be 0 or more"):
        launch(fail, (), 1, restarts=-1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=r"--restarts 2: another launcher .* \(torchrun"):
        launch(fail, (), 1, restarts=2)


@pytest.mark.slow
def test_the_time_that_processes_wait_for_each_other() -> None:
    assert launch(waiting_time, (7.0,), 2) == 7.0


@pytest.mark.parametrize(
    ("rank", "given"),
    [
        (
            "SLURM_PROCID",
            {"SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost"},
        ),
        pytest.param(
            "RANK", {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}, marks=pytest.mark.slow
        ),
    ],
)
def test_processes_of_a_scheduler_are_joined(
    monkeypatch: pytest.MonkeyPatch, rank: str, given: dict[str, str]
) -> None:
    script = (
        "from swahr.distributed.launch import launch\n"
        "from tests.engine.distributed_workers import collectives\n"
        "print([answers['place'] for answers in launch(collectives)['all']])"
    )
    root = Path(comm.__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root / 'lib'}:{root}")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    processes = []
    for number in "10":
        monkeypatch.setenv(rank, number)
        command = [sys.executable, "-c", script]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert said == 2 * ["[(0, 2, 0), (1, 2, 0)]\n"]
