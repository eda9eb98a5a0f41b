"""How a step runs on its grid: micro-batches, schedule, sequence parallelism, recomputation, precision."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from towtank.autotune.space.dimensions import MOST_TOKENS, MOST_UNEVEN, values
from towtank.autotune.space.draft import Draft, Mask, Numbers
from towtank.autotune.space.sameness import weight_shards
from towtank.autotune.space.steps import (
    Options,
    Rule,
    beside,
    first_of_each,
    is_value,
    numbers,
    sequence_of,
)
from towtank.autotune.task import TuningTask
from towtank.simulator.plan_rules import MOST_PASSES


def sequence_parallel(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Tokens over x between the multiplies."""
    on, x = is_value(options, True), beside(draft.numbers("tensor_x"))
    can = task.stack.supports.sequence_parallel
    yield f"sequence_parallel needs a stack that has it, not {task.stack.name}", ~on | (x == 1) | can
    yield (
        "sequence_parallel with tensor_y > 1 needs tensor_x > 1",
        (~on | (x > 1) | (beside(draft.numbers("tensor_y")) == 1)),
    )
    tokens = sequence_of(task) // beside(draft.numbers("context"))
    yield "sequence_parallel: tensor_x divides the tokens of a device", ~on | (tokens % x == 0)
    routed = beside(draft.numbers("expert")) > 1
    yield "expert > 1 with tensor_x > 1 needs sequence_parallel", on | ~routed | (x == 1)
    yield "", (x > 1) | (np.arange(len(options)) == 0)


def micro_batch(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Sequences that a device handles at once."""
    share, size = task.global_batch // draft.product("data", "tensor_z"), numbers(options)
    yield "micro_batch divides the sequences of a device", beside(share) % size == 0
    if not task.constraints.lifts("micro_batch"):
        tokens = size * (sequence_of(task) // beside(draft.numbers("context")))
        few = (size == 1) | (tokens <= MOST_TOKENS)
        yield f"a micro-batch has at most {MOST_TOKENS:,} tokens a device (usual limit of micro_batch)", few


def chunk_options(task: TuningTask) -> Options:
    """Pairs of virtual stages and schedule; None is 1F1B, or its interleaved form."""
    names = values(task, "schedule")
    found: list[tuple[int, str | None]] = []
    for v in values(task, "virtual_stages"):
        own = "interleaved" if v > 1 else "1f1b"
        found += [(v, None)] if own in names else []
        found += [(v, "gpipe")] if v == 1 and "gpipe" in names else []
    return found


def schedule_name(virtual_stages: int, schedule: str | None) -> str:
    """Schedule in force (`Plan.schedule_name`)."""
    if schedule is not None:
        return schedule
    return "interleaved" if virtual_stages > 1 else "1f1b"


def chunks(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Chunks of layers of a stage and the schedule that runs them."""
    v, can = numbers(options), task.stack.supports
    names = np.array([schedule_name(*option) for option in options])
    p = draft.numbers("pipeline")
    count = task.global_batch // draft.product("data", "tensor_z", "micro_batch")
    interleaved = names == "interleaved"
    yield (
        f"virtual_stages > 1 needs a stack that interleaves, not {task.stack.name}",
        ((v == 1) | can.virtual_stages),
    )
    yield f"schedule is one that {task.stack.name} has", np.isin(names, can.schedules)
    yield "the interleaved schedule has 2 stages or more", ~interleaved | beside(p > 1)
    yield (
        "the interleaved schedule has micro-batches in whole groups of stages",
        (~interleaved | beside(count % p == 0)),
    )
    yield from _layers_in_chunks(task, p, v)
    if not task.constraints.lifts("schedule") and "1f1b" in can.schedules:
        alone = (names == "gpipe") & beside(p == 1)
        yield "gpipe has a pipeline, or is 1f1b in more memory (usual limit of schedule)", ~alone
    most = beside(MOST_PASSES // (p * count))
    yield f"a step has at most {MOST_PASSES:,} passes of micro-batches", v <= most
    yield "", beside(count > 1) | first_of_each(v)


def _layers_in_chunks(task: TuningTask, pipeline: Numbers, v: Numbers) -> Iterator[Rule]:
    """Layers for all chunks, worked out once for each number of stages."""
    stages, place = np.unique(pipeline, return_inverse=True)
    total, layers = beside(stages) * v, task.model.num_layers
    yield (
        f"pipeline x virtual_stages is at most the {layers} layers and two more",
        (total <= layers + 2)[place],
    )
    even = (layers % total == 0) | task.stack.supports.uneven_stages
    yield f"pipeline x virtual_stages divides the {layers} layers under {task.stack.name}", even[place]
    if not task.constraints.lifts("virtual_stages"):
        largest = -(-layers // total)
        nearly = ((v == 2) | (v == 4)) & (largest * total <= MOST_UNEVEN * layers)
        shared = (v == 1) | (layers % total == 0) | ((layers + 2) % total == 0) | nearly
        yield (
            "chunks share the layers, or two more, about evenly (usual limit of virtual_stages)",
            shared[place],
        )


def recompute_options(task: TuningTask) -> Options:
    """Policy, layers from one recomputed to the next, and layers that keep gathered weights."""
    layers, literal = task.model.num_layers, "cached_layers" in task.constraints.fixed
    found: dict[tuple[Any, ...], None] = {}
    for policy in values(task, "recompute"):
        for every in values(task, "recompute_every"):
            for cached in values(task, "cached_layers"):
                kept = cached if literal else same_cached_layers(cached, every, layers)
                found[policy, every, kept] = None
    return list(found)


def same_cached_layers(cached: int, every: int, layers: int) -> int:
    """The canonical number of layers with cached weights: up to the next one that is recomputed."""
    return min(layers, -(-cached // every) * every)


def recompute(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """What is recomputed, and which gathered weights are kept for it."""
    policy = np.array([each[0] for each in options])
    every, cached, full = numbers(options, 1), numbers(options, 2), policy == "full"
    yield f"recompute is one that {task.stack.name} has", np.isin(policy, task.stack.supports.recompute)
    yield "recompute_every > 1 needs recompute = full", full | (every == 1)
    by_linear = task.stack.communication.shard_unit == "linear"
    yield (
        "cached_layers > 0 needs recompute = full and a stack that gathers single linear layers",
        ((cached == 0) | (full & by_linear)),
    )
    yield "", (beside(weight_shards(draft)) > 1) | _fewest_cached(options)


def _fewest_cached(options: Options) -> Mask:
    """Options that keep no more gathered weights than others of the same policy, shape [options]."""
    fewest: dict[tuple[Any, ...], int] = {}
    for *policy, cached in options:
        fewest[tuple(policy)] = min(cached, fewest.get(tuple(policy), cached))
    return np.array([cached == fewest[tuple(policy)] for *policy, cached in options], np.bool_)


def precision(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Precisions of multiplies."""
    can, device = task.stack.supports.precisions, task.machine.device
    yield f"precision is one that {task.stack.name} has", np.array([each in can for (each,) in options])
    computes = np.array([each in device.peak_flop_per_s for (each,) in options])
    yield f"precision is one that {device.name} computes in", computes
