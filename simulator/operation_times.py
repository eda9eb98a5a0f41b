"""Times of single operations over a whole step, from the block timelines."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from towtank.simulator.block_graph import STREAMS
from towtank.simulator.block_time import BlockTime
from towtank.simulator.operations import Block, Operation, Stream
from towtank.simulator.record import OperationTime
from towtank.simulator.step import StepTime

_COMPUTE = STREAMS.index(Stream.COMPUTE)


def block_instances(block: Block) -> Iterator[tuple[str, Operation]]:
    """Prefix and operation of every task of a block, in task order."""
    for segment in block.segments:
        for prefix in segment.prefixes:
            for operation in segment.template:
                yield prefix, operation


def exposed_seconds(time: BlockTime) -> list[float]:
    """Seconds of the compute stream that belong to each task: its own, or the wait for it."""
    graph, timeline = time.graph, time.timeline
    exposed = np.zeros(graph.structure.num_tasks)
    clock = 0.0
    for task in np.flatnonzero(graph.structure.stream == _COMPUTE).tolist():
        start, finish = float(timeline.start_s[task]), float(timeline.finish_s[task])
        if start > clock:
            exposed[int(timeline.binding[task])] += start - clock
        exposed[task] += finish - start
        clock = finish
    if timeline.makespan_s > clock:
        exposed[int(timeline.finish_s.argmax())] += timeline.makespan_s - clock
    # waiting for the host has no operation of its own: all share it
    if (late := time.makespan_s - timeline.makespan_s) > 0:
        exposed += late / len(exposed)
    seconds: list[float] = exposed.tolist()
    return seconds


def operation_times(step: StepTime) -> tuple[OperationTime, ...]:
    """Seconds of each operation per step on an average device, passes of all micro-batches together."""
    plan = step.program.sizes.plan
    share = plan.num_micro_batches / plan.pipeline
    total: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for blocks, times in ((step.program.forward, step.forward), (step.program.backward, step.backward)):
        for stage_blocks, stage_times in zip(blocks, times, strict=True):
            for block, time in zip(stage_blocks, stage_times, strict=True):
                spent = (time.timeline.finish_s - time.timeline.start_s).tolist()
                exposed = exposed_seconds(time)
                # the timeline may come from another block of the same signature, with other layer numbers
                for index, (prefix, operation) in enumerate(block_instances(block)):
                    row = total[f"{prefix}.{operation.name}", operation.kind, str(operation.phase)]
                    row[0] += spent[index] * share
                    row[1] += exposed[index] * share
    return tuple(OperationTime(*key, *seconds) for key, seconds in total.items() if seconds[0] > 0)
