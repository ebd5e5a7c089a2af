"""Rank and world size that a launcher gave this process in its environment.

Understood are torchrun's variables (and those of our own launcher), the same without LOCAL_RANK, as
Kubeflow's PyTorchJob sets them, and those of the tasks of a Slurm step (srun).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

# Several Slurm jobs on one node must not use the same port.
FIRST_PORT = 20000
NUM_PORTS = 20000


class LaunchError(ValueError):
    """Addresses, ranks or numbers of nodes that cannot be used."""


class Place(NamedTuple):
    """Where this process stands among the others.

    rank, world_size: of all nodes. local_rank: the index on this node, None if nobody gave it.
    local_world_size: processes on this node. address, port: of rank 0. from_slurm: whether srun
    started the process.
    """

    rank: int
    world_size: int
    local_rank: int | None
    local_world_size: int
    address: str
    port: str
    from_slurm: bool = False

    def variables(self) -> dict[str, str]:
        """The place in torchrun's variables, which torch reads."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank or 0),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": self.port,
        }


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that the environment describes; None for a process on its own.

    What describes a place incompletely gives None too; `check_place` refuses it.
    """
    try:
        return _torch_place(environment) or _slurm_place(environment)
    except LaunchError:
        return None


def check_place(environment: Mapping[str, str] = os.environ) -> None:
    """Raise LaunchError if other processes were started with this one and it cannot join them.

    Each would be a run of its own, and all of them would write to one folder.
    """
    if _torch_place(environment) or _slurm_place(environment):
        return
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        if _number(environment, name, 1) > 1:
            raise LaunchError(
                f"{name} is {environment[name]}: processes that mpirun started are not joined; "
                "torchrun or srun starts one for each GPU"
            )


def _torch_place(environment: Mapping[str, str]) -> Place | None:
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
    rank = _number(environment, "RANK", 0)
    size = _number(environment, "WORLD_SIZE", 1)
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        if rank > 0 or size > 1:
            told = " and ".join(
                f"{name} is {environment[name]}" for name in needed[:2] if environment.get(name)
            )
            raise LaunchError(
                f"{told}, but {' and '.join(missing)} not set: set {', '.join(needed)} and "
                "MASTER_PORT for every process, or none of them"
            )
        return None
    if not 0 <= rank < size:
        raise LaunchError(f"RANK is {rank}: with WORLD_SIZE {size} it must be 0 to {size - 1}")
    has_local_rank = bool(environment.get("LOCAL_RANK"))
    if size == 1 and not has_local_rank:
        return None  # one pod of Kubeflow, on its own, may use all its GPUs
    return Place(
        rank,
        size,
        _number(environment, "LOCAL_RANK", 0) if has_local_rank else None,
        _number(environment, "LOCAL_WORLD_SIZE", 1),
        environment["MASTER_ADDR"],
        environment.get("MASTER_PORT", "29500"),
    )


def _slurm_place(environment: Mapping[str, str]) -> Place | None:
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
    if not all(environment.get(name) for name in names):
        return None
    rank, local_rank, size = (_number(environment, name, 0) for name in names)
    if size <= 1:
        return None
    if environment.get("SLURM_JOB_ID") and not _step(environment):
        raise LaunchError(
            f"SLURM_NTASKS is {size}, but srun did not start this process: start it with srun, or "
            "ask for one task (--ntasks=1)"
        )
    if not 0 <= rank < size:
        raise LaunchError(
            f"SLURM_PROCID is {rank}: with SLURM_NTASKS {size} it must be 0 to {size - 1}"
        )
    number = _number(environment, "SLURM_JOB_ID", 0) + int(
        re.sub(r"\D", "", _step(environment)) or 0
    )
    return Place(
        rank,
        size,
        local_rank,
        _tasks_on_this_node(environment),
        environment.get("MASTER_ADDR") or _first_node(environment),
        environment.get("MASTER_PORT") or str(FIRST_PORT + number % NUM_PORTS),
        from_slurm=True,
    )


def _step(environment: Mapping[str, str]) -> str:
    """The number of the Slurm step; '' in a batch script, outside of srun."""
    return environment.get("SLURM_STEP_ID") or environment.get("SLURM_STEPID") or ""


def _first_node(environment: Mapping[str, str]) -> str:
    """The host of task 0: "a" of "a,b", "gpu01" of "gpu[01-04,07]"."""
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        nodes = environment.get(name, "")
        found = re.match(r"([\w.-]+)(?:\[(\w+)[^\[\]]*\])?(?:,|$)", nodes)
        if found:
            return found[1] + (found[2] or "")
        if nodes:
            break
    raise LaunchError(
        f"the first node of the Slurm job is unclear ({name} is {nodes!r}): set MASTER_ADDR to the "
        "host of task 0"
    )


def _tasks_on_this_node(environment: Mapping[str, str]) -> int:
    """Of SLURM_TASKS_PER_NODE, such as "2(x3),1" (2, 2, 2 and 1 tasks); 1 if it is unclear."""
    text = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE")
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?(?:,|$)", text or ""):
        counts += [int(count)] * int(times or 1)
    node = _number(environment, "SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else 1


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.strip().isdigit():
        raise LaunchError(f"{name} is {text!r}, which is not a number")
    return int(text)
