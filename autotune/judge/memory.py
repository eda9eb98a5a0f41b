"""Peak memory of many plans at once: the parts of `simulator.memory`, each worked out once for what it depends on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.keys import Codes, Columns, Groups, compressed, grouped, masked
from towtank.autotune.judge.layouts import Layout, layouts
from towtank.autotune.judge.weights import WeightJudge
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.lowering.layer import layer_kind
from towtank.simulator.lowering.sizes import Sizes, local_sizes, resolve_overlap
from towtank.simulator.lowering.stages import Chunk
from towtank.simulator.lowering.weights import Weights
from towtank.simulator.memory.activations import gathered_input_bytes, layer_activations
from towtank.simulator.memory.stages import (
    StageFigures,
    buffer_bytes,
    end_bytes,
    gathered_bytes,
    late_gradient_bytes,
    stage_parts,
    state_bytes,
)
from towtank.simulator.plan import Plan
from towtank.simulator.schedules import alive_micro_batches
from towtank.simulator.stacks.records import Stack

Kind = tuple[bool, int | None]

_UNITS = (Weights(1, 0, 0), Weights(0, 1, 0), Weights(0, 0, 1))

_FIELDS = (
    "sequence", "micro_batch", "global_batch", "context", "sequence_parallel", "tensor_x", "tensor_y", "tensor_z",
    "data", "data_shard", "zero_stage", "pipeline", "virtual_stages", "schedule", "stage_layers", "recompute",
    "recompute_every", "cached_layers", "expert", "expert_tensor", "precision", "gradient_precision",
    "master_precision",
)  # fmt: skip
"""All that memory depends on, but for two overlaps."""

_TOKEN_FIELDS = (
    "sequence",
    "micro_batch",
    "context",
    "sequence_parallel",
    "tensor_x",
    "tensor_y",
    "precision",
)


def peak_memory_bytes(task: TuningTask, table: PlanTable) -> NDArray[np.float64]:
    """Bytes per device at the peak of the fullest stage, shape [rows]; as `Prediction.peak_memory_bytes`.

    Plans of the table must have passed their rules.
    """
    if not table.num_rows:
        return np.empty(0)
    columns = Columns(table)
    groups = grouped([*columns.fields(*_FIELDS), *_gather_overlaps(task, columns)])
    distinct = _Judge(task, Columns(table.take(groups.first)))
    return distinct.peaks()[groups.group]


def _weight_shards(columns: Columns) -> NDArray[np.int64]:
    fields = ("tensor_z", "data", "data_shard", "zero_stage", "context")
    return columns.derived(fields, lambda plan: plan.weight_shards)


def _gather_overlaps(task: TuningTask, columns: Columns) -> list[Codes]:
    """Whether gathers and reductions of weights overlap, where there are such."""

    def switches(plan: Plan) -> int:
        overlap = resolve_overlap(plan, task.stack)
        return 2 * bool(overlap.all_gather) + bool(overlap.reduce_scatter)

    found = columns.derived(("overlap", "pipeline", "virtual_stages"), switches)
    return [masked(found, _weight_shards(columns) > 1)]


def _gathers_alike(stack: Stack, chunks: tuple[Chunk, ...]) -> tuple[object, ...]:
    """Equal for chunks that hold as many gathered weights."""
    kinds = frozenset(run.kind[0] for chunk in chunks for run in chunk.runs)
    ends = any(chunk.has_embedding or chunk.has_head for chunk in chunks)
    communication = stack.communication
    if communication.regather_in_backward and not communication.pipeline_keeps_gathered:
        return kinds, ends
    return kinds, ends, *(chunk.signature for chunk in chunks)


@dataclass(frozen=True, slots=True)
class _LayerBytes:
    """Bytes that a layer keeps, those among them that are gathered inputs, and its working set; each [rows]."""

    kept: NDArray[np.float64]
    gathered: NDArray[np.float64]
    working: NDArray[np.float64]


class _Judge:
    """Peak memory of plans that differ in what memory depends on."""

    def __init__(self, task: TuningTask, columns: Columns) -> None:
        self.task = task
        self.columns = columns
        count = columns.number("global_batch") // (
            columns.number("micro_batch") * columns.number("data") * columns.number("tensor_z")
        )
        self.micro_batches = compressed(count)
        self.repeats = masked((count > 1).astype(np.int64), count > 0)
        self.weights = WeightJudge(task, columns)
        self.states = self._states()
        self.ends = self._ends()
        self.layers = self._layers()
        self.gathers = self._gather_keys()
        self._known_gathered: dict[tuple[object, ...], NDArray[np.float64]] = {}

    def sizes(self, plan: Plan) -> Sizes:
        """Sizes of a plan; not through the cache, which would hash model, plan and stack each time."""
        return local_sizes.__wrapped__(self.task.model, plan, self.task.stack)

    def _states(self) -> NDArray[np.float64]:
        """Bytes of states, then of late gradients, for each weight of a kind; shape [rows, 6]."""

        def figures(plan: Plan) -> list[float]:
            sizes = self.sizes(plan)
            states = [sum(state_bytes(sizes, unit).values()) for unit in _UNITS]
            return states + [late_gradient_bytes(sizes, unit) for unit in _UNITS]

        fields = (
            "tensor_z", "data", "data_shard", "zero_stage", "context", "expert", "expert_tensor", "pipeline",
            "precision", "gradient_precision", "master_precision",
        )  # fmt: skip
        columns = self.columns
        tensor = columns.number("tensor_x") * columns.number("tensor_y")
        # replicas of an expert are counted over all devices of a stage
        inside = masked(tensor, columns.number("expert") > 1)
        return columns.evaluated(fields, figures, inside, self.repeats)

    def _ends(self) -> NDArray[np.float64]:
        """Bytes of the end of the model, of logits and of communication buffers; shape [rows, 3]."""

        def figures(plan: Plan) -> tuple[float, ...]:
            sizes = self.sizes(plan)
            return (*end_bytes(sizes), buffer_bytes(sizes))

        columns = self.columns
        states = ("tensor_z", "data", "data_shard", "zero_stage", "context")
        sharded = columns.derived(states, lambda plan: plan.state_shards > 1)
        piped = (columns.number("pipeline") > 1).astype(np.int64)
        return columns.evaluated(_TOKEN_FIELDS, figures, compressed(sharded), compressed(piped), self.repeats)

    def _layers(self) -> dict[tuple[Kind, bool], _LayerBytes]:
        """Activations of each kind of layer, recomputed or not."""
        plan = self.columns.table.plan(0)
        sizes = self.sizes(plan)
        kinds = dict.fromkeys(layer_kind(sizes, layer) for layer in range(sizes.model.num_layers))
        variants = [(kind, recomputed) for kind in kinds for recomputed in (False, True)]

        def figures(plan: Plan) -> list[float]:
            sizes = self.sizes(plan)
            found: list[float] = []
            for kind, recomputed in variants:
                one = layer_activations(sizes, kind, recomputed)
                found += [one.kept, gathered_input_bytes(sizes, kind, recomputed), one.working]
            return found

        fields = (*_TOKEN_FIELDS, "recompute", "expert", "expert_tensor")
        found = self.columns.evaluated(fields, figures).T
        return {
            variant: _LayerBytes(*found[3 * number : 3 * number + 3])
            for number, variant in enumerate(variants)
        }

    def peaks(self) -> NDArray[np.float64]:
        """Peak of the fullest stage, shape [rows]."""
        peaks = np.zeros(self.columns.table.num_rows)
        for layout in layouts(self.task, self.columns):
            # of stages that do the same, the one that holds most activations is the fullest
            for same in layout.alike:
                peak = self._stage_peaks(layout, same)
                peaks[layout.rows] = np.maximum(peaks[layout.rows], peak)
        return peaks

    def _stage_peaks(self, layout: Layout, same: tuple[int, ...]) -> NDArray[np.float64]:
        rows, chunks = layout.rows, layout.stages[same[0]]
        weights = self.weights.stage(chunks, rows)
        states = self.states[rows]
        head, logits, buffers = self.ends[rows].T
        has_head = any(chunk.has_head for chunk in chunks)
        kept, gathered_inputs, working = self._activations(rows, chunks)
        figures = StageFigures(
            weights=(states[:, :3] * weights).sum(axis=1),
            gradients=0.0,
            optimizer=0.0,
            gathered=self._gathered(rows, chunks),
            kept=kept,
            working=working,
            head=head * has_head,
            logits=logits * has_head,
            gathered_inputs=gathered_inputs,
            late_gradients=(states[:, 3:] * weights).sum(axis=1),
            buffers=buffers,
        )
        peak = np.zeros(len(rows))
        for part in stage_parts(figures, self._alive(layout, same), self.task.stack.memory).values():
            peak += part
        return peak

    def _activations(
        self, rows: NDArray[np.intp], chunks: tuple[Chunk, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Kept bytes of a micro-batch and gathered inputs among them, over the number of chunks; working set."""
        kept, gathered, working = np.zeros((3, len(rows)))
        for chunk in chunks:
            for run in chunk.runs:
                one = self.layers[run.kind, run.recomputed]
                kept += one.kept[rows] * run.num_layers
                gathered += one.gathered[rows] * run.num_layers
                working = np.maximum(working, one.working[rows])
        return kept / len(chunks), gathered / len(chunks), working

    def _gathered(self, rows: NDArray[np.intp], chunks: tuple[Chunk, ...]) -> NDArray[np.float64]:
        """Weights gathered for use, worked out once for stages alike in what they gather; shape [rows]."""
        keys, name = self.gathers, _gathers_alike(self.task.stack, chunks)
        known = self._known_gathered.setdefault(name, np.full(len(keys.first), np.nan))
        group = keys.group[rows]
        seen = np.zeros(len(known), np.bool_)
        seen[group] = True
        for key in np.flatnonzero(seen & np.isnan(known)):
            known[key] = gathered_bytes(self.sizes(self.columns.table.plan(int(keys.first[key]))), chunks)
        return known[group]

    def _gather_keys(self) -> Groups:
        """Rows that gather alike, given their chunks."""
        columns = self.columns
        fields = (
            "tensor_x",
            "tensor_y",
            "expert",
            "expert_tensor",
            "precision",
            "gradient_precision",
            "zero_stage",
        )
        sharded = masked(np.zeros(columns.table.num_rows, np.int64), _weight_shards(columns) > 1)
        piped = compressed((columns.number("pipeline") > 1).astype(np.int64))
        return grouped([*columns.fields(*fields), *_gather_overlaps(self.task, columns), sharded, piped])

    def _alive(self, layout: Layout, same: tuple[int, ...]) -> NDArray[np.float64]:
        """Most passes whose activations a stage of a group holds at once, shape [rows]."""

        def most(plan: Plan) -> tuple[float]:
            alive = alive_micro_batches(
                plan.schedule_name, plan.pipeline, plan.virtual_stages, plan.num_micro_batches
            )
            return (float(alive[list(same)].max()),)

        codes, count = self.micro_batches
        return layout.columns.evaluated(("schedule",), most, (codes[layout.rows], count))[:, 0]
