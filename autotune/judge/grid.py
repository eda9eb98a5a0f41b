"""Groups of plans on the machine: each way in which a group lies on its nodes is costed once."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.keys import Codes, Columns, Groups, grouped
from towtank.autotune.task import TuningTask
from towtank.simulator.cost.model import CostModel
from towtank.simulator.groups import dimensions
from towtank.simulator.plan import Plan

GRID_FIELDS = (
    "tensor_x", "tensor_y", "tensor_z", "context", "data", "data_shard", "zero_stage", "pipeline", "expert",
    "expert_tensor", "rank_order",
)  # fmt: skip
"""What decides the groups of a plan and where they lie."""

GROUPS = (
    "tensor_x", "tensor_y", "tensor_xy", "tensor_z", "context", "pipeline", "data", "world", "weight_shard",
    "state_shard", "replicate", "ends",
)  # fmt: skip
EXPERT_GROUPS = ("expert", "expert_tensor", "expert_data", "expert_shard", "expert_replicate")


@dataclass(frozen=True, slots=True, eq=False)
class Lie:
    """A group of many plans: `number` [grid keys] tells which of the ways it lies in, `costs` those of each way."""

    number: NDArray[np.intp]
    costs: list[CostModel]


class Grid:
    """Groups of the plans of a table."""

    def __init__(self, task: TuningTask, columns: Columns) -> None:
        self.task = task
        self.keys: Groups = grouped(columns.fields(*GRID_FIELDS))
        self.plans = [columns.table.plan(int(row)) for row in self.keys.first]
        names = GROUPS + (EXPERT_GROUPS if task.model.experts is not None else ())
        self.lies = {name: self._lie(name) for name in names}

    def cost(self, plan: Plan) -> CostModel:
        """Costs of a plan, for bounds."""
        return CostModel(self.task.machine, plan, self.task.stack, self.task.profile_dirs, any_load=True)

    def _lie(self, group: str) -> Lie:
        known: dict[tuple[tuple[int, int], ...], int] = {}
        costs: list[CostModel] = []
        number = np.empty(len(self.plans), np.intp)
        for place, plan in enumerate(self.plans):
            key = tuple(each for each in dimensions(plan, group) if each[0] > 1)
            if key not in known:
                known[key] = len(costs)
                costs.append(self.cost(plan))
            number[place] = known[key]
        return Lie(number, costs)

    def codes(self, group: str) -> Codes:
        """Which of its ways a group lies in, of each row of the table."""
        lie = self.lies[group]
        return lie.number[self.keys.group], len(lie.costs)

    def seconds(
        self,
        collective: str,
        group: str,
        keys: NDArray[np.intp],
        num_bytes: NDArray[np.float64],
        fan_out: int = 0,
    ) -> NDArray[np.float64]:
        """Seconds of messages [n] of the plans of some grid keys [n]; 0 for empty ones."""
        lie = self.lies[group]
        result = np.zeros(len(keys))
        number = lie.number[keys]
        order = np.argsort(number, kind="stable")
        bounds = np.flatnonzero(np.diff(number[order], prepend=-1, append=-1))
        for begin, end in pairwise(bounds):
            chosen = order[begin:end]
            chosen = chosen[num_bytes[chosen] > 0]
            if len(chosen):
                cost = lie.costs[int(number[chosen[0]])]
                result[chosen] = cost.messages_s(collective, group, num_bytes[chosen], fan_out)
        return result
