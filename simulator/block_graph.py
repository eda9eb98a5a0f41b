"""Task graphs of blocks: the operations of one pass on the streams of one device."""

from dataclasses import dataclass

import numpy as np

from towtank.simulator.graph import GraphStructure
from towtank.simulator.operations import Block, Operation, Stream

STREAMS = tuple(Stream)
_STREAM_NUMBER = {stream: number for number, stream in enumerate(STREAMS)}


@dataclass(frozen=True, slots=True, eq=False)
class BlockGraph:
    """Structure of a block; `template` [tasks] is the index into `operations` of each task."""

    structure: GraphStructure
    operations: tuple[Operation, ...]
    template: np.ndarray
    templates: tuple[tuple[Operation, ...], ...]
    """Kept so that the identity of the templates, which the cache goes by, stays valid."""


_cache: dict[tuple[object, ...], BlockGraph] = {}
_CACHE_LIMIT = 512


def block_graph(block: Block, *, single_queue: bool = False) -> BlockGraph:
    """Graph of a block; equal blocks share one.

    `single_queue`: everything runs in order of issue on the compute stream, as on a device with one kernel queue.
    """
    key = (single_queue, *((id(segment.template), segment.repeat) for segment in block.segments))
    found = _cache.get(key)
    if found is None:
        if len(_cache) >= _CACHE_LIMIT:
            _cache.clear()
        found = _cache[key] = _build(block, single_queue=single_queue)
    return found


class _Builder:
    """Collects tasks instance by instance, and resolves dependencies on earlier instances."""

    def __init__(self) -> None:
        self.stream: list[int] = []
        self.template: list[int] = []
        self.offset: list[int] = [0]
        self.predecessor: list[int] = []
        self.computes: list[list[int]] = []
        """Compute tasks of each instance so far."""

    def add_instance(self, operations: tuple[Operation, ...], first_template: int) -> None:
        start = len(self.stream)
        for index, operation in enumerate(operations):
            self.stream.append(_STREAM_NUMBER[operation.stream])
            self.template.append(first_template + index)
            for task, back in operation.after:
                found = start + task if back == 0 else self._earlier(task, back)
                if found is not None:
                    self.predecessor.append(found)
            self.offset.append(len(self.predecessor))
        compute = [start + i for i, op in enumerate(operations) if op.stream is Stream.COMPUTE]
        self.computes.append(compute)

    def _earlier(self, index: int, back: int) -> int | None:
        if back > len(self.computes):
            return None
        computes = self.computes[-back]
        if not computes:
            return None
        return computes[max(index, -len(computes))]


def _build(block: Block, *, single_queue: bool) -> BlockGraph:
    builder = _Builder()
    operations: list[Operation] = []
    for segment in block.segments:
        first = len(operations)
        operations.extend(segment.template)
        for _ in range(segment.repeat):
            builder.add_instance(segment.template, first)
    stream = np.array(builder.stream, dtype=np.int32)
    structure = GraphStructure(
        stream=np.full_like(stream, _STREAM_NUMBER[Stream.COMPUTE]) if single_queue else stream,
        predecessor_offset=np.array(builder.offset, dtype=np.int64),
        predecessor=np.array(builder.predecessor, dtype=np.int32),
        # operations are emitted in issue order, and depend on earlier ones only
        order=np.arange(len(builder.stream), dtype=np.int32),
        device=np.zeros(len(STREAMS), dtype=np.int32),
        communicates=np.array([stream is not Stream.COMPUTE for stream in STREAMS]),
    )
    templates = tuple(segment.template for segment in block.segments)
    return BlockGraph(structure, tuple(operations), np.array(builder.template, dtype=np.int32), templates)
