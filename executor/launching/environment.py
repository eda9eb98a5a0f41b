"""Which process of a run this one is: started by us, by torchrun, by srun, or alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from towtank.executor.errors import LaunchError

_FIRST_PORT = 15_000
_PORTS = 20_000


@dataclass(frozen=True, slots=True)
class Process:
    """Place of this process among those of a run."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    """Of rank 0."""
    port: int
    launcher: str
    """towtank, torchrun or srun."""

    def variables(self) -> dict[str, str]:
        """The environment that torch.distributed reads."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


ALONE = Process(0, 1, 0, 1, "127.0.0.1", 0, "towtank")
"""A run of one process, which needs nobody."""


def joined(environment: Mapping[str, str], devices: int) -> Process | None:
    """The place that a launcher gave this process, or None where nobody started it as one of many.

    Variables of torchrun (RANK, WORLD_SIZE) come before those of srun (SLURM_PROCID of a job step). A launcher that
    started a single process leaves it to us to start the `devices` of the plan.

    Raises:
        LaunchError: a launcher started another number of processes than the plan has devices, or left something out.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        found = _torchrun(environment)
    elif "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        found = _srun(environment)
    else:
        return None
    if found.world_size == devices:
        return found
    if found.world_size == 1:
        return None
    raise LaunchError(
        f"{found.launcher} started {found.world_size} processes, but the plan has {devices} devices; "
        "start one process for each device, or change the plan"
    )


def _torchrun(environment: Mapping[str, str]) -> Process:
    rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(environment):
        raise LaunchError(
            f"RANK={rank} and WORLD_SIZE={size} are set, but not MASTER_ADDR and MASTER_PORT; start with "
            "torchrun, or unset RANK and WORLD_SIZE to run on this machine"
        )
    if not 0 <= rank < size:
        raise LaunchError(f"RANK={rank} must be from 0 to WORLD_SIZE - 1 = {size - 1}")
    return Process(
        rank,
        size,
        _number(environment, "LOCAL_RANK", 0),
        _number(environment, "LOCAL_WORLD_SIZE", 1),
        environment.get("MASTER_ADDR", ALONE.address),
        _number(environment, "MASTER_PORT", 0),
        "torchrun",
    )


def _srun(environment: Mapping[str, str]) -> Process:
    """Ranks of a job step; the first node is where they meet, on a port that follows from the job's number."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if nodes is None and "MASTER_ADDR" not in environment:
        raise LaunchError("SLURM_STEP_NODELIST is not set; set MASTER_ADDR to the node of rank 0")
    job, step = _number(environment, "SLURM_JOB_ID", 0), _number(environment, "SLURM_STEP_ID", 0)
    size = _number(environment, "SLURM_STEP_NUM_TASKS")
    each = environment.get("SLURM_STEP_TASKS_PER_NODE", str(size))
    return Process(
        _number(environment, "SLURM_PROCID"),
        size,
        _number(environment, "SLURM_LOCALID", 0),
        tasks_on_node(each, _number(environment, "SLURM_NODEID", 0)),
        environment.get("MASTER_ADDR") or first_host(nodes or ""),
        _number(environment, "MASTER_PORT", _FIRST_PORT + (7 * job + step) % _PORTS),
        "srun",
    )


def gpu_of(place: Process, count: int) -> int | None:
    """Number of the GPU of a rank among the `count` that it sees; None where there is none for it.

    srun may show each task its own GPU alone (--gpus-per-task, --gpu-bind), which is then number 0.
    """
    if place.launcher == "srun" and count == 1:
        return 0
    return place.local_rank if place.local_world_size <= count else None


def first_host(nodes: str) -> str:
    """First host of a Slurm list, such as `nid[0012-0015,0020],x3` -> `nid0012` (man scontrol, show hostnames)."""
    prefix, bracket, rest = nodes.partition("[")
    if not bracket or "," in prefix:
        return nodes.partition(",")[0]
    suffix = rest.partition("]")[2].partition(",")[0]
    return prefix + re.split(r"[-,\]]", rest, maxsplit=1)[0] + suffix


def tasks_on_node(text: str, node: int) -> int:
    """Tasks on a node of SLURM_STEP_TASKS_PER_NODE, such as `4(x2),3` -> 4, 4, 3 (man srun, output variables)."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if found is None:
            raise LaunchError(f"SLURM_STEP_TASKS_PER_NODE={text} is not understood; use torchrun")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts[min(node, len(counts) - 1)]


def _number(environment: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = environment.get(name)
    if text is None and otherwise is not None:
        return otherwise
    try:
        return int(text or "")
    except ValueError:
        raise LaunchError(
            f"{name}={text} must be a whole number; the launcher sets it, or unset it"
        ) from None
