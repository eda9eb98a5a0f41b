"""Which process of a run this one is, from the variables of launchers."""

import pytest

from towtank.executor.errors import LaunchError
from towtank.executor.launching.environment import Process, first_host, gpu_of, joined, tasks_on_node

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_PROCID": "6",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
    "SLURM_STEP_NODELIST": "nid[001002-001003]",
    "SLURM_JOB_ID": "12345",
    "SLURM_STEP_ID": "2",
}


def test_torchrun_places_a_process() -> None:
    found = joined(TORCHRUN, devices=8)
    assert found is not None
    assert found.variables() == TORCHRUN
    assert found.launcher == "torchrun"


def test_srun_places_a_process() -> None:
    found = joined(SRUN, devices=7)
    assert found is not None
    assert (found.rank, found.world_size, found.local_rank, found.local_world_size) == (6, 7, 2, 3)
    assert (found.address, found.launcher) == ("nid001002", "srun")
    others = [joined(SRUN | {"SLURM_PROCID": str(rank)}, devices=7) for rank in range(7)]
    assert {one.port for one in others if one} == {found.port}
    assert 1024 < found.port < 65536


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # a batch script, not a step of srun
        TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"},
        SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"},
    ],
)
def test_nobody_started_the_processes_of_the_plan(environment: dict[str, str]) -> None:
    assert joined(environment, devices=8) is None


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (TORCHRUN, "torchrun started 8 processes, but the plan has 4 devices"),
        (SRUN, "srun started 7 processes, but the plan has 4 devices"),
        ({"RANK": "1", "WORLD_SIZE": "4"}, "not MASTER_ADDR and MASTER_PORT"),
        (TORCHRUN | {"RANK": "x"}, "RANK=x must be a whole number"),
        (TORCHRUN | {"RANK": "8"}, "RANK=8 must be from 0 to WORLD_SIZE - 1 = 7"),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "many"}, "SLURM_STEP_TASKS_PER_NODE=many is not understood"),
    ],
)
def test_what_does_not_fit_is_said(environment: dict[str, str], told: str) -> None:
    with pytest.raises(LaunchError, match=told):
        joined(environment, devices=4)


@pytest.mark.parametrize(
    ("launcher", "local_rank", "local_size", "seen", "expected"),
    [
        ("torchrun", 3, 4, 4, 3),
        ("torchrun", 3, 4, 8, 3),
        ("torchrun", 3, 4, 1, None),
        ("torchrun", 0, 1, 0, None),
        ("srun", 3, 4, 4, 3),
        ("srun", 3, 4, 1, 0),  # each task sees its own GPU alone
        ("srun", 3, 4, 2, None),
        ("towtank", 0, 2, 1, None),
    ],
)
def test_the_gpu_of_a_rank(
    launcher: str, local_rank: int, local_size: int, seen: int, expected: int | None
) -> None:
    place = Process(local_rank, local_size, local_rank, local_size, "a", 1, launcher)
    assert gpu_of(place, seen) == expected


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("nid001", "nid001"),
        ("nid001,nid002", "nid001"),
        ("nid[0012-0015,0020],x3", "nid0012"),
        ("a,b[1-2]", "a"),
        ("n[7,9]-ib", "n7-ib"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_tasks_of_each_node() -> None:
    assert [tasks_on_node("4(x2),3", node) for node in range(3)] == [4, 4, 3]
