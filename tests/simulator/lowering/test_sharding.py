"""Sharded weights (FSDP, AxoNN's z), ZeRO stages and HSDP: messages counted by hand, and equal corners."""

from collections import Counter
from dataclasses import replace

import pytest
from lowered import HIDDEN, gpt, layer_operations, messages, moe, plan, sent_bytes, stack_with

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.lowering.ends import head_template
from towtank.simulator.lowering.layer import backward_template
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.weights import (
    Weights,
    gradient_messages,
    layer_weights,
    optimizer_work,
    parameter_messages,
    with_states,
)
from towtank.simulator.operations import Elementwise, Message, Phase
from towtank.simulator.plan import Overlap
from towtank.simulator.predict import predict
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

LAYER = 12 * HIDDEN**2 + 2 * HIDDEN
"""Weights of one layer: 4 h^2 of attention, 8 h^2 of the MLP, two norms."""


def sizes_of(the_plan, stack, model=None):
    return lower(model or gpt(), the_plan, stack).sizes


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_fsdp_gathers_a_layer_twice_and_scatters_its_gradient_once(recompute):
    # with recompute the second gather serves the recomputed forward and the backward pass. Weights travel in
    # bf16, gradients in the fp32 that torchtitan reduces in.
    the_plan = plan(data=8, zero_stage=3, recompute=recompute)
    operations = layer_operations(gpt(), the_plan, load_stack("torchtitan"))
    assert messages(operations) == Counter(
        {("all-gather", "weight_shard", 2.0 * LAYER): 2, ("reduce-scatter", "weight_shard", 4.0 * LAYER): 1}
    )


def test_fsdp_that_keeps_gathered_weights_gathers_once():
    stack = stack_with("torchtitan", communication={"regather_in_backward": False})
    sent = messages(layer_operations(gpt(), plan(data=8, zero_stage=3), stack))
    assert sent[("all-gather", "weight_shard", 2.0 * LAYER)] == 1


def test_each_linear_layer_of_axonn_is_gathered_for_itself():
    the_plan = plan(tensor_z=4)
    sent = messages(layer_operations(gpt(), the_plan, load_stack("axonn")))
    gathers = Counter({("all-gather", "weight_shard", 2.0 * n * HIDDEN**2): 1 for n in (1, 3)})
    gathers[("all-gather", "weight_shard", 8.0 * HIDDEN**2)] = 2
    scatters = Counter({("reduce-scatter", *key[1:]): count for key, count in gathers.items()})
    assert sent == gathers + scatters


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_gradients_over_data(zero_stage):
    # 8 replicas; gradients of 4 bytes. DDP: 2 (7/8) G. ZeRO 1, 2: 7/8 G and 7/8 of the weights back.
    # ZeRO 3: nothing after the backward passes.
    the_plan = plan(data=8, zero_stage=zero_stage)
    sizes = sizes_of(the_plan, load_stack("megatron-core"))
    weights = Weights(1000, 0, 0)
    expected = {
        0: ([Message("all-reduce", "data", 4000.0)], []),
        1: (
            [Message("reduce-scatter", "state_shard", 4000.0)],
            [Message("all-gather", "state_shard", 2000.0)],
        ),
        2: (
            [Message("reduce-scatter", "state_shard", 4000.0)],
            [Message("all-gather", "state_shard", 2000.0)],
        ),
        3: ([], []),
    }
    reduced = [m for m in gradient_messages(sizes, weights) if m.group != "replicate"]
    assert (reduced, parameter_messages(sizes, weights)) == expected[zero_stage]


def test_hybrid_sharding_reduces_the_shards_over_replicas():
    # 8 = 4 shards x 2 replicas: reduce-scatter over 4, all-reduce of a quarter over 2
    the_plan = plan(data=8, zero_stage=1, data_shard=4)
    sizes = sizes_of(the_plan, load_stack("megatron-core"))
    assert gradient_messages(sizes, Weights(1000, 0, 0)) == [
        Message("reduce-scatter", "state_shard", 4000.0),
        Message("all-reduce", "replicate", 1000.0),
    ]
    assert with_states(sizes, Weights(1000, 0, 0)) == 250


def test_context_ranks_hold_shards_too():
    the_plan = plan(data=4, context=2, zero_stage=3)
    sizes = sizes_of(the_plan, load_stack("megatron-core"))
    assert with_states(sizes, Weights(1000, 0, 0)) == 1000 / 8


def test_tables_that_z_does_not_shard_are_reduced_over_z_and_data():
    # AxoNN: the ranks of z see different sequences and hold the same table
    the_plan = plan(tensor_z=4, data=2)
    sizes = sizes_of(the_plan, load_stack("axonn"))
    assert gradient_messages(sizes, Weights(1000, 0, 100)) == [
        Message("all-reduce", "tensor_z", 400.0),
        Message("all-reduce", "data", 1000.0 + 400.0),
    ]
    assert with_states(sizes, Weights(1000, 0, 100)) == 250 + 100


def test_sharded_tables_are_split_like_the_rest():
    the_plan = plan(tensor_z=2, data=4, zero_stage=1)
    sizes = sizes_of(the_plan, load_stack("towtank-executor"))
    assert with_states(sizes, Weights(800, 0, 80)) == 100 + 10
    assert gradient_messages(sizes, Weights(800, 0, 80))[0] == Message(
        "reduce-scatter", "state_shard", 1760.0
    )


def test_experts_reduce_over_their_own_replicas():
    # 8 devices, experts over 4: each expert has 2 replicas
    the_plan = plan(data=8, expert=4)
    sizes = sizes_of(the_plan, load_stack("megatron-core"), moe())
    dense, reduced = gradient_messages(sizes, Weights(1000, 500, 0))
    assert dense == Message("all-reduce", "data", 4000.0)
    assert (reduced.bytes, reduced.collective) == (2000.0, "all-reduce")
    assert layer_weights(sizes, 0).experts == 3 * HIDDEN * 512 * 8 // 4


def test_gathered_experts_are_in_the_messages_of_every_stack():
    # 8 experts of 3 h 512 weights: gathered with the layer, or for themselves where each linear layer is
    experts = 8 * 3 * HIDDEN * 512
    the_plan = plan(data=8, zero_stage=3)
    by_linear = messages(layer_operations(moe(), the_plan, load_stack("towtank-executor")), Phase.FORWARD)
    assert by_linear[("all-gather", "weight_shard", 2.0 * experts)] == 1
    by_layer = sent_bytes(layer_operations(moe(), the_plan, load_stack("torchtitan")), the_plan)
    router_and_norms = 8 * HIDDEN + 2 * HIDDEN
    layer = experts + 4 * HIDDEN**2 + router_and_norms
    assert by_layer["weight_shard"] == pytest.approx(7 / 8 * layer * (2 + 2 + 4))
    total = sent_bytes(layer_operations(moe(), the_plan, load_stack("towtank-executor")), the_plan)
    assert total["weight_shard"] == pytest.approx(7 / 8 * (experts + 4 * HIDDEN**2) * (2 + 2 + 2))


@pytest.mark.parametrize("model", [gpt(), moe(), gpt(tied_embeddings=True)], ids=["gpt", "moe", "tied"])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_fsdp_is_the_z_corner_of_the_grid(model, recompute):
    # x = y = 1: nothing but shards of weights, whether they are called z or data with ZeRO 3
    machine, stack = load_machine("perlmutter"), load_stack("towtank-executor")
    over_z = plan(tensor_z=8, micro_batch=2, recompute=recompute, micro_batches=2)
    over_data = plan(data=8, zero_stage=3, micro_batch=2, recompute=recompute, micro_batches=2)
    programs = [lower(model, each, stack) for each in (over_z, over_data)]
    names = [
        [
            (name, op)
            for blocks in (p.forward, p.backward)
            for s in blocks
            for b in s
            for name, op in b.operations()
        ]
        for p in programs
    ]
    assert names[0] == names[1]
    first, second = (predict(model, machine, each, stack=stack) for each in (over_z, over_data))
    assert first.step_time_s == second.step_time_s
    assert first.breakdown_s == second.breakdown_s
    assert [stage.parts for stage in first.memory] == [stage.parts for stage in second.memory]


def test_grid_without_y_is_megatron_on_x_with_fsdp_on_z():
    # the multiplies and all-reduces of x = 2 alone, and the gathers of z = 4 on the halved weights
    stack = load_stack("towtank-executor")
    both = messages(layer_operations(gpt(), plan(tensor_x=2, tensor_z=4), stack))
    megatron = messages(layer_operations(gpt(), plan(tensor_x=2), stack))
    fsdp = messages(layer_operations(gpt(), plan(data=4, zero_stage=3), stack))
    halved = Counter({(kind, group, size / 2): count for (kind, group, size), count in fsdp.items()})
    assert both == megatron + halved
    compute = [
        [
            op.work
            for op in layer_operations(gpt(), each, stack)
            if not isinstance(op.work, Message | Elementwise)
        ]
        for each in (plan(tensor_x=2, tensor_z=4), plan(tensor_x=2, data=4, zero_stage=3))
    ]
    assert compute[0] == compute[1]


def test_prefetch_is_one_layer_ahead_only_with_the_overlap():
    the_plan = plan(data=8, zero_stage=3)
    for wish, back in ((True, 2), (False, 1)):
        chosen = replace(the_plan, overlap=Overlap(all_gather=wish))
        operations = layer_operations(gpt(), chosen, load_stack("torchtitan"))
        gather = next(op for op in operations if op.name == "weights.all-gather")
        assert [after.back for after in gather.after] == [back]


def test_gradients_reduced_once_per_step_are_not_in_the_passes():
    stack = stack_with("torchtitan", communication={"reduce_every_micro_batch": False})
    the_plan = plan(data=8, zero_stage=3, micro_batches=2)
    assert not any(key[0] == "reduce-scatter" for key in messages(layer_operations(gpt(), the_plan, stack)))
    sizes = sizes_of(the_plan, stack)
    assert gradient_messages(sizes, Weights(1000, 0, 0))[0] == Message(
        "reduce-scatter", "state_shard", 4000.0
    )


def test_optimizer_moves_what_adam_needs():
    # megatron-core, bf16: gradient 4, master 4 + 4, moments 8 + 8, weight written 2: 30 bytes a parameter
    sizes = sizes_of(plan(data=4, zero_stage=1), load_stack("megatron-core"))
    assert optimizer_work(sizes, Weights(1000, 0, 0)).bytes == 250 * 30


def test_experts_under_z_are_sharded_over_what_the_expert_group_leaves():
    # z = 4, data = 2, experts over 2: 4 replicas of each expert, in 2 shards; z splits the other weights in 4
    the_plan = plan(tensor_z=4, data=2, expert=2)
    stack = load_stack("towtank-executor")
    assert gradient_messages(sizes_of(the_plan, stack, moe()), Weights(1000, 500, 0)) == [
        Message("all-reduce", "data", 250 * 4.0),
        Message("all-reduce", "expert_replicate", 250 * 4.0),
    ]
    sent = messages(layer_operations(moe(), the_plan, stack))
    experts = 2.0 * 3 * HIDDEN * 512 * 8 // 2
    assert sent[("all-gather", "expert_shard", experts)] == 2
    assert sent[("reduce-scatter", "expert_shard", experts)] == 1


def test_metrics_read_the_logits_once_more():
    # cast to fp32 (3 passes of 16 bits) and logarithm of softmax (4), for each metric and micro-batch
    stack = stack_with("llm-foundry", kernels={"training_metrics": 2})
    sizes = local_sizes(gpt(), plan(), stack)
    found = {o.name: o.work for o in head_template(sizes, backward=False) if o.name.startswith("metric")}
    assert set(found) == {"metric.0", "metric.1"}
    assert {work.bytes for work in found.values()} == {7 * 2.0 * sizes.tokens * sizes.vocab}
    without = local_sizes(gpt(), plan(), stack_with("llm-foundry", kernels={"training_metrics": 0}))
    assert not [o for o in head_template(without, backward=False) if o.name.startswith("metric")]


@pytest.mark.parametrize(
    "name, gradients, out, into",
    [
        # FSDP 2: bf16 read and written after the gather; bf16 read, fp32 written before the reduction
        ("torchtitan", None, 4, 6),
        ("torchtitan", "bf16", 4, 4),
        # FSDP 1 has one buffer: only another precision costs a cast
        ("llm-foundry", "fp32", 0, 6),
        ("llm-foundry", "bf16", 0, 0),
        ("jax-spmd", None, 0, 0),
    ],
)
def test_copies_around_the_collectives_of_a_layer(name, gradients, out, into):
    sizes = local_sizes(gpt(), plan(data=8, zero_stage=3, gradient_precision=gradients), load_stack(name))
    found = {
        operation.name: operation.work.bytes
        for operation in backward_template(sizes, (False, None), False)
        if "copy" in operation.name
    }
    assert found.get("weights.copy-out", 0) == out * LAYER
    assert found.get("weights.copy-in", 0) == into * LAYER
