"""Groups of a plan and where they lie on the machine."""

import math
from dataclasses import dataclass

from towtank.simulator.plan import Dimension, Plan

_GROUP_DIMENSIONS: dict[str, tuple[Dimension, ...]] = {
    "tensor_x": ("tensor_x",),
    "tensor_y": ("tensor_y",),
    "tensor_xy": ("tensor_x", "tensor_y"),
    "tensor_z": ("tensor_z",),
    "context": ("context",),
    "pipeline": ("pipeline",),
    "data": ("data", "context"),
    "world": ("tensor_x", "tensor_y", "tensor_z", "context", "data", "pipeline"),
}


@dataclass(frozen=True, slots=True)
class Placement:
    """How a group lies on nodes.

    `local` members share a node, `sharers` sibling groups leave the same node at once and share its network
    interfaces, `preceding` is the product of the inner degrees (the stride between members).
    """

    size: int
    local: int
    sharers: int
    preceding: int

    @property
    def nodes(self) -> int:
        """Nodes that the group spans."""
        return -(-self.size // self.local)

    def reach(self, node_devices: int) -> int:
        """Consecutive nodes from its first member to its last one."""
        return -(-self.size * self.preceding // node_devices)


def dimensions(plan: Plan, group: str) -> list[tuple[int, int]]:
    """(degree, stride) of the dimensions that a group spans, innermost first."""
    if group == "weight_shard":
        inner = [(plan.tensor_z, plan.stride("tensor_z"))]
        if plan.zero_stage == 3:
            inner.append((plan.shard_degree, plan.stride("data")))
            inner.append((plan.context, plan.stride("context")))
        return inner
    if group == "state_shard":
        return [(plan.shard_degree, plan.stride("data")), (plan.context, plan.stride("context"))]
    if group == "replicate":
        return [(plan.replicate_degree, plan.stride("data") * plan.shard_degree)]
    if group.startswith("expert"):
        return [_expert_degree(plan, group)]
    if group == "ends":
        return [(min(2, plan.pipeline), plan.stride("pipeline") * (plan.pipeline - 1))]
    return [(plan.degree(dimension), plan.stride(dimension)) for dimension in _GROUP_DIMENSIONS[group]]


def _expert_degree(plan: Plan, group: str) -> tuple[int, int]:
    """(degree, stride) of a group of the expert mapping, which tiles the devices of a stage in rank order."""
    inner = plan.expert_tensor * plan.expert
    shards = expert_weight_shards(plan)
    degrees = {
        "expert_tensor": (plan.expert_tensor, 1),
        "expert": (plan.expert, plan.expert_tensor),
        "expert_data": (expert_data_degree(plan), inner),
        "expert_shard": (shards, inner),
        "expert_replicate": (expert_data_degree(plan) // shards, inner * shards),
    }
    return degrees[group]


def expert_mapped(plan: Plan) -> bool:
    """Whether experts are placed by the expert mapping; otherwise they are held as other weights are."""
    return plan.expert * plan.expert_tensor > 1


def expert_data_degree(plan: Plan) -> int:
    """Replicas of each expert: devices of one stage over expert and expert-tensor degrees."""
    return plan.num_devices // plan.pipeline // (plan.expert * plan.expert_tensor)


def expert_weight_shards(plan: Plan) -> int:
    """Devices over which the weights of an expert at rest are split."""
    if not expert_mapped(plan):
        return plan.weight_shards
    degree = expert_data_degree(plan)
    return degree if plan.zero_stage == 3 else math.gcd(degree, max(1, plan.tensor_z // plan.expert))


def expert_state_shards(plan: Plan) -> int:
    """Devices over which the optimizer states of an expert are split."""
    if not expert_mapped(plan):
        return plan.state_shards
    return expert_data_degree(plan) if plan.zero_stage else expert_weight_shards(plan)


def group_size(plan: Plan, group: str) -> int:
    """Number of devices of a group."""
    size = 1
    for degree, _ in dimensions(plan, group):
        size *= degree
    return size


def _members_inside(degree: int, step: int, node: int, devices: int) -> int:
    """Members of a group that share a node; of the groups that straddle nodes the worst one counts."""
    inside = max(1, node // step)
    if degree <= inside and devices > node and node % (degree * step):
        return max(1, math.gcd(node, degree * step) // step)
    return min(degree, inside)


def place(plan: Plan, group: str, devices_per_node: int) -> Placement:
    """Lay a group on nodes filled in rank order."""
    size, local, stride = 1, 1, plan.num_devices
    for degree, step in dimensions(plan, group):
        if degree == 1:
            continue
        size *= degree
        local *= _members_inside(degree, step, devices_per_node, plan.num_devices)
        stride = min(stride, step)
    local = min(local, devices_per_node)
    occupied = min(devices_per_node, plan.num_devices)
    return Placement(size, local, max(1, occupied // local), stride)
