"""Weights of layers and stages of many plans."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.keys import Columns, compressed, grouped
from towtank.autotune.task import TuningTask
from towtank.simulator.lowering.layer import layer_kind, local_layer_weights
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import Chunk
from towtank.simulator.lowering.weights import Weights, end_weights

Kind = tuple[bool, int | None]
Rows = NDArray[np.intp]

_FIELDS = ("tensor_x", "tensor_y", "expert", "expert_tensor")


class WeightJudge:
    """Weights on a device while in use, by how they are sharded (dense, experts, embedding)."""

    def __init__(self, task: TuningTask, columns: Columns) -> None:
        piped = compressed((columns.number("pipeline") > 1).astype(np.int64))
        groups = grouped([*columns.fields(*_FIELDS), piped])
        self._group = groups.group
        plans = [columns.table.plan(int(row)) for row in groups.first]
        sizes = [local_sizes(task.model, plan, task.stack) for plan in plans]
        layers = range(task.model.num_layers)
        self.kinds: tuple[Kind, ...] = tuple(dict.fromkeys(layer_kind(sizes[0], layer) for layer in layers))
        self._layers = {
            kind: np.array([(*local_layer_weights(each, kind[0]), 0) for each in sizes], np.float64)
            for kind in self.kinds
        }
        self._ends = {}
        for has_embedding, has_head in ((False, False), (True, False), (False, True), (True, True)):
            chunk = empty_chunk(has_embedding=has_embedding, has_head=has_head)
            weights = [_tuple(end_weights(each, chunk)) for each in sizes]
            self._ends[has_embedding, has_head] = np.array(weights, np.float64)

    def layer(self, kind: Kind, rows: Rows) -> NDArray[np.float64]:
        """Weights of a layer, shape [rows, 3]."""
        return self._layers[kind][self._group[rows]]

    def ends(self, has_embedding: bool, has_head: bool, rows: Rows) -> NDArray[np.float64]:
        """Weights of embedding and head of a chunk, shape [rows, 3]."""
        return self._ends[has_embedding, has_head][self._group[rows]]

    def stage(self, chunks: Sequence[Chunk], rows: Rows) -> NDArray[np.float64]:
        """Weights of a stage, shape [rows, 3]."""
        total = np.zeros((len(self._group[rows]), 3))
        for chunk in chunks:
            for run in chunk.runs:
                total += run.num_layers * self.layer(run.kind, rows)
            if chunk.has_embedding or chunk.has_head:
                total += self.ends(chunk.has_embedding, chunk.has_head, rows)
        return total


def _tuple(weights: Weights) -> tuple[int, int, int]:
    return weights.dense, weights.experts, weights.embedding


def empty_chunk(*, has_embedding: bool, has_head: bool) -> Chunk:
    """Chunk of no layers."""
    return Chunk(0, 0, 0, 0, has_embedding, has_head, ())
