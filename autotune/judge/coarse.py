"""Coarse lower bounds of the step times of many plans: what the compute streams alone have to do.

Far fewer fields of a plan decide it than its collectives, so that it costs next to nothing where `bound` takes long.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.keys import Columns, Groups, compressed, grouped
from towtank.autotune.judge.layouts import LAYOUT_FIELDS, Layout, layouts
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.bounds import (
    NUM_ENDS,
    StageEnds,
    StepTerms,
    end_chunk_layers,
    stage_entries,
    step_bounds_s,
)
from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.bounds import Passes, PipelineShape
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import Chunk, Part, parts_of, template_of
from towtank.simulator.operations import Stream, Work
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.records import Stack

_TOKENS = ("sequence", "micro_batch", "context", "sequence_parallel", "tensor_x", "tensor_y", "precision")
_EXPERTS = ("expert", "expert_tensor")
_FIELDS = (*_TOKENS, *_EXPERTS, *LAYOUT_FIELDS, "schedule")
"""What decides the compute of a step, but for the number of micro-batches."""

_ROUNDING = 1e-12
"""What a bound is lowered by: sums of the same terms in another order differ in their last digits."""


def coarse_bound_s(task: TuningTask, table: PlanTable) -> NDArray[np.float64]:
    """Seconds that the compute of a step and the bubble of its pipeline take at least, shape [rows].

    Never above `step_bound_s`, but for rounding, nor above the step time under the compiled engine: collectives,
    transfers, the ends of the step and the kernels that come with sharded weights count as nothing. Plans of the
    table must have passed their rules.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a plan needs.
    """
    if not table.num_rows:
        return np.empty(0)
    columns = Columns(table)
    samples = columns.number("micro_batch") * columns.number("data") * columns.number("tensor_z")
    count = columns.number("global_batch") // samples
    groups = grouped([*columns.fields(*_FIELDS), compressed(count)])
    judge = _Judge(task, Columns(table.take(groups.first)), count[groups.first])
    return judge.bounds()[groups.group] * (1 - _ROUNDING)


def _relaxed(stack: Stack) -> Stack:
    """The stack without the kernels whose work depends on how weights are sharded."""
    return replace(
        stack,
        kernels=replace(stack.kernels, fused_gradient_accumulation=True),
        communication=replace(stack.communication, unit_copies="none"),
    )


class _Judge:
    """Coarse bounds of plans that differ in what these depend on."""

    def __init__(self, task: TuningTask, columns: Columns, num_micro_batches: NDArray[np.int64]) -> None:
        self.task = task
        self.columns = columns
        self.num_micro_batches = num_micro_batches
        self.stack = _relaxed(task.stack)
        first = columns.table.plan(0)
        self.cost = CostModel(task.machine, first, task.stack, task.profile_dirs, any_load=True)
        self._keys: dict[tuple[str, ...], Groups] = {}
        self._parts: dict[tuple[Part, bool], NDArray[np.float64]] = {}
        self._works: dict[Work, float] = {}

    def bounds(self) -> NDArray[np.float64]:
        """Bound of each row."""
        result = np.empty(self.columns.table.num_rows)
        for layout in layouts(self.task, self.columns):
            firsts, counts = stage_entries(layout.alike)
            forward, backward = self._passes(layout, firsts)
            shape = PipelineShape(len(layout.stages[0]), np.array(counts))
            layers = end_chunk_layers([layout.stages[stage] for stage in firsts])
            schedules = grouped(layout.columns.fields("schedule"))
            for number, first in enumerate(schedules.first):
                part = np.flatnonzero(schedules.group == number)
                rows = layout.rows[part]
                terms = StepTerms(
                    schedule=layout.columns.table.plan(int(first)).schedule_name,
                    shape=shape,
                    layers=layers,
                    num_micro_batches=self.num_micro_batches[rows],
                    send_s=np.zeros(len(rows)),
                    blocking_sends=np.zeros(len(rows), np.bool_),
                    ends=StageEnds(np.zeros((len(rows), len(firsts), NUM_ENDS))),
                )
                result[rows] = step_bounds_s(
                    _passes_of(forward[:, part]), _passes_of(backward[:, part]), terms
                )
        return result

    def _passes(self, layout: Layout, stages: Sequence[int]) -> NDArray[np.float64]:
        """Compute of passes through some stages: forward and backward, as `Passes`; [2, 3, rows, stages]."""
        blocks: dict[tuple[object, ...], NDArray[np.float64]] = {}
        result = np.zeros((2, 3, len(layout.rows), len(stages)))
        for place, stage in enumerate(stages):
            chunks = layout.stages[stage]
            for chunk in chunks:
                if chunk.signature not in blocks:
                    blocks[chunk.signature] = self._block_pair(layout.rows, chunk)
                result[:, 2, :, place] += blocks[chunk.signature]
            for number, chunk in enumerate((chunks[0], chunks[-1])):
                result[:, number, :, place] = blocks[chunk.signature]
        return result

    def _block_pair(self, rows: NDArray[np.intp], chunk: Chunk) -> NDArray[np.float64]:
        """Compute of the forward and the backward pass over a chunk, shape [2, rows]."""
        sizes = local_sizes(self.task.model, self.columns.table.plan(int(rows[0])), self.task.stack)
        pair = np.zeros((2, len(rows)))
        for backward in (False, True):
            for part in parts_of(sizes, chunk, backward=backward):
                alone = part._replace(prefixes=())
                pair[int(backward)] += len(part.prefixes) * self._part_s(rows, alone, backward=backward)
        return pair

    def _part_s(self, rows: NDArray[np.intp], part: Part, *, backward: bool) -> NDArray[np.float64]:
        """Compute of a template, worked out once for each combination of what it depends on; shape [rows]."""
        fields: tuple[str, ...] = _TOKENS
        if part.name == "layer" and part.kind[0]:
            fields = (*fields, *_EXPERTS)
        if part.name == "layer" and backward and not part.recomputed:
            fields = (*fields, "recompute")
        if fields not in self._keys:
            self._keys[fields] = grouped(self.columns.fields(*fields))
        keys = self._keys[fields]
        # whether weights are still gathered is no matter of compute
        name = part._replace(cached=False), backward
        known = self._parts.setdefault(name, np.full(len(keys.first), np.nan))
        group = keys.group[rows]
        for key in np.unique(group[np.isnan(known[group])]):
            plan = self.columns.table.plan(int(keys.first[key]))
            known[key] = self._lowered_s(plan, part, backward=backward)
        return known[group]

    def _lowered_s(self, plan: Plan, part: Part, *, backward: bool) -> float:
        """Compute of the template of one plan; exchanges beside it would add launches."""
        plain = replace(plan, overlap=replace(plan.overlap, expert=False))
        sizes = local_sizes.__wrapped__(self.task.model, plain, self.stack)
        template = template_of(sizes, part, backward=backward)
        total = 0.0
        for operation in template:
            if operation.stream is Stream.COMPUTE:
                if operation.work not in self._works:
                    self._works[operation.work] = self.cost.duration_s(operation.work)
                total += self._works[operation.work]
        return total


def _passes_of(values: NDArray[np.float64]) -> Passes:
    return Passes(values[0], values[1], values[2])
