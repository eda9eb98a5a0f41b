"""The device mesh of a plan and this process's groups in it, under the names of `towtank.simulator.groups`."""

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

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

_MADE: dict[tuple[tuple[int, ...], str], Any] = {}
"""Communicators of this process's runs by their ranks: making one takes a while, and plans have many in common."""


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


def groups_of(plan: Plan, name: str) -> list[tuple[int, ...]]:
    """All groups of a name, by their first ranks; every rank is in one of them."""
    found: list[tuple[int, ...]] = []
    seen = [False] * plan.num_devices
    for rank in range(plan.num_devices):
        if not seen[rank]:
            found.append(ranks_of(plan, name, rank))
            for member in found[-1]:
                seen[member] = True
    return found


def one_dimension(plan: Plan, name: str) -> Dimension | None:
    """The dimension of the plan whose whole extent a group spans; None for a group of one, of a part of a dimension,
    or of several."""
    spanned = [each for each in dimensions(plan, name) if each[0] > 1]
    for dimension in plan.rank_order:
        if spanned == [(plan.degree(dimension), plan.stride(dimension))]:
            return dimension
    return None


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
        """Of the dimensions above degree 1; None for one process."""
        if not alone:
            _forget_others()
            self.device_mesh = self._device_mesh()
        self._groups = {name: self._group(name) for name in GROUPS}
        for name in SECOND:
            self._groups[name + GRADIENTS] = self._group(name, GRADIENTS)

    def coordinate(self, dimension: Dimension, rank: int | None = None) -> int:
        """Index of `rank` (of this process) along a dimension."""
        number = self.rank if rank is None else rank
        return (number // self.plan.stride(dimension)) % self.plan.degree(dimension)

    def group(self, name: str) -> Group:
        """The group of that name; a second communicator for gradients is NAME.gradients."""
        return self._groups[name]

    def another(self, name: str, purpose: str) -> Group:
        """A group with a communicator of its own for some purpose. All processes call this together."""
        return self._group(name, purpose)

    def stage_rank(self, stage: int) -> int:
        """Rank at this process's place in another pipeline stage."""
        return self.rank + (stage - self.coordinate("pipeline")) * self.plan.stride("pipeline")

    def _device_mesh(self) -> DeviceMesh:
        """The dimensions above degree 1 as a DeviceMesh, outermost first."""
        names = [name for name in reversed(self.plan.rank_order) if self.plan.degree(name) > 1]
        shape = [self.plan.degree(name) for name in names]
        mesh = torch.arange(self.plan.num_devices).view(shape)
        groups = [self._along(name) for name in names]
        return DeviceMesh.from_group(groups, self.device.type, mesh=mesh, mesh_dim_names=tuple(names))

    def _along(self, dimension: Dimension) -> Any:
        """Communicator along one dimension."""
        degree, stride = self.plan.degree(dimension), self.plan.stride(dimension)
        for first in (rank for rank in range(self.plan.num_devices) if (rank // stride) % degree == 0):
            _make(tuple(range(first, first + degree * stride, stride)), "")
        first = self.rank - self.coordinate(dimension) * stride
        return _MADE[tuple(range(first, first + degree * stride, stride)), ""]

    def _group(self, name: str, which: str = "") -> Group:
        """The group of that name, or its second communicator; the same calls in the same order on every rank."""
        mine = ranks_of(self.plan, name, self.rank)
        dimension = None if which else one_dimension(self.plan, name)
        if dimension is not None and self.device_mesh is not None:
            return Group(name, mine, mine.index(self.rank), self.device_mesh.get_group(dimension))
        for ranks in groups_of(self.plan, name):
            if len(ranks) > 1:
                _make(ranks, which)
        made = _MADE.get((mine, which)) if len(mine) > 1 else None
        return Group(name, mine, mine.index(self.rank), made)


def _make(ranks: tuple[int, ...], which: str) -> None:
    """Make a communicator unless there is one; all processes call this together."""
    if (ranks, which) not in _MADE:
        made = dist.new_group(list(ranks))
        _MADE[ranks, which] = made if dist.get_rank() in ranks else None


def _forget_others() -> None:
    """Forget communicators of a process group that was closed."""
    world = dist.group.WORLD
    if _MADE.get(((), "")) is not world:
        _MADE.clear()
        _MADE[(), ""] = world
        _MADE[tuple(range(dist.get_world_size())), ""] = world
