"""Figures around the passes of many plans: collectives over data, gradient norm, optimizer (`bounds.StageEnds`)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.grid import Grid
from towtank.autotune.judge.keys import Columns, compressed, grouped
from towtank.autotune.judge.layouts import Layout
from towtank.autotune.judge.weights import Kind, WeightJudge, empty_chunk
from towtank.autotune.task import TuningTask
from towtank.simulator.bounds import NUM_ENDS
from towtank.simulator.lowering.sizes import local_sizes, resolve_overlap
from towtank.simulator.lowering.stages import Chunk
from towtank.simulator.lowering.weights import (
    Weights,
    gradient_messages,
    gradient_norm_work,
    optimizer_work,
    parameter_messages,
    tied_embedding_message,
)
from towtank.simulator.plan import Plan
from towtank.simulator.predict import possible_overlap
from towtank.simulator.step_ends import end_layer

Slot = tuple[str, str]
"""Collective and group of a message; each comes once in a step."""
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_WORK: Slot = ("work", "")
_UNITS = (Weights(1, 0, 0), Weights(0, 1, 0), Weights(0, 0, 1))
_PRECISIONS = ("precision", "gradient_precision", "master_precision")
_STATES = (
    "tensor_x", "tensor_y", "tensor_z", "context", "data", "data_shard", "zero_stage", "pipeline", "expert",
    "expert_tensor", *_PRECISIONS,
)  # fmt: skip
"""What decides how many bytes of each weight are sent and updated; tensor degrees through the replicas of experts."""

Type = tuple[Kind | None, bool, bool]
"""A layer of a kind (None: no layer), with embedding or head or both."""


class EndJudge:
    """Ends of stages. All that is not a stage's own is worked out for each distinct set of states in the grid."""

    def __init__(self, task: TuningTask, columns: Columns, grid: Grid) -> None:
        self.task = task
        self.grid = grid
        self.weights = WeightJudge(task, columns)
        overlap = columns.derived(("overlap", "pipeline", "virtual_stages"), self._switches)
        grid_codes = (grid.keys.group, len(grid.keys.first))
        keys = grouped([grid_codes, *columns.fields(*_PRECISIONS), compressed(overlap)])
        self.first, self.group = keys.first, keys.group
        self.grid_of = grid.keys.group[keys.first]
        self.reduces_in_layers = overlap[keys.first] & 1 == 1
        self.gathers_in_layers = overlap[keys.first] & 2 == 2
        self._linear(columns)
        self._layers: dict[tuple[int, Type], Floats] = {}
        self.tied_s = self._tied(columns)
        world = np.full(len(self.first), 4.0)
        self.world_s = grid.seconds("all-reduce", "world", self.grid_of, world)

    def _switches(self, plan: Plan) -> int:
        """Bits: gradients are reduced, and parameters gathered, layer by layer beside the passes."""
        overlap = resolve_overlap(possible_overlap(plan, self.task.machine), self.task.stack)
        return bool(overlap.data_gradients) + 2 * bool(overlap.parameter_gather)

    def _linear(self, columns: Columns) -> None:
        """Bytes for each weight of a kind (dense, experts, embedding) of messages, norm and optimizer; [keys, 3]."""
        groups = grouped([(codes[self.first], count) for codes, count in columns.fields(*_STATES)])
        found = [
            [self._unit_bytes(columns.table.plan(int(self.first[place])), unit) for unit in _UNITS]
            for place in groups.first
        ]
        self.bytes: list[dict[Slot, Floats]] = []
        for part in range(4):
            slots = dict.fromkeys(slot for units in found for unit in units for slot in unit[part])
            self.bytes.append(
                {
                    slot: np.array([[unit[part].get(slot, 0.0) for unit in units] for units in found])[
                        groups.group
                    ]
                    for slot in slots
                }
            )

    def _unit_bytes(self, plan: Plan, unit: Weights) -> tuple[dict[Slot, float], ...]:
        """Bytes of one weight: reduced, gathered, read for the norm, read and written by the optimizer."""
        sizes = local_sizes(self.task.model, plan, self.task.stack)
        norm, optimizer = gradient_norm_work(sizes, unit), optimizer_work(sizes, unit)
        self.launches = (norm.launches, norm.kernel), (optimizer.launches, optimizer.kernel)
        messages = gradient_messages(sizes, unit), parameter_messages(sizes, unit)
        by_slot = [{(each.collective, each.group): each.bytes for each in found} for found in messages]
        return (*by_slot, {_WORK: norm.bytes}, {_WORK: optimizer.bytes})

    def _messages_s(self, part: int, weights: Floats, keys: Rows) -> Floats:
        """Seconds of all reductions (part 0) or gathers (part 1) of some weights [n, 3] of some keys [n]."""
        total = np.zeros(len(keys))
        for (collective, group), each in self.bytes[part].items():
            num_bytes = (each[keys] * weights).sum(axis=1)
            total += self.grid.seconds(collective, group, self.grid_of[keys], num_bytes)
        return total

    def _work_s(self, part: int, weights: Floats, keys: Rows) -> Floats:
        """Seconds of the norm (part 2) or the optimizer (part 3)."""
        cost = self.grid.lies["world"].costs[0]
        num_bytes = (self.bytes[part][_WORK][keys] * weights).sum(axis=1)
        seconds: Floats = cost.compute.elementwise_s(num_bytes, *self.launches[part - 2]) * cost.slowest
        return seconds

    def _layer_s(self, part: int, kind: Type) -> Floats:
        """Seconds of the reductions (part 0) or gathers (part 1) of one layer, of each key."""
        if (part, kind) not in self._layers:
            layer, has_embedding, has_head = kind
            weights = self.weights.ends(has_embedding, has_head, self.first)
            if layer is not None:
                weights = weights + self.weights.layer(layer, self.first)
            self._layers[part, kind] = self._messages_s(part, weights, np.arange(len(self.first)))
        return self._layers[part, kind]

    def of(self, layout: Layout) -> Floats:
        """Ends of all stages, shape [rows, stages, NUM_ENDS]."""
        distinct, place = compressed_rows(self.group[layout.rows])
        result = np.empty((len(distinct), len(layout.stages), NUM_ENDS))
        first_stage = self.weights.stage(layout.stages[0], self.first[distinct])
        gathers = np.zeros(len(distinct), np.bool_)
        for each in self.bytes[1].values():
            gathers |= (each[distinct] * first_stage).sum(axis=1) > 0
        for same in layout.alike:
            result[:, list(same)] = self._stage(layout.stages[same[0]], distinct, gathers)[:, None]
        return result[place]

    def _stage(self, chunks: Sequence[Chunk], keys: Rows, gathers: NDArray[np.bool_]) -> Floats:
        """Ends of one stage, shape [keys, NUM_ENDS]."""
        weights = self.weights.stage(chunks, self.first[keys])
        result = np.zeros((len(keys), NUM_ENDS))
        beside = gathers & self.gathers_in_layers[keys]
        result[:, 0:3] = self._in_layers(1, chunks, keys, beside)
        in_layers = self.reduces_in_layers[keys]
        result[:, 3:6] = self._in_layers(0, chunks, keys, in_layers)
        result[:, 6] = in_layers
        whole = np.flatnonzero(~in_layers)
        result[whole, 4] = self._messages_s(0, weights[whole], keys[whole])
        after = self._work_s(2, weights, keys) + self.world_s[keys] + self._work_s(3, weights, keys)
        after += self.task.stack.step_overhead_s
        if any(chunk.has_embedding or chunk.has_head for chunk in chunks):
            after += self.tied_s[keys]
        late = np.flatnonzero(gathers & ~beside)
        after[late] += self._messages_s(1, weights[late], keys[late])
        result[:, 7] = after
        return result

    def _in_layers(self, part: int, chunks: Sequence[Chunk], keys: Rows, where: NDArray[np.bool_]) -> Floats:
        """Collectives of the first layer of the first chunk, of that chunk, of all chunks; [keys, 3]."""
        result = np.zeros((len(keys), 3))
        if not where.any():
            return result
        for number, chunk in enumerate(chunks):
            types = _types(chunk)
            if chunk.num_layers == 0 and part == 0:
                continue
            for layer, kind in enumerate(dict.fromkeys(types)):
                seconds = self._layer_s(part, kind)[keys]
                if number == 0 and layer == 0:
                    result[:, 0] = seconds
                result[:, 2] += seconds * types.count(kind)
            if number == 0:
                result[:, 1] = result[:, 2]
        return result * where[:, None]

    def _tied(self, columns: Columns) -> Floats:
        """Seconds in which first and last stage sum the gradients of a tied table, of each key."""
        first = self.first
        if not self.task.model.tied_embeddings:
            return np.zeros(len(first))

        def num_bytes(plan: Plan) -> float:
            sizes = local_sizes(self.task.model, plan, self.task.stack)
            message = tied_embedding_message(sizes, (empty_chunk(has_embedding=True, has_head=False),))
            return message.bytes if message else 0.0

        fields = (
            "tensor_x",
            "tensor_y",
            "tensor_z",
            "context",
            "data",
            "data_shard",
            "zero_stage",
            "pipeline",
        )
        groups = grouped([(codes[first], count) for codes, count in columns.fields(*fields, *_PRECISIONS)])
        sent = np.array([num_bytes(columns.table.plan(int(first[place]))) for place in groups.first])
        return self.grid.seconds("all-reduce", "ends", self.grid_of, sent[groups.group])


def _types(chunk: Chunk) -> list[Type]:
    """Layers of a chunk by what their collectives carry."""
    if chunk.num_layers == 0:
        return [(None, chunk.has_embedding, chunk.has_head)]
    types: list[Type] = [(run.kind, False, False) for run in chunk.runs for _ in range(run.num_layers)]
    end = end_layer(chunk)
    if end >= 0:
        types[end] = (types[end][0], chunk.has_embedding, chunk.has_head)
    return types


def compressed_rows(numbers: Rows) -> tuple[Rows, Rows]:
    """Distinct numbers, and the place of each number among them."""
    groups = grouped([compressed(numbers)])
    return numbers[groups.first], groups.group
