"""Questions and small collectives of a group of processes, with answers also where there is no
group.

Every function works in a plain process (rank 0 of 1), so nothing else has to ask whether training
is distributed. Processes are started by `swahr.distributed.launch.launch` or by torchrun.
"""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from swahr.allocator import keep_memory

T = TypeVar("T")

TIMEOUT = datetime.timedelta(
    minutes=30
)  # the longest that one rank may wait for another, for instance while it scores
KEPT_MEMORY = (1 << 31) - 1  # bytes that a process on the CPU keeps when they are freed


class DeviceError(ValueError):
    """A device that was asked for and is not there; the message says what there is."""


def launched() -> bool:
    """Whether a launcher (torchrun, or ours) started this process and told it its place."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def has_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number among all, 0 where there is one."""
    if has_group():
        return dist.get_rank()
    return int(os.environ["RANK"]) if launched() else 0


def world_size() -> int:
    """How many processes there are on all nodes together."""
    if has_group():
        return dist.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def local_rank() -> int:
    """This process's number on its node: the number of its GPU among the visible ones."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def local_world_size() -> int:
    """How many processes this node has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if launched() else 1


def is_main() -> bool:
    """Whether this process is the one that logs and writes."""
    return rank() == 0


def select_device(name: str = "") -> torch.device:
    """The device of this process. name: '' (a GPU if there is one), 'cpu', 'cuda' (the GPU of the
    local rank) or 'cuda:3'.

    Raises DeviceError where that GPU does not exist. CUDA_VISIBLE_DEVICES is respected, since
    numbers count the visible GPUs. A process that works on the CPU keeps its memory, see
    `allocator.keep_memory`.
    """
    kind, _, index = (name or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")
    if kind == "cpu":
        keep_memory(KEPT_MEMORY)
        return torch.device("cpu")
    if kind != "cuda":
        raise DeviceError(
            f"DEVICE is {name!r}; it must be '' (a GPU if there is one), cpu, cuda or cuda:NUMBER"
        )
    number = int(index) if index.isdigit() else local_rank()
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"GPU {number} was asked for, but {_count_gpus()}; --device cpu runs without one"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def count_processes(device: str = "", gpus: int | None = None) -> int:
    """How many processes to start on this node: gpus if given, else one for every visible GPU, else
    one.

    Raises DeviceError for more processes than visible GPUs, unless they run on the CPU.
    """
    on_gpu = device.startswith("cuda") or (not device and torch.cuda.is_available())
    available = torch.cuda.device_count() if on_gpu else 0
    if on_gpu and available == 0:
        raise DeviceError(f"--device cuda was asked for, but {_count_gpus()}")
    if ":" in device:
        return 1  # that GPU alone
    if gpus is None:
        return max(available, 1)
    if gpus < 1 or (on_gpu and gpus > available):
        raise DeviceError(
            f"--gpus {gpus} was asked for, but {_count_gpus()}; --device cpu takes any number from 1"
        )
    return gpus


def limit_threads() -> None:
    """Shares the cores of this node among its processes; OMP_NUM_THREADS, where it is set, decides
    instead.
    """
    if local_world_size() > 1 and "OMP_NUM_THREADS" not in os.environ:
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        torch.set_num_threads(max(1, cores // local_world_size()))


def init_process_group(device: torch.device, backend: str = "") -> None:
    """Joins the other processes a launcher started; does nothing in a plain process or where there
    is a group already.

    backend: that of the GPU tensors ('' is nccl); objects and CPU tensors always travel by gloo.
    """
    limit_threads()
    if has_group() or not launched() or world_size() == 1:
        return
    on_gpu = device.type == "cuda" and backend != "gloo"
    dist.init_process_group(
        f"cpu:gloo,cuda:{backend or 'nccl'}" if on_gpu else "gloo",
        timeout=TIMEOUT,
        store=_fresh_store(),
        rank=rank(),
        world_size=world_size(),
    )


def destroy_process_group() -> None:
    if has_group():
        dist.destroy_process_group()


@contextmanager
def process_group(device: torch.device, backend: str = "") -> Iterator[None]:
    """`init_process_group`, while the block runs. An error leaves at once: the others may never
    answer again.
    """
    init_process_group(device, backend)
    yield
    destroy_process_group()


def barrier() -> None:
    """Waits until every process is here. Goes over the CPU, so that it is not taken for GPU
    work.
    """
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
    """The element-wise maximum over all processes, in place and returned; on a GPU nothing waits
    for it.
    """
    if has_group():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def reduce_mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars by name -> their means over all processes, in one exchange; every process must name
    the same ones.
    """
    if not has_group() or not values:
        return values
    together = torch.stack([value.detach().float() for value in values.values()])
    dist.all_reduce(together)
    return dict(zip(values, together / world_size(), strict=True))


def broadcast_buffers(model: nn.Module) -> None:
    """Give all processes rank 0's buffers: replicas have seen other images, so their batch norms'
    means differ.
    """
    if has_group():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def _fresh_store() -> dist.Store:
    """The launcher's store, under a name that only this start of the processes uses.

    Processes that an elastic launcher starts again get the store of those that died, and may take
    the dead ones' addresses for those of their peers. So rank 0 draws a name, and gives it to
    whoever asks until all have confirmed.
    """
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    name = uuid.uuid4().hex
    if rank > 0:
        store.set(f"asking/{rank}", name)
        name = store.get(f"answer/{name}").decode()
        store.set(f"confirmed/{name}/{rank}", "")
    waiting = set(range(1, size)) if rank == 0 else set()
    end = time.monotonic() + TIMEOUT.total_seconds()
    while waiting and time.monotonic() < end:
        for other in waiting:
            if store.check([f"asking/{other}"]):
                store.set(f"answer/{store.get(f'asking/{other}').decode()}", name)
        time.sleep(0.02)
        waiting = {other for other in waiting if not store.check([f"confirmed/{name}/{other}"])}
    return dist.PrefixStore(name, store)


def _count_gpus() -> str:
    count = torch.cuda.device_count()
    return f"{count or 'no'} GPU{'s' if count > 1 else ''} {'are' if count > 1 else 'is'} visible"
