"""Coarse lower bounds of the step times of many plans: what the compute streams alone have to do.

Far fewer fields of a plan decide it than its collectives, so that it costs next to nothing where `bound` takes long.
"""

from collections.abc import Callable, Iterable, Sequence
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
from towtank.simulator.lowering.feed_forward import backward_experts, forward_experts
from towtank.simulator.lowering.sizes import Sizes, local_sizes
from towtank.simulator.lowering.stages import Chunk, Part, chunks_of, parts_of, template_of
from towtank.simulator.lowering.template import Template
from towtank.simulator.operations import Operation, Phase, Stream, Work
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.records import Stack

_TOKENS = ("sequence", "micro_batch", "context", "sequence_parallel", "tensor_x", "tensor_y", "precision")
_EXPERTS = ("expert", "expert_tensor")
_FIELDS = (*_TOKENS, *_EXPERTS, *LAYOUT_FIELDS, "schedule")
"""What decides the compute of a step, but for the number of micro-batches."""

_OF_EXPERTS = ("experts.", "shared.")
"""How the names of operations of routed and shared experts begin, in layers with such."""

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


def compute_floor_s(task: TuningTask) -> float:
    """Seconds that a step of any legal plan takes at least, without a look at the plans one by one.

    A micro-batch of b sequences takes W seconds of compute on the devices of a pipeline, each of which holds a part
    x y c of it; so the busiest of N devices computes for at least W x y c / b times batch / N. W is that without
    recomputation; the floor is the least of all combinations of what W depends on.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a plan needs.
    """
    from towtank.autotune.space.enumerate import outline

    table = outline(task)
    columns = Columns(table.take(grouped(Columns(table).fields(*_TOKENS, *_EXPERTS)).first))
    one = np.ones(columns.table.num_rows, np.int64)
    sizes = local_sizes(task.model, columns.table.plan(0), task.stack)
    whole = chunks_of(sizes)[0][0]
    work = _Judge(task, columns, one).block_pair(np.arange(len(one)), whole).sum(axis=0)
    part = columns.number("tensor_x") * columns.number("tensor_y") * columns.number("context")
    share = task.global_batch * part / (columns.number("micro_batch") * task.devices)
    return float((work * share).min()) * (1 - _ROUNDING)


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
        self._parts: dict[tuple[tuple[str, ...], Part, bool], NDArray[np.float64]] = {}
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
                    blocks[chunk.signature] = self.block_pair(layout.rows, chunk)
                result[:, 2, :, place] += blocks[chunk.signature]
            for number, chunk in enumerate((chunks[0], chunks[-1])):
                result[:, number, :, place] = blocks[chunk.signature]
        return result

    def block_pair(self, rows: NDArray[np.intp], chunk: Chunk) -> NDArray[np.float64]:
        """Compute of the forward and the backward pass over a chunk, shape [2, rows]."""
        sizes = local_sizes(self.task.model, self.columns.table.plan(int(rows[0])), self.task.stack)
        pair = np.zeros((2, len(rows)))
        for backward in (False, True):
            for part in parts_of(sizes, chunk, backward=backward):
                alone = part._replace(prefixes=())
                pair[int(backward)] += len(part.prefixes) * self._part_s(rows, alone, backward=backward)
        return pair

    def _part_s(self, rows: NDArray[np.intp], part: Part, *, backward: bool) -> NDArray[np.float64]:
        """Compute of a template, shape [rows]; that of experts, which depends on more, apart from the rest."""
        fields: tuple[str, ...] = _TOKENS
        if part.name == "layer" and backward and not part.recomputed:
            fields = (*fields, "recompute")
        # whether weights are still gathered is no matter of compute
        part = part._replace(cached=False)
        seconds = self._by_key(rows, fields, part, backward, self._lowered_s)
        if part.name == "layer" and part.kind[0]:
            seconds = seconds + self._by_key(rows, _TOKENS + _EXPERTS, part, backward, self._experts_s)
        return seconds

    def _by_key(
        self,
        rows: NDArray[np.intp],
        fields: tuple[str, ...],
        part: Part,
        backward: bool,
        seconds: Callable[[Plan, Part, bool], float],
    ) -> NDArray[np.float64]:
        """Seconds worked out once for each combination of the fields that they depend on; shape [rows]."""
        if fields not in self._keys:
            self._keys[fields] = grouped(self.columns.fields(*fields))
        keys = self._keys[fields]
        name = fields, part, backward
        known = self._parts.setdefault(name, np.full(len(keys.first), np.nan))
        group = keys.group[rows]
        for key in np.unique(group[np.isnan(known[group])]):
            known[key] = seconds(self.columns.table.plan(int(keys.first[key])), part, backward)
        return known[group]

    def _lowered_s(self, plan: Plan, part: Part, backward: bool) -> float:
        """Compute of the template of one plan without its routed and shared experts."""
        template = template_of(self._sizes(plan), part, backward=backward)
        return self._compute_s(each for each in template if not each.name.startswith(_OF_EXPERTS))

    def _experts_s(self, plan: Plan, part: Part, backward: bool) -> float:
        """Compute of the routed and shared experts of a layer."""
        experts = self.task.model.experts
        assert experts is not None  # the layer has some
        template = Template(self._sizes(plan), Phase.FORWARD)
        if not backward or part.recomputed:
            forward_experts(template, experts)
        if backward:
            backward_experts(template, experts, regather=False)
        return self._compute_s(template.operations)

    def _sizes(self, plan: Plan) -> Sizes:
        """Sizes of a plan without exchanges beside its layers, which would add launches."""
        plain = replace(plan, overlap=replace(plan.overlap, expert=False))
        return local_sizes.__wrapped__(self.task.model, plain, self.stack)

    def _compute_s(self, operations: Iterable[Operation]) -> float:
        total = 0.0
        for operation in operations:
            if operation.stream is Stream.COMPUTE:
                if operation.work not in self._works:
                    self._works[operation.work] = self.cost.duration_s(operation.work)
                total += self._works[operation.work]
        return total


def _passes_of(values: NDArray[np.float64]) -> Passes:
    return Passes(values[0], values[1], values[2])
