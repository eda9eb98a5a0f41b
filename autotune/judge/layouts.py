"""How plans cut a model into chunks: rows with one cut are judged together, stage by stage."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.keys import Columns, grouped
from towtank.autotune.task import TuningTask
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import Chunk, chunks_of, distinct_stages

LAYOUT_FIELDS = (
    "pipeline", "virtual_stages", "stage_layers", "recompute", "recompute_every", "cached_layers",
)  # fmt: skip
"""What decides which layers a chunk holds and how they run."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Rows of a table that cut the model alike."""

    rows: NDArray[np.intp]
    stages: tuple[tuple[Chunk, ...], ...]
    """Chunks of each stage."""
    alike: tuple[tuple[int, ...], ...]
    """Stages in groups that do the same."""
    columns: Columns
    """Of these rows."""


def layouts(task: TuningTask, columns: Columns) -> Iterator[Layout]:
    """The cuts of a table, each with its rows."""
    table = columns.table
    groups = grouped(columns.fields(*LAYOUT_FIELDS))
    order = np.argsort(groups.group, kind="stable")
    bounds = np.searchsorted(groups.group[order], np.arange(len(groups.first) + 1))
    for number, first in enumerate(groups.first):
        rows = order[bounds[number] : bounds[number + 1]]
        sizes = local_sizes(task.model, table.plan(int(first)), task.stack)
        yield Layout(rows, chunks_of(sizes), distinct_stages(sizes), Columns(table.take(rows)))
