"""Buckets of gradients: what is sent with what, by hand, and what that costs."""

from dataclasses import replace

import pytest

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.cost.model import CostModel
from towtank.simulator.errors import PlanError
from towtank.simulator.lowering.weights import gradient_messages, parameter_messages, stage_weights
from towtank.simulator.models.load import load_model
from towtank.simulator.operations import Message
from towtank.simulator.plan import Plan
from towtank.simulator.predict import bound, predict
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.step_ends import in_buckets, layer_messages

MODEL = load_model("llama3-8b")
STACK = load_stack("megatron-core")
MACHINE = load_machine("dgx-h100:nodes=8")
PLAN = Plan(data=64, global_batch=64, zero_stage=1, recompute="full")
# queries and output 4096 x 4096, keys and values 4096 x 1024, three matrices of 4096 x 14336, two norms
LAYER = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
TABLES = 2 * 4096 * 128_256
LAYERS = 32


def _by_layer(bucket: int | None, collectives=gradient_messages, **changes) -> dict[int, list[Message]]:
    program = lower(MODEL, replace(PLAN, gradient_bucket=bucket, **changes), STACK)
    found = layer_messages(program.sizes, program.chunks[0][0], collectives)
    return {layer: _sharded(messages) for layer, messages in found}


def _sharded(messages: list[Message]) -> list[Message]:
    """Without those of replicas, of which there is one: they take no time."""
    return [message for message in messages if message.group != "replicate"]


def _reduced(weights: float) -> Message:
    return Message("reduce-scatter", "state_shard", 4.0 * weights)


def test_without_a_size_each_layer_is_sent_by_itself() -> None:
    found = _by_layer(None)
    assert list(found) == list(range(LAYERS))
    assert found[7] == [_reduced(LAYER)]


def test_a_bucket_of_three_layers_is_sent_when_the_third_is_done() -> None:
    found = _by_layer(3 * LAYER)
    # from the last layer down: 31, 30, 29; ..; 4, 3, 2; what is left, 1 and 0 with the tables, goes at the end
    assert [layer for layer, messages in found.items() if messages] == [0, *range(2, 30, 3)]
    assert found[2] == [_reduced(3 * LAYER)]
    assert sum(each.bytes for messages in found.values() for each in messages) == 4.0 * (
        LAYERS * LAYER + TABLES
    )
    gathered = _by_layer(3 * LAYER, parameter_messages)
    assert gathered[2] == [Message("all-gather", "state_shard", 2.0 * 3 * LAYER)]
    assert [layer for layer, messages in gathered.items() if messages] == [0, *range(2, 30, 3)]


def test_a_layer_fills_several_small_buckets() -> None:
    found = _by_layer(LAYER // 4)
    assert found[7] == [_reduced(LAYER / 4)] * 4
    assert len(_by_layer(LAYER // 4 - 1)[7]) == 5


def test_a_bucket_for_everything_is_sent_at_the_end() -> None:
    found = _by_layer(10**12)
    assert found[0] == [_reduced(LAYERS * LAYER + TABLES)]
    assert not any(found[layer] for layer in range(1, LAYERS))


def test_where_nothing_overlaps_all_weights_fill_buckets_one_after_the_other() -> None:
    program = lower(MODEL, replace(PLAN, gradient_bucket=10**9), STACK)
    total = LAYERS * LAYER + TABLES + 4096
    weights = stage_weights(program.sizes, program.chunks[0])
    messages = _sharded(in_buckets(program.sizes, weights, gradient_messages))
    assert len(messages) == 9  # 8.03 billion
    assert sum(each.bytes for each in messages) == pytest.approx(4.0 * total, rel=1e-3)
    cost = CostModel(MACHINE, program.sizes.plan, STACK)
    one = _reduced(total)
    assert sum(map(cost.duration_s, messages)) > cost.duration_s(one)  # each has a latency of its own


def test_the_best_size_lies_between_latency_and_waiting() -> None:
    times = {
        size: predict(MODEL, MACHINE, replace(PLAN, gradient_bucket=size), stack=STACK).step_time_s
        for size in (10**6, 10**8, 10**10)
    }
    assert times[10**8] < times[10**6]
    assert times[10**8] < times[10**10]


@pytest.mark.parametrize("zero_stage", [0, 1])
@pytest.mark.parametrize("pipeline", [1, 2])
@pytest.mark.parametrize("bucket", [10**6, 5 * 10**8, 10**10])
def test_the_bound_stays_below(bucket: int, pipeline: int, zero_stage: int) -> None:
    plan = replace(
        PLAN, pipeline=pipeline, data=64 // pipeline, zero_stage=zero_stage, gradient_bucket=bucket
    )
    step_s = predict(MODEL, MACHINE, plan, stack=STACK).step_time_s
    assert 0.5 * step_s < bound(MODEL, MACHINE, plan, STACK) <= step_s


def test_buckets_of_shards_take_memory_where_they_are_buffers() -> None:
    # fp16, a bucket of gradients and one of weights, 2 bytes each; 5e8 weights by default
    plan = Plan(tensor_x=8, data=8, global_batch=8, zero_stage=1, precision="fp16", recompute="full")
    stack = load_stack("megatron-deepspeed")
    peaks = [
        predict(MODEL, MACHINE, replace(plan, gradient_bucket=size), stack=stack).peak_memory_bytes
        for size in (None, 5 * 10**8, 10**8)
    ]
    assert peaks[0] == peaks[1]
    kept = 1 + stack.memory.fragmentation
    assert peaks[1] - peaks[2] == pytest.approx(4 * 4 * 10**8 * kept)


@pytest.mark.parametrize(
    ("changes", "stack", "message"),
    [
        ({"gradient_bucket": 1000}, "megatron-core", r"gradient_bucket = 1,000 weights, but it must be 1,000,000 or"),
        ({"gradient_bucket": 10**7, "zero_stage": 3}, "megatron-core", "zero_stage = 3 sends the weights of a layer"),
        ({"gradient_bucket": 10**7}, "axonn", "axonn cannot run gradient_bucket = 10000000"),
    ],
)  # fmt: skip
def test_what_has_no_buckets_says_so(changes, stack: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        predict(MODEL, MACHINE, replace(PLAN, **{"zero_stage": 0, **changes}), stack=stack)
