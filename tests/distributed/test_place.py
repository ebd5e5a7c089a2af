"""Where a process stands among those that a launcher or a scheduler started with it."""

from __future__ import annotations

import re

import pytest

from swahr.distributed.place import LaunchError, Place, check_place, find_place

SLURM = {
    "SLURM_JOB_ID": "100002",
    "SLURM_STEP_ID": "3",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_NTASKS": "6",
    "SLURM_TASKS_PER_NODE": "1,3,2",
    "SLURM_JOB_NODELIST": "gpu[01-02,07]",
}
KUBEFLOW = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"}


def test_a_process_on_its_own() -> None:
    assert find_place({}) is None
    check_place({})


def test_torchrun() -> None:
    place = find_place(KUBEFLOW | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    assert place == Place(1, 2, 1, 2, "job-master-0", "23456")


def test_kubeflow_gives_no_local_rank() -> None:
    place = find_place(KUBEFLOW)
    assert place == Place(1, 2, None, 1, "job-master-0", "23456")
    assert place.variables() == KUBEFLOW | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def test_a_single_pod_uses_the_projects_own_launcher() -> None:
    alone = KUBEFLOW | {"RANK": "0", "WORLD_SIZE": "1"}
    assert find_place(alone) is None
    check_place(alone)


def test_slurm() -> None:
    assert find_place(SLURM) == Place(5, 6, 1, 2, "gpu01", "20005", from_slurm=True)


def test_variables_of_torch_come_before_those_of_slurm() -> None:
    place = find_place(SLURM | KUBEFLOW)
    assert place is not None and (place.rank, place.world_size) == (1, 2)
    told = find_place(SLURM | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "99"})
    assert told is not None and (told.address, told.port) == ("10.0.0.1", "99")


def test_one_slurm_task_is_a_process_on_its_own() -> None:
    for alone in (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {"SLURM_NTASKS": "4"}):
        assert find_place(alone) is None
        check_place(alone)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("node-3.cluster,node-4.cluster", "node-3.cluster"),
        ("gpu[09-12]", "gpu09"),
        ("gpu[3,5],cpu[1-2]", "gpu3"),
    ],
)
def test_the_first_node_of_a_slurm_job(nodes: str, first: str) -> None:
    place = find_place(SLURM | {"SLURM_JOB_NODELIST": nodes})
    assert place is not None and place.address == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SLURM_JOB_NODELIST": "r[1-2]n[1-4]"}, "is 'r[1-2]n[1-4]'): set MASTER_ADDR to the host"),
        ({"SLURM_JOB_NODELIST": ""}, "set MASTER_ADDR to the host of task 0"),
        ({"SLURM_STEP_ID": ""}, "SLURM_NTASKS is 6, but srun did not start this process"),
        ({"SLURM_PROCID": "6"}, "SLURM_PROCID is 6: with SLURM_NTASKS 6 it must be 0 to 5"),
        ({"SLURM_PROCID": "x"}, "SLURM_PROCID is 'x', which is not a number"),
    ],
)
def test_slurm_tasks_that_cannot_be_joined(changes: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(message)):
        check_place(SLURM | changes)
    assert find_place(SLURM | changes) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK is 1, but WORLD_SIZE and MASTER_ADDR not set: set RANK, WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "RANK is 0 and WORLD_SIZE is 2, but MASTER_ADDR not"),
        (KUBEFLOW | {"RANK": "2"}, "RANK is 2: with WORLD_SIZE 2 it must be 0 to 1"),
        (KUBEFLOW | {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', which is not a number"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE is 4: processes that mpirun"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE is 4: processes that mpirun started are not joined"),
    ],
)
def test_other_processes_that_cannot_be_joined(environment: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(message)):
        check_place(environment)
    assert find_place(environment) is None
