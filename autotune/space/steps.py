"""How the space grows: dimension by dimension, each with the rules that a row and a value must keep together.

The rules are those of `simulator.plan_rules` and `simulator.stacks.rules`, in columns. A step comes as early as its
rules can be checked, so that what is illegal is never multiplied by what follows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from towtank.autotune.space.dimensions import values
from towtank.autotune.space.draft import Draft, Mask, Numbers
from towtank.autotune.space.placements import strides
from towtank.autotune.space.sameness import shards_over_z_are_data, weight_shards
from towtank.autotune.task import TuningTask
from towtank.simulator.models.records import Attention
from towtank.simulator.plan_rules import MOST_PASSES

Rule = tuple[str, Mask]
"""What must hold, as a sentence, and where it does: shape [rows, options], or what broadcasts to it."""
Options = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """One extension of the rows."""

    names: tuple[str, ...]
    """Fields that get their values here."""
    options: Callable[[TuningTask], Options]
    rules: Callable[[TuningTask, Draft, Options], Iterator[Rule]]


MOST_TENSOR_NODES = 8
"""Nodes that the ranks of x and y fill at most, unless a constraint names tensor_y."""

LEAST_TOKENS = 1024
"""Tokens of a sequence that context parallelism leaves a device, unless a constraint names context."""

MOST_TOKENS = 65_536
"""Tokens of a micro-batch on a device at most, unless a constraint names micro_batch."""


def _single(name: str) -> Callable[[TuningTask], Options]:
    return lambda task: [(each,) for each in values(task, name)]


def _numbers(options: Options, position: int = 0) -> Numbers:
    return np.array([-1 if each[position] is None else int(each[position]) for each in options], np.int64)


def _is(options: Options, value: Any, position: int = 0) -> Mask:
    return np.array([each[position] == value for each in options], np.bool_)


def _column(array: Any) -> Any:
    """Figures of rows beside those of options: shape [rows, 1]."""
    return array[:, None]


def _fits_devices(task: TuningTask, draft: Draft, degree: Numbers) -> Rule:
    taken = draft.product(*(name for name in draft.choices if name in _DEGREES))
    left = task.devices // taken
    return f"a degree divides what is left of the {task.devices:,} devices", _column(left) % degree == 0


_DEGREES = ("tensor_x", "tensor_y", "pipeline", "context", "tensor_z", "data")


def tensor_x(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Heads, feed-forward features and hidden features over x."""
    x, model = _numbers(options), task.model
    yield _fits_devices(task, draft, x)
    heads = model.attention.heads
    yield f"tensor_x divides {heads} attention heads", heads % x == 0
    if isinstance(model.attention, Attention):
        few = model.attention.kv_heads
        yield f"tensor_x and {few} key-value heads divide one another", (few % x == 0) | (x % few == 0)
    yield f"tensor_x divides the feed-forward size {model.mlp.hidden:,}", model.mlp.hidden % x == 0
    yield f"tensor_x divides the hidden size {model.hidden:,}", model.hidden % x == 0


def tensor_y(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Hidden and feed-forward features over y."""
    y, model = _numbers(options), task.model
    yield f"{task.stack.name} splits input features", (y == 1) | task.stack.supports.tensor_y
    yield "a model with experts has tensor_y = 1", (y == 1) | (model.experts is None)
    yield f"tensor_y divides the hidden size {model.hidden:,}", model.hidden % y == 0
    yield (
        f"tensor_y divides the feed-forward size {model.mlp.hidden:,}",
        (y == 1) | (model.mlp.hidden % y == 0),
    )
    yield _fits_devices(task, draft, y)
    if not task.constraints.lifts("tensor_y"):
        group = _column(draft.numbers("tensor_x")) * y
        most = MOST_TENSOR_NODES * task.machine.node.devices
        yield (
            f"tensor_x x tensor_y is at most {most} devices unless tensor_y is given",
            (y == 1) | (group <= most),
        )


def pipeline(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Stages of at least one layer, equal where the stack needs them so."""
    p, layers, can = _numbers(options), task.model.num_layers, task.stack.supports
    yield f"{task.stack.name} has a pipeline", (p == 1) | can.pipeline
    yield f"{layers} layers are enough for the stages", p <= layers
    yield (
        f"{task.stack.name} needs stages of equal size, of {layers} layers",
        can.uneven_stages | (layers % p == 0),
    )
    yield _fits_devices(task, draft, p)


def context(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Parts of the sequence, two for each device of a ring; heads for an all-to-all."""
    c, can = _numbers(options), task.stack.supports.context
    ring, exchange = _is(options, "ring", 1), _is(options, "all-to-all", 1)
    has = np.array([each[1] in can for each in options])
    yield f"{task.stack.name} has the kind of context parallelism", (c == 1) | has
    sequence = sequence_of(task)
    parts = c * np.where(ring & (c > 1), 2, 1)
    yield f"context parts (two a device in a ring) divide {sequence:,} tokens", sequence % parts == 0
    yield _fits_devices(task, draft, c)
    heads = task.model.attention.heads // _column(draft.numbers("tensor_x"))
    yield "context by all-to-all divides the heads of a device", ~exchange | (heads % c == 0)
    if not task.constraints.lifts("context"):
        enough = sequence // np.maximum(1, c) >= LEAST_TOKENS
        yield f"context leaves a device {LEAST_TOKENS:,} tokens unless it is given", (c == 1) | enough
    yield "context_kind matters", (c > 1) | (np.arange(len(options)) == _first_of_each(c))


def _first_of_each(numbers: Numbers) -> Numbers:
    """Place of the first option with the same number, shape [options]."""
    values_of, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    found: Numbers = first[inverse]
    return found


def tensor_z(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Shards over z, which split the batch."""
    z = _numbers(options)
    yield f"{task.stack.name} shards weights over z", (z == 1) | task.stack.supports.tensor_z
    yield f"tensor_z divides the global batch {task.global_batch:,}", task.global_batch % z == 0
    yield _fits_devices(task, draft, z)


def data(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """What is left of the devices."""
    d = _numbers(options)
    left = task.devices // draft.product("tensor_x", "tensor_y", "pipeline", "context", "tensor_z")
    yield f"data takes the rest of the {task.devices:,} devices", _column(left) == d
    share = task.global_batch // _column(draft.numbers("tensor_z"))
    yield f"data x tensor_z divides the global batch {task.global_batch:,}", share % d == 0


def experts(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Experts over the devices of a stage, their features over the expert-tensor group."""
    e, et = _numbers(options), _numbers(options, 1)
    model, can, stack = task.model.experts, task.stack.supports, task.stack.name
    yield f"{stack} has expert parallelism", (e == 1) | can.expert
    yield f"{stack} splits experts", (et == 1) | can.expert_tensor
    if model is None:
        yield f"{task.model.name} has experts", (e == 1) & (et == 1)
        return
    yield f"expert divides {model.num_experts} experts", model.num_experts % e == 0
    yield f"expert_tensor divides the expert hidden size {model.hidden:,}", model.hidden % et == 0
    if not task.constraints.lifts("expert_tensor"):
        x = _column(draft.numbers("tensor_x"))
        yield "expert_tensor is 1 or tensor_x unless it is given", (et == 1) | (et == x)
    stage = task.devices // draft.numbers("pipeline")
    yield "expert x expert_tensor divides the devices of a stage", _column(stage) % (e * et) == 0


def zero(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """ZeRO stages and the part of data over which they shard."""
    stage, shard = _numbers(options), _numbers(options, 1)
    can, name = task.stack.supports, task.stack.name
    yield f"{name} has the ZeRO stage", np.isin(stage, can.zero_stages)
    alone = _column(draft.numbers("pipeline")) == 1
    yield f"{name} has the ZeRO stage with a pipeline", alone | np.isin(stage, can.zero_with_pipeline)
    degree = _column(draft.numbers("data"))
    yield "data_shard divides data", (shard < 0) | (degree % np.maximum(1, shard) == 0)
    yield "data_shard below data is no other name of all of it", (shard < 0) | (shard < degree)
    several = _column(draft.numbers("context")) > 1
    yield "shards of one replica are ZeRO 0", (shard != 1) | several
    node = task.machine.node.devices
    inner = _column(draft.product("tensor_x", "tensor_y", "context", "tensor_z"))
    if not task.constraints.lifts("tensor_z") and shards_over_z_are_data(task.stack):
        z = _column(draft.numbers("tensor_z"))
        yield (
            "tensor_z fills one node unless it is given: all else is FSDP by another name",
            (z == 1) | (inner == node),
        )
    effective = np.where(stage == 0, 1, np.where(shard < 0, degree, shard))
    limits = task.constraints
    if "data_shard" in limits.fixed:
        yield "data_shard is as fixed", np.isin(effective, limits.fixed["data_shard"])
    elif limits.lifts("data_shard"):
        least, most = limits.least.get("data_shard", 1), limits.most.get("data_shard", task.devices)
        yield "data_shard lies between its limits", (effective >= least) & (effective <= most)
    else:
        yield "a shard group of less than data fills one node", (shard < 0) | (inner * shard == node)


def zero_options(task: TuningTask) -> Options:
    """Pairs of ZeRO stage and data_shard; None shards over all of data."""
    parts = [each for each in values(task, "data_shard") if each is not None]
    stages = values(task, "zero_stage")
    return [(stage, part) for stage in stages for part in ((None, *parts) if stage else (None,))]


def rank_order(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Orders that the software has, of dimensions above degree 1."""
    orders = task.stack.supports.rank_orders
    if orders != "all":
        has = np.zeros((draft.num_rows, len(options)), np.bool_)
        own = [strides(draft, order) for order in orders]
        for place, (order,) in enumerate(options):
            at = strides(draft, order)
            for each in own:
                agree = [(at[name] == each[name]) | (draft.numbers(name) == 1) for name in at]
                has[:, place] |= np.logical_and.reduce(agree)
        yield f"{task.stack.name} has the rank order", has
    last = np.array([order[-1] == "pipeline" for (order,) in options])
    tiles = (draft.product("expert", "expert_tensor") > 1) & (draft.numbers("pipeline") > 1)
    yield (
        "expert parallelism tiles the ranks of a stage: pipeline is last in rank_order",
        ~_column(tiles) | last,
    )


def sequence_parallel(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Tokens over x between the multiplies."""
    on, x = _is(options, True), _column(draft.numbers("tensor_x"))
    yield (
        f"{task.stack.name} has sequence parallelism",
        ~on | (x == 1) | task.stack.supports.sequence_parallel,
    )
    yield "sequence_parallel needs tensor_x > 1", ~on | (x > 1) | (_column(draft.numbers("tensor_y")) == 1)
    tokens = sequence_of(task) // _column(draft.numbers("context"))
    yield "sequence_parallel: tensor_x divides the tokens of a device", ~on | (tokens % x == 0)
    routed = _column(draft.numbers("expert")) > 1
    yield "expert > 1 with tensor_x > 1 needs sequence_parallel", on | ~routed | (x == 1)
    yield "sequence_parallel matters", (x > 1) | (np.arange(len(options)) == 0)


def micro_batch(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Sequences that a device handles at once."""
    share = task.global_batch // draft.product("data", "tensor_z")
    size = _numbers(options)
    yield "micro_batch divides the sequences of a device", _column(share) % size == 0
    if not task.constraints.lifts("micro_batch"):
        tokens = size * (sequence_of(task) // _column(draft.numbers("context")))
        fits = (size == 1) | (tokens <= MOST_TOKENS)
        yield (
            f"a micro-batch has at most {MOST_TOKENS:,} tokens on a device unless micro_batch is given",
            fits,
        )


def chunks(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Chunks of layers of a stage and the schedule that runs them."""
    v, layers = _numbers(options), task.model.num_layers
    schedule = np.array([_schedule_name(option) for option in options])
    p, can, name = _column(draft.numbers("pipeline")), task.stack.supports, task.stack.name
    passes = task.global_batch // draft.product("data", "tensor_z", "micro_batch")
    count = _column(passes)
    yield f"{name} has an interleaved schedule", (v == 1) | can.virtual_stages
    yield f"{name} has the schedule", np.isin(schedule, can.schedules)
    interleaved = schedule == "interleaved"
    yield "an interleaved schedule has 2 chunks a stage or more, others 1", interleaved == (v > 1)
    yield "an interleaved schedule has 2 stages or more", ~interleaved | (p > 1)
    yield "micro-batches in whole groups of stages", ~interleaved | (count % p == 0)
    yield f"{layers} layers are enough for the chunks", p * v <= layers + 2
    yield (
        f"{name} needs chunks of equal size, of {layers} layers",
        can.uneven_stages | (layers % (p * v) == 0),
    )
    yield f"passes of micro-batches through chunks are at most {MOST_PASSES:,}", p * v * count <= MOST_PASSES
    if not task.constraints.lifts("virtual_stages"):
        even = (layers % (p * v) == 0) | ((layers + 2) % (p * v) == 0)
        yield "chunks share the layers (or two more) evenly unless virtual_stages is given", (v == 1) | even
    first = np.arange(len(options)) == _first_of_each(v)
    yield "the schedule matters", (count > 1) | first


def _schedule_name(option: tuple[Any, ...]) -> str:
    v, name = option
    return name if name is not None else "interleaved" if v > 1 else "1f1b"


def chunk_options(task: TuningTask) -> Options:
    """Pairs of virtual stages and schedule; None is 1F1B, or its interleaved form."""
    names = values(task, "schedule")
    found: list[tuple[int, str | None]] = []
    for v in values(task, "virtual_stages"):
        own = "interleaved" if v > 1 else "1f1b"
        found += [(v, None)] if own in names else []
        found += [(v, "gpipe")] if v == 1 and "gpipe" in names else []
    return found


def recompute(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """What is recomputed, and which gathered weights are kept for it."""
    policy = np.array([each[0] for each in options])
    every, cached = _numbers(options, 1), _numbers(options, 2)
    full = policy == "full"
    yield f"{task.stack.name} has the recompute policy", np.isin(policy, task.stack.supports.recompute)
    yield "recompute_every > 1 needs recompute = full", full | (every == 1)
    by_linear = task.stack.communication.shard_unit == "linear"
    yield (
        "cached_layers needs recompute = full and gathers of single linear layers",
        (cached == 0) | (full & by_linear),
    )
    sharded = _column(weight_shards(draft)) > 1
    yield "cached_layers matters", sharded | (cached == min(cached, default=0))


def recompute_options(task: TuningTask) -> Options:
    """Policy, layers from one recomputed to the next, and layers that keep gathered weights."""
    layers = task.model.num_layers
    found = dict.fromkeys(
        (policy, every, min(layers, -(-cached // every) * every))
        for policy in values(task, "recompute")
        for every in (values(task, "recompute_every"))
        for cached in (values(task, "cached_layers"))
    )
    return list(found)


def sequence_of(task: TuningTask) -> int:
    """Tokens of one sequence."""
    return task.sequence if task.sequence is not None else task.model.sequence


def precision(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Precisions of multiplies."""
    can, device = task.stack.supports.precisions, task.machine.device
    yield f"{task.stack.name} has the precision", np.array([each in can for (each,) in options])
    yield (
        f"{device.name} computes in the precision",
        np.array([each in device.peak_flop_per_s for (each,) in options]),
    )
