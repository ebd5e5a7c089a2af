"""Rank, world size, device and small collectives, with or without a process group.

Every function also works in a plain process, which is rank 0 of 1, so no caller has to ask whether
training is distributed. Processes are started by `swahr.distributed.launch.launch`, torchrun, srun
or Kubeflow, see `swahr.distributed.place`.
"""

from __future__ import annotations

import datetime
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from swahr.allocator import keep_memory
from swahr.distributed.free_cores import count_cores
from swahr.distributed.place import find_place

T = TypeVar("T")

# The longest that one rank may wait for another, for instance while rank 0 scores a validation.
TIMEOUT_MINUTES = 30.0
KEPT_MEMORY = (1 << 31) - 1  # bytes that a process on the CPU keeps when they are freed
ELASTIC_RUN = "TORCHELASTIC_RUN_ID"  # set for processes of torchrun and of our own launcher only


class DeviceError(ValueError):
    """A device that does not exist; the message says which ones do."""


def launched() -> bool:
    """Whether a launcher started this process and told it its rank."""
    return find_place() is not None


def has_group() -> bool:
    """Whether this process is in a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The index of this process among those of all nodes; 0 for a single one."""
    if has_group():
        return dist.get_rank()
    place = find_place()
    return place.rank if place else 0


def world_size() -> int:
    """The number of processes of all nodes together."""
    if has_group():
        return dist.get_world_size()
    place = find_place()
    return place.world_size if place else 1


def local_rank() -> int:
    """The index of this process on its node; 0 if nobody gave it."""
    place = find_place()
    return place.local_rank or 0 if place else 0


def local_world_size() -> int:
    """The number of processes on this node."""
    place = find_place()
    return place.local_world_size if place else 1


def is_main() -> bool:
    """Whether this process is rank 0, which logs and writes."""
    return rank() == 0


def select_device(name: str = "") -> torch.device:
    """The device of this process.

    name: '' (a GPU if there is one), 'cpu', 'cuda' (the GPU of the local rank) or 'cuda:3'. Indices
    count the visible GPUs, so CUDA_VISIBLE_DEVICES is respected. On the CPU, freed memory is
    kept, see `allocator.keep_memory`. Raises DeviceError if the GPU does not exist.
    """
    kind, _, index = (name or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")
    if kind == "cpu":
        keep_memory(KEPT_MEMORY)
        return torch.device("cpu")
    if kind != "cuda":
        raise DeviceError(
            f"DEVICE is {name!r}; it must be '' (a GPU if there is one), cpu, cuda or cuda:NUMBER"
        )
    gpu = int(index) if index.isdigit() else _gpu_of_process()
    if gpu >= torch.cuda.device_count():
        raise DeviceError(
            f"GPU {gpu} was asked for, but {_count_gpus()}; "
            'device="cpu" in Python and --device cpu (DEVICE cpu) on the command line need none'
        )
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device


def _gpu_of_process() -> int:
    """The index of this process's GPU among the visible ones.

    That of LOCAL_RANK, or the only GPU that Slurm shows to a task. Raises DeviceError if there are
    several and nobody said which one.
    """
    place = find_place()
    if place is None:
        return 0
    visible = torch.cuda.device_count()
    if place.local_rank is None and visible > 1:
        raise DeviceError(
            f"RANK and WORLD_SIZE are set without LOCAL_RANK, and {_count_gpus()}: start one "
            "process for each GPU with torchrun, or set LOCAL_RANK"
        )
    return 0 if place.from_slurm and visible == 1 else place.local_rank or 0


def count_processes(device: str = "", gpus: int | None = None) -> int:
    """The number of processes to start on this node.

    gpus: that number if given; otherwise one for each visible GPU, or one on the CPU. Raises
    DeviceError for more processes than visible GPUs, unless they run on the CPU.
    """
    on_gpu = device.startswith("cuda") or (not device and torch.cuda.is_available())
    available = torch.cuda.device_count() if on_gpu else 0
    if on_gpu and available == 0:
        raise DeviceError(f"cuda was asked for (--device, DEVICE), but {_count_gpus()}")
    if ":" in device:
        if gpus not in (None, 1):
            raise DeviceError(f"--gpus {gpus}: the device is {device} alone; give one of them")
        return 1
    if gpus is None:
        return max(available, 1)
    if gpus < 1 or (on_gpu and gpus > available):
        raise DeviceError(
            f"--gpus {gpus} was asked for, but {_count_gpus()}; "
            "--device cpu takes any number from 1"
        )
    return gpus


def limit_threads() -> None:
    """Divide the cores of this node among its processes, unless OMP_NUM_THREADS is set."""
    if local_world_size() == 1 or "OMP_NUM_THREADS" in os.environ:
        return
    torch.set_num_threads(max(1, count_cores() // local_world_size()))


def init_process_group(
    device: torch.device, backend: str = "", minutes: float = TIMEOUT_MINUTES
) -> None:
    """Join the processes that a launcher started.

    Does nothing in a plain process, or if there is a group already. backend: of GPU tensors ('' is
    nccl); objects and CPU tensors always use gloo. minutes: the longest wait for another process.
    """
    limit_threads()
    place = find_place()
    if has_group() or place is None or place.world_size == 1:
        return
    os.environ.update(place.variables())
    timeout = datetime.timedelta(minutes=minutes)
    on_gpu = device.type == "cuda" and backend != "gloo"
    dist.init_process_group(
        f"cpu:gloo,cuda:{backend or 'nccl'}" if on_gpu else "gloo",
        timeout=timeout,
        store=_fresh_store(timeout),
        rank=place.rank,
        world_size=place.world_size,
    )


def destroy_process_group() -> None:
    """Leave the process group, if there is one."""
    if has_group():
        dist.destroy_process_group()


@contextmanager
def process_group(
    device: torch.device, backend: str = "", minutes: float = TIMEOUT_MINUTES
) -> Iterator[None]:
    """A process group while the block runs.

    After an error it is not destroyed: that would wait for processes that may never answer.
    """
    init_process_group(device, backend, minutes)
    yield
    destroy_process_group()


def barrier() -> None:
    """Wait until every process gets here. Uses the CPU, so that it does not wait for a GPU."""
    if has_group():
        dist.all_reduce(torch.zeros(1))


def all_gather(value: T) -> list[T]:
    """The picklable values of all processes, in the order of their ranks, on every process."""
    if not has_group():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def reduce_max(values: Tensor) -> Tensor:
    """The element-wise maximum over all processes, in-place and returned.

    On a GPU the processor does not wait for it.
    """
    if has_group():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def reduce_mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars by name -> their means over all processes, in one collective.

    Every process must give the same names.
    """
    if not has_group() or not values:
        return values
    together = torch.stack([value.detach().double() for value in values.values()])
    dist.all_reduce(together)
    return dict(zip(values, together / world_size(), strict=True))


def broadcast_buffers(model: nn.Module) -> None:
    """Copy the buffers of rank 0 to all processes.

    Running statistics of batch norms differ, as each process has trained on other images.
    """
    if has_group():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def _fresh_store(timeout: datetime.timedelta) -> dist.Store:
    """The launcher's store, under a prefix that only this start of the processes uses.

    Processes that an elastic launcher restarts get the store of those that died, and could take
    their addresses for those of live peers. So rank 0 draws a prefix, and answers every request for
    it until all ranks have confirmed.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    name = uuid.uuid4().hex
    if rank > 0:
        store.set(f"asking/{rank}", name)
        name = store.get(f"answer/{name}").decode()
        store.set(f"confirmed/{name}/{rank}", "")
    waiting = set(range(1, size)) if rank == 0 else set()
    end = time.monotonic() + timeout.total_seconds()
    while waiting and time.monotonic() < end:
        for other in waiting:
            if store.check([f"asking/{other}"]):
                store.set(f"answer/{store.get(f'asking/{other}').decode()}", name)
        time.sleep(0.02)
        waiting = {other for other in waiting if not store.check([f"confirmed/{name}/{other}"])}
    return dist.PrefixStore(name, store)


def launcher_id() -> str:
    """Identifies the launch of this process: host, process id and, on Linux, start time of its
    parent, and the id that an elastic launcher gave the run.

    Processes that an elastic launcher restarts are of the same launch as those before.
    """
    parent = os.getppid()
    try:
        stat = Path(f"/proc/{parent}/stat").read_text()
        started = stat.rpartition(")")[2].split()[19]  # clock ticks since the system started
    except (OSError, IndexError):
        started = ""
    return f"{socket.gethostname()}:{parent}:{started}:{os.environ.get(ELASTIC_RUN, '')}"


def _count_gpus() -> str:
    count = torch.cuda.device_count()
    return f"{count or 'no'} GPU{'s' if count > 1 else ''} {'are' if count > 1 else 'is'} visible"
