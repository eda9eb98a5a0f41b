"""What a weight of a device consists of: boxes of full tensors, how they begin, and who else holds them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from towtank.executor.distributed.boxes import Box
from towtank.executor.distributed.mesh import GRADIENTS, Group, Mesh


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of one full tensor in a weight, and who else uses it."""

    box: Box
    copies: int = 1
    """Devices of the x.y grid that use these elements."""
    partial: int = 1
    """Neighbours along x that use these elements and have each only a part of their gradient."""


@dataclass(frozen=True, slots=True)
class Initial:
    """How a weight begins: normal with a standard deviation, or constant."""

    kind: Literal["normal", "constant"]
    value: float
    """Standard deviation, or the constant."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who holds what of a weight, besides x and y."""

    shard: Group
    """Members hold shards that are gathered for use."""
    gradients: Group
    """The same members, for the reduce-scatter of gradients."""
    reduce_over: tuple[str, ...]
    """Groups over which gradients of the shard are still to be summed at the end of a step, in this order."""
    copies: int
    """Devices with the same shard, among those that agree in x, y and pipeline stage."""


class Part(NamedTuple):
    """Rows of a shard that lie in one box."""

    box: Box
    first: int
    """First row in the shard."""
    copies: int
    """Devices of the run that hold these elements at rest."""
    partial: int
    """As of the piece."""


def dense_sharing(mesh: Mesh, *, sharded: bool, tied: bool = False) -> Sharing:
    """Sharing of weights that every token uses; `tied`: the first and the last stage of a pipeline hold it both."""
    plan = mesh.plan
    if sharded:
        shard, gradients = mesh.group("weight_shard"), mesh.group("weight_shard" + GRADIENTS)
        over: tuple[str, ...] = ("replicate",) if plan.zero_stage == 3 else ("data",)
        copies = plan.replicate_degree if plan.zero_stage == 3 else plan.data * plan.context
    else:
        shard = gradients = alone(mesh)
        over, copies = ("tensor_z", "data"), plan.tensor_z * plan.data * plan.context
    if tied and plan.pipeline > 1:
        over, copies = (*over, "ends"), copies * 2
    return Sharing(shard, gradients, tuple(name for name in over if mesh.group(name).size > 1), copies)


def alone(mesh: Mesh) -> Group:
    """A group of this process only."""
    return Group("alone", (mesh.rank,), 0)
