"""Which ranks form a group and which of them share a node, so that a run can be laid out as it was predicted."""

from itertools import product

from towtank.autotune.export.records import Job
from towtank.simulator.groups import dimensions, group_size, place

_GROUPS = (
    ("tensor_x", "tensor x"),
    ("tensor_y", "tensor y"),
    ("context", "context"),
    ("tensor_z", "tensor z"),
    ("data", "data (with context)"),
    ("state_shard", "shards of states"),
    ("replicate", "replicas of shards"),
    ("pipeline", "pipeline"),
    ("expert_tensor", "expert tensor"),
    ("expert", "expert"),
    ("expert_data", "expert data"),
)
_SHOWN = 8


def group_lines(job: Job) -> list[str]:
    """One line for each kind of group with more than one member: first group, and members that share a node."""
    plan, node = job.plan, job.machine.node.devices
    lines = [f"ranks fill nodes of {node} devices in order: rank r is on node r // {node}"]
    for group, name in _wanted(job):
        placement = place(plan, group, node)
        ranks = members(job, group)
        shown = ", ".join(map(str, ranks[:_SHOWN])) + (f", ... {ranks[-1]}" if len(ranks) > _SHOWN else "")
        nodes = len({rank // node for rank in ranks})
        where = (
            "on one node"
            if nodes == 1
            else f"on {nodes} nodes, {placement.local} of them on each"
            if placement.local > 1
            else f"on {nodes} nodes"
        )
        lines.append(f"{name}: {len(ranks)} ranks {where}, the first group: {shown}")
    return lines


def _wanted(job: Job) -> list[tuple[str, str]]:
    plan = job.plan
    kept = []
    for group, name in _GROUPS:
        if group.startswith("expert") and job.model.experts is None:
            continue
        if group == "state_shard" and (plan.zero_stage == 0 or plan.shard_degree == plan.data):
            continue
        if group == "replicate" and plan.zero_stage == 0:
            continue
        if group_size(plan, group) > 1:
            kept.append((group, name))
    return kept


def members(job: Job, group: str) -> list[int]:
    """Ranks of the group that rank 0 is in, ascending."""
    steps = [[index * stride for index in range(degree)] for degree, stride in dimensions(job.plan, group)]
    return sorted(sum(offsets) for offsets in product(*steps))
