"""The 4D grid by role, the grids that AxoNN's script considers, and the smallest tensor product."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

from towtank.simulator.errors import PlanError
from towtank.simulator.plan import Plan

STATE_BYTES_PER_PARAMETER = 18
"""Mixed-precision Adam: bf16 weight 2, fp32 gradient 4, fp32 master weight 4, two fp32 moments 8."""

STATE_BYTES_PER_DEVICE = 30e9
"""Room for the states on a 40 GB device, calibrated: the authors' script has a table of smallest tensor
products by model (5B 4, 10B 8, 20B 16, 40B 32, 50B 32, 60B 64, 80B 64, 100B 64, 160B 128, 175B 128; 320B
256 and 640B 512 in a later version) and no formula. Every limit from 28.125 to just below 33.75 GB gives
all of it."""

_NESTING = ("tensor_y", "tensor_x", "tensor_z", "data")


@dataclass(frozen=True, slots=True)
class Grid:
    """Degrees of a 4D plan by what each axis does to a normal (not transposed) linear layer.

        y     splits input features: all-reduce of outputs, forward (AxoNN: G_intra_c, column, inner)
        x     splits output features: all-reduce of input gradients, backward (G_intra_r, row, outer)
        z     splits the batch and holds weights in shards (G_intra_d, depth)
        data  replicas (G_data)

    Megatron-AxoNN's options are --{column,row,depth}-tensor-model-parallel-size for y, x and z.
    Rows are in nesting order: y joins neighbouring ranks, data the farthest. On transposed layers x and y
    swap roles. Comments in AxoNN's own code and its tutorial use the letters differently: go by role, never
    by letter.
    """

    x: int
    y: int
    z: int
    data: int

    def __post_init__(self) -> None:
        faults = [
            f"degree {field.name} must be at least 1, but is {getattr(self, field.name)}; 1 leaves it out"
            for field in fields(self)
            if getattr(self, field.name) < 1
        ]
        if faults:
            raise PlanError(faults, "grid")

    @property
    def tensor(self) -> int:
        """Devices that hold one copy of the weights."""
        return self.x * self.y * self.z

    @property
    def devices(self) -> int:
        """Devices of the whole grid."""
        return self.tensor * self.data

    @classmethod
    def from_axonn_letters(cls, *, r: int, c: int, d: int, data: int) -> Self:
        """Grid of AxoNN's G_intra_r (row), G_intra_c (column), G_intra_d (depth) and G_data.

        The script prints them in the order Gr, Gc, Gd, Gdata. Raises PlanError for a degree below 1.
        """
        return cls(x=r, y=c, z=d, data=data)

    def axonn_letters(self) -> dict[str, int]:
        """Arguments of `axonn.axonn.init` for this grid."""
        return {"G_intra_r": self.x, "G_intra_c": self.y, "G_intra_d": self.z, "G_data": self.data}

    @classmethod
    def from_plan(cls, plan: Plan) -> Self:
        """Grid of a plan. Raises PlanError where the plan does what the grid cannot express."""
        faults = [
            f"{name} = {getattr(plan, name)}, but AxoNN's communication model knows only tensor_x, tensor_y, "
            f"tensor_z and data; set {name} = 1 or predict the plan instead"
            for name in ("pipeline", "context", "expert")
            if getattr(plan, name) != 1
        ]
        if plan.zero_stage == 3:
            faults.append(
                "zero_stage = 3, but the model keeps replicas over data; shard over tensor_z instead"
            )
        order = tuple(name for name in plan.rank_order if name in _NESTING)
        if order != _NESTING:
            faults.append(f"rank_order nests {', '.join(order)}, but the model needs {', '.join(_NESTING)}")
        if faults:
            raise PlanError(faults)
        return cls(x=plan.tensor_x, y=plan.tensor_y, z=plan.tensor_z, data=plan.data)

    def apply_to(self, plan: Plan) -> Plan:
        """The plan with the degrees of this grid."""
        return replace(plan, tensor_x=self.x, tensor_y=self.y, tensor_z=self.z, data=self.data)


def _powers_of_two(limit: int) -> list[int]:
    return [1 << exponent for exponent in range(limit.bit_length())]


def feasible_grids(devices: int, sequences: int, min_tensor: int = 1) -> Iterator[Grid]:
    """Yield the grids that AxoNN's script considers, in its order.

    x, y and z are powers of two, x·y·z >= min_tensor, x·y·z·data = devices and data·z divides the
    `sequences` of the global batch. data is what is left; the script wants a power of two there too, which
    is the same for a power-of-two number of devices and lets 6,144 devices have grids at all.
    """
    powers = _powers_of_two(devices)
    for y in powers:
        for x in powers:
            for z in powers:
                tensor = x * y * z
                if devices % tensor or tensor < min_tensor:
                    continue
                data = devices // tensor
                if sequences % (data * z) == 0:
                    yield Grid(x=x, y=y, z=z, data=data)


def minimum_tensor_product(parameters: float, state_bytes_per_device: float = STATE_BYTES_PER_DEVICE) -> int:
    """Smallest power of two x·y·z at which the states of `parameters` fit `state_bytes_per_device`.

    parameters · 18 B / (x·y·z) <= state_bytes_per_device; nothing is sharded over data. The default gives
    the table of axonn-ai/Megatron-AxoNN:examples/launch_per_comm_model.py (for 40 GB devices). Raises
    PlanError unless both numbers are positive and finite.
    """
    for name, value in (("parameters", parameters), ("state_bytes_per_device", state_bytes_per_device)):
        if not 0 < value < math.inf:
            raise PlanError(
                [f"{name} must be positive and finite, but is {value}"], "smallest tensor product"
            )
    product = 1
    while STATE_BYTES_PER_PARAMETER * parameters / product > state_bytes_per_device:
        product *= 2
    return product
