"""A plan as software without AxoNN's dimensions sees it: z is sharding over data (FSDP), y does not exist."""

from collections.abc import Sequence
from dataclasses import dataclass

from towtank.autotune.export.records import Job
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.plan import Dimension, Plan


@dataclass(frozen=True, slots=True)
class Layout:
    """Degrees after z has become part of data."""

    zero_stage: int
    shard: int
    """Devices of data (with z) over which states are sharded; 1 under DDP."""
    replicate: int
    chunk_layers: tuple[int, ...]
    """Layers of each pipeline chunk in model order."""

    @property
    def data(self) -> int:
        """Data-parallel degree, z with it."""
        return self.shard * self.replicate

    @property
    def even(self) -> bool:
        """Whether all chunks have the same number of layers."""
        return len(set(self.chunk_layers)) == 1


def layout_of(job: Job) -> tuple[Layout, list[str]]:
    """Degrees of a legal plan with y = 1, and why they cannot be had without z.

    A shard over z with replicas over data is hybrid sharding (HSDP), by another name; so is z with ZeRO 3 over data.
    Where states lie in more parts than weights do (z with ZeRO 1 or 2 over data) no such name exists.
    """
    plan = job.plan
    layers = chunk_layers(job)
    if plan.tensor_z == 1:
        return Layout(plan.zero_stage, plan.shard_degree, plan.replicate_degree, layers), []
    if plan.zero_stage == 3:
        return Layout(3, plan.tensor_z * plan.shard_degree, plan.replicate_degree, layers), []
    faults = []
    if plan.zero_stage and plan.data > 1:
        faults.append(
            f"tensor_z = {plan.tensor_z} shards weights and zero_stage = {plan.zero_stage} shards states over data "
            f"besides; only AxoNN's z could hold both: set zero_stage = 0 (hybrid sharding) or 3"
        )
    if plan.context > 1:
        faults.append(
            f"tensor_z = {plan.tensor_z} shards weights over z alone, but FSDP shards them over context = "
            f"{plan.context} too; set zero_stage = 3 with data = {plan.tensor_z * plan.data} in place of z"
        )
    return Layout(3, plan.tensor_z, plan.data, layers), faults


def chunk_layers(job: Job) -> tuple[int, ...]:
    """Layers of each pipeline chunk in model order, as predicted."""
    stages = chunks_of(local_sizes(job.model, job.plan, job.stack))
    plan = job.plan
    total = plan.pipeline * plan.virtual_stages
    return tuple(
        stages[number % plan.pipeline][number // plan.pipeline].num_layers for number in range(total)
    )


def order_faults(plan: Plan, target: str, *orders: Sequence[Dimension]) -> list[str]:
    """Whether ranks run through the dimensions in one of the target's orders, innermost first.

    Dimensions of degree 1 lie anywhere. Another order would put other ranks on a node than the prediction did.
    """
    mine = [dimension for dimension in plan.rank_order if plan.degree(dimension) > 1]
    if any(_positions(mine, order) == sorted(_positions(mine, order)) for order in orders):
        return []
    wanted = [dimension for dimension in orders[0] if dimension in mine]
    rest = [dimension for dimension in plan.rank_order if dimension not in orders[0]]
    return [
        f"{target} numbers its ranks {' < '.join(wanted)} (innermost first), but rank_order has "
        f"{' < '.join(mine)}; predict and export with rank_order = [{', '.join([*orders[0], *rest])}]"
    ]


def _positions(dimensions: Sequence[Dimension], order: Sequence[Dimension]) -> list[int]:
    return [order.index(dimension) if dimension in order else -1 for dimension in dimensions]


def node_faults(job: Job) -> list[str]:
    """Whether the job fills whole nodes, as launchers that start the same number of processes on each want."""
    devices, node = job.plan.num_devices, job.machine.node.devices
    if devices > node and devices % node:
        return [
            f"{devices} devices do not fill nodes of {node} on {job.machine.name}, and launchers start as many "
            f"processes on each node; take a multiple of {node} devices"
        ]
    return []


def nodes_of(job: Job) -> tuple[int, int]:
    """Nodes of the job and processes on each."""
    devices, node = job.plan.num_devices, job.machine.node.devices
    return (1, devices) if devices <= node else (devices // node, node)
