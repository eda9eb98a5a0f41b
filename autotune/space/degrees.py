"""Ordered factorisations of the devices into tensor grid, pipeline, context, shards and data, and experts on them."""

from collections.abc import Iterator

import numpy as np

from towtank.autotune.space.dimensions import LEAST_TOKENS, MOST_TENSOR_NODES
from towtank.autotune.space.draft import Draft
from towtank.autotune.space.steps import (
    OF_DEVICES,
    Options,
    Rule,
    beside,
    first_of_each,
    is_value,
    left_of_devices,
    numbers,
    sequence_of,
)
from towtank.autotune.task import TuningTask
from towtank.simulator.models.records import Attention


def tensor_x(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Heads, feed-forward features and hidden features over x."""
    x, model = numbers(options), task.model
    yield f"tensor_x divides the {task.devices:,} devices", task.devices % x == 0
    heads = model.attention.heads
    yield f"tensor_x divides the {heads} attention heads", heads % x == 0
    if isinstance(model.attention, Attention):
        few = model.attention.kv_heads
        yield f"tensor_x and the {few} key-value heads divide one another", (few % x == 0) | (x % few == 0)
    yield f"tensor_x divides the feed-forward size {model.mlp.hidden:,}", model.mlp.hidden % x == 0
    yield f"tensor_x divides the hidden size {model.hidden:,}", model.hidden % x == 0


def tensor_y(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Hidden and feed-forward features over y."""
    y, model = numbers(options), task.model
    left = left_of_devices(task, draft, "tensor_x")
    yield f"tensor_y divides what tensor_x leaves {OF_DEVICES}", left % y == 0
    yield (
        f"tensor_y > 1 needs a stack that splits input features, not {task.stack.name}",
        ((y == 1) | task.stack.supports.tensor_y),
    )
    yield "tensor_y is 1 in a model with experts", (y == 1) | (model.experts is None)
    yield f"tensor_y divides the hidden size {model.hidden:,}", model.hidden % y == 0
    wide = model.mlp.hidden
    yield f"tensor_y divides the feed-forward size {wide:,}", (y == 1) | (wide % y == 0)
    if not task.constraints.lifts("tensor_y"):
        most = MOST_TENSOR_NODES * task.machine.node.devices
        few = (y == 1) | (beside(draft.numbers("tensor_x")) * y <= most)
        yield f"tensor_x x tensor_y is at most {most} (usual limit of tensor_y)", few


def pipeline(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Stages of at least one layer, equal where the stack needs them so."""
    p, layers, can = numbers(options), task.model.num_layers, task.stack.supports
    left = left_of_devices(task, draft, "tensor_x", "tensor_y")
    yield f"pipeline divides what the tensor degrees leave {OF_DEVICES}", left % p == 0
    yield f"pipeline > 1 needs a stack that has it, not {task.stack.name}", (p == 1) | can.pipeline
    yield f"pipeline is at most the {layers} layers", p <= layers
    even = can.uneven_stages | (layers % p == 0)
    yield f"pipeline divides the {layers} layers under {task.stack.name}", even


def context(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Parts of the sequence, two for each device of a ring; heads for an all-to-all."""
    c, can, tokens = numbers(options), task.stack.supports.context, sequence_of(task)
    left = left_of_devices(task, draft, "tensor_x", "tensor_y", "pipeline")
    yield f"context divides what tensor degrees and pipeline leave {OF_DEVICES}", left % c == 0
    has = np.array([each[1] in can for each in options])
    yield f"context > 1 needs a stack with its kind, not {task.stack.name}", (c == 1) | has
    ring, exchange = is_value(options, "ring", 1), is_value(options, "all-to-all", 1)
    parts = c * np.where(ring & (c > 1), 2, 1)
    yield f"context (twice it in a ring) divides the {tokens:,} tokens of a sequence", tokens % parts == 0
    heads = task.model.attention.heads // beside(draft.numbers("tensor_x"))
    yield "context by all-to-all divides the attention heads of a device", ~exchange | (heads % c == 0)
    if not task.constraints.lifts("context"):
        enough = (c == 1) | (tokens // c >= LEAST_TOKENS)
        yield f"context leaves a device {LEAST_TOKENS:,} tokens (usual limit of context)", enough
    yield "", (c > 1) | first_of_each(c)


def tensor_z(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Shards over z, which split the batch."""
    z = numbers(options)
    left = left_of_devices(task, draft, "tensor_x", "tensor_y", "pipeline", "context")
    yield f"tensor_z divides what the degrees before leave {OF_DEVICES}", left % z == 0
    can = (z == 1) | task.stack.supports.tensor_z
    yield f"tensor_z > 1 needs a stack that shards weights over z, not {task.stack.name}", can
    yield f"tensor_z divides the global batch {task.global_batch:,}", task.global_batch % z == 0


def data(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """What is left of the devices."""
    d = numbers(options)
    left = left_of_devices(task, draft, "tensor_x", "tensor_y", "pipeline", "context", "tensor_z")
    yield f"data takes what the other degrees leave {OF_DEVICES}", left == d
    share = task.global_batch // beside(draft.numbers("tensor_z"))
    yield f"data x tensor_z divides the global batch {task.global_batch:,}", share % d == 0


def experts(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Experts over the devices of a stage, their features over the expert-tensor group."""
    e, et = numbers(options), numbers(options, 1)
    model, can, stack = task.model.experts, task.stack.supports, task.stack.name
    yield f"expert > 1 needs a stack with expert parallelism, not {stack}", (e == 1) | can.expert
    yield f"expert_tensor > 1 needs a stack that splits experts, not {stack}", (et == 1) | can.expert_tensor
    if model is None:
        yield f"expert and expert_tensor are 1: {task.model.name} has no experts", (e == 1) & (et == 1)
        return
    yield f"expert divides the {model.num_experts} experts", model.num_experts % e == 0
    yield f"expert_tensor divides the expert hidden size {model.hidden:,}", model.hidden % et == 0
    stage = beside(task.devices // draft.numbers("pipeline"))
    yield "expert x expert_tensor divides the devices of a stage", stage % (e * et) == 0
    if not task.constraints.lifts("expert_tensor"):
        usual = (et == 1) | (et == beside(draft.numbers("tensor_x")))
        yield "expert_tensor is 1 or tensor_x (usual limit of expert_tensor)", usual
