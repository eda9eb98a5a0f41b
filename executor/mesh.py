"""The device mesh of a plan and this process's groups in it, under the names of `towtank.simulator.groups`."""

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from towtank.simulator.groups import dimensions
from towtank.simulator.plan import Dimension, Plan

GROUPS: Final = (
    "tensor_x", "tensor_y", "tensor_xy", "tensor_z", "context", "data", "weight_shard", "state_shard", "replicate",
    "expert", "expert_tensor", "expert_data", "expert_shard", "expert_replicate", "pipeline", "ends", "world",
)  # fmt: skip
SECOND: Final = ("weight_shard", "expert_shard")
"""Groups with a second communicator, for gradients: their reductions run beside gathers of weights, and operations of
one communicator run one after the other (so has AxoNN two for z)."""
GRADIENTS: Final = ".gradients"


@dataclass(frozen=True, slots=True)
class Group:
    """The members of a group that this process belongs to."""

    name: str
    ranks: tuple[int, ...]
    """Ranks in ascending order."""
    index: int
    """Place of this process in `ranks`."""
    process_group: Any = None
    """Communicator; None for a group of one, which never communicates."""

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.ranks)


def ranks_of(plan: Plan, name: str, rank: int) -> tuple[int, ...]:
    """Ranks of the group `name` that `rank` is in, ascending. Of "ends", ranks between are in groups of one."""
    if name == "ends":
        return _ends(plan, rank)
    ranks = [rank]
    for degree, stride in dimensions(plan, name):
        ranks = [
            one + (index - (one // stride) % degree) * stride for one in ranks for index in range(degree)
        ]
    return tuple(sorted(ranks))


def _ends(plan: Plan, rank: int) -> tuple[int, ...]:
    stride, last = plan.stride("pipeline"), plan.pipeline - 1
    stage = (rank // stride) % plan.pipeline
    if last == 0 or stage not in (0, last):
        return (rank,)
    first = rank - stage * stride
    return first, first + last * stride


class Mesh:
    """Coordinates and groups of this process."""

    def __init__(self, plan: Plan, device: torch.device | None = None, rank: int | None = None) -> None:
        """Make the communicators. All processes of the run call this together.

        Args:
            plan: its degrees multiply to the number of processes.
            device: what this process computes on; the CPU if None.
            rank: of this process; None: that of the process group.
        """
        self.plan = plan
        self.device = device or torch.device("cpu")
        alone = plan.num_devices == 1
        self.rank = rank if rank is not None else (0 if alone else dist.get_rank())
        self.device_mesh: DeviceMesh | None = None
        self._made: dict[tuple[int, ...], Any] = {}
        if not alone:
            self._make_mesh()
        self._groups = {name: self._group(name) for name in GROUPS}
        for name in SECOND:
            self._groups[name + GRADIENTS] = self._second(name)

    def coordinate(self, dimension: Dimension, rank: int | None = None) -> int:
        """Index of `rank` (of this process) along a dimension."""
        number = self.rank if rank is None else rank
        return (number // self.plan.stride(dimension)) % self.plan.degree(dimension)

    def group(self, name: str) -> Group:
        """The group of that name; a second communicator for gradients is NAME.gradients."""
        return self._groups[name]

    def stage_rank(self, stage: int) -> int:
        """Rank at this process's place in another pipeline stage."""
        return self.rank + (stage - self.coordinate("pipeline")) * self.plan.stride("pipeline")

    def _make_mesh(self) -> None:
        """A DeviceMesh of the dimensions above degree 1, outermost first, whose communicators are used again."""
        names = [name for name in reversed(self.plan.rank_order) if self.plan.degree(name) > 1]
        shape = tuple(self.plan.degree(name) for name in names)
        self.device_mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=tuple(names))
        self._made[tuple(range(self.plan.num_devices))] = dist.group.WORLD
        for name in names:
            mine = self.device_mesh.get_group(name)
            for ranks in self._partition(name, name):
                self._made[ranks] = mine if self.rank in ranks else None

    def _partition(self, name: str, dimension: Dimension | None = None) -> list[tuple[int, ...]]:
        """All groups of that name (or along a dimension) with more than one member, in the same order everywhere."""
        if dimension is not None:
            degree, stride = self.plan.degree(dimension), self.plan.stride(dimension)
            firsts = [r for r in range(self.plan.num_devices) if (r // stride) % degree == 0]
            return [tuple(range(first, first + degree * stride, stride)) for first in firsts]
        found = {ranks_of(self.plan, name, rank) for rank in range(self.plan.num_devices)}
        return sorted(ranks for ranks in found if len(ranks) > 1)

    def _group(self, name: str) -> Group:
        for ranks in self._partition(name):
            if ranks not in self._made:
                made = dist.new_group(list(ranks))
                self._made[ranks] = made if self.rank in ranks else None
        ranks = ranks_of(self.plan, name, self.rank)
        return Group(name, ranks, ranks.index(self.rank), self._made.get(ranks))

    def _second(self, name: str) -> Group:
        """The same members with a communicator of their own; messages are named after the group."""
        mine = None
        for ranks in self._partition(name):
            made = dist.new_group(list(ranks))
            mine = made if self.rank in ranks else mine
        group = self._groups[name]
        return Group(name, group.ranks, group.index, mine)
