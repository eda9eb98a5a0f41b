"""What is conserved over every way to split a step: FLOP, parameters, messages between stages."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cases

from towtank.simulator.lowering.ends import embedding_shards
from towtank.simulator.lowering.sizes import padded_vocabulary
from towtank.simulator.lowering.weights import at_rest, stage_weights, with_states
from towtank.simulator.models.count import parameters
from towtank.simulator.models.flop import layer_flop
from towtank.simulator.models.layers import is_expert_layer
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention, LatentAttention
from towtank.simulator.operations import Phase
from towtank.simulator.plan import Plan
from towtank.simulator.program import lower
from towtank.simulator.schedules.roles import Role
from towtank.simulator.stacks.load import load_stack


def total_flop(program):
    """FLOP of all devices by phase."""
    plan = program.sizes.plan
    times = plan.num_micro_batches * plan.num_devices // plan.pipeline
    total = dict.fromkeys(Phase, 0.0)
    for blocks in (program.forward, program.backward):
        for stage in blocks:
            for block in stage:
                for _, operation in block.operations():
                    total[operation.phase] += times * operation.flop
    return total


def expected_layer(model, index, plan, stack):
    """FLOP of one layer for one sequence, with what the plan computes more than once."""
    s = plan.sequence or model.sequence
    shape = layer_flop(model, index, s, causal=False)
    core = shape.attention
    if stack.kernels.attention == "unfused":  # writes all scores, windows or not
        full = (
            replace(model, attention=replace(model.attention, windows=(None,)))
            if isinstance(model.attention, Attention)
            else model
        )
        core = layer_flop(full, index, s, causal=False).attention
    qkv, attention = shape.qkv, model.attention
    if isinstance(attention, LatentAttention):
        split = plan.sequence_parallel and plan.tensor_x > 1
        down = (
            2.0 * s * model.hidden * ((attention.q_rank or 0) + attention.kv_rank + attention.rope_head_dim)
        )
        width = attention.nope_head_dim + attention.rope_head_dim
        direct = 2.0 * s * model.hidden * attention.heads * width if attention.q_rank is None else 0.0
        up = qkv - down - direct
        # copied over x unless each rank has its own tokens; up-projections and core are copied over y
        qkv = direct + down * (1 if split else plan.tensor_x) + up * plan.tensor_y
    elif plan.tensor_x > attention.kv_heads:
        qkv += 2.0 * s * model.hidden * 2 * (plan.tensor_x - attention.kv_heads) * attention.head_dim
    return shape.total - shape.qkv - shape.attention + qkv + core * plan.tensor_y


def down_projection(model, index, plan):
    """FLOP of the down-projections of a dense layer, which recomputation may leave out."""
    if is_expert_layer(model, index):
        return 0.0
    sequence = plan.sequence or model.sequence
    return plan.global_batch * 2.0 * sequence * model.mlp.hidden * model.hidden


def expected_forward(model, plan, stack):
    """FLOP of the forward passes of one step."""
    s = plan.sequence or model.sequence
    head = 2.0 * s * model.hidden * padded_vocabulary(model, plan, stack)
    layers = [expected_layer(model, index, plan, stack) for index in range(model.num_layers)]
    projection = 2.0 * s * 2 * model.hidden**2
    total = sum(layers) + head + model.mtp_layers * (projection + layers[-1] + head)
    return plan.global_batch * total, [plan.global_batch * each for each in layers]


@settings(max_examples=150, deadline=None)
@given(cases())
def test_work_is_conserved_over_every_split(case):
    model, _, plan, stack = case
    flop = total_flop(lower(model, plan, stack))
    forward, layers = expected_forward(model, plan, stack)
    assert flop[Phase.FORWARD] == pytest.approx(forward, rel=1e-9)
    assert flop[Phase.BACKWARD] == pytest.approx(2 * forward, rel=1e-9)
    if stack.kernels.recompute_stops_early:
        layers = [each - down_projection(model, index, plan) for index, each in enumerate(layers)]
    again = sum(layers[:: plan.recompute_every]) + model.mtp_layers * layers[-1]
    if plan.recompute == "full":
        assert flop[Phase.RECOMPUTE] == pytest.approx(again, rel=1e-9)
    elif plan.recompute == "none":
        assert flop[Phase.RECOMPUTE] == 0


@pytest.mark.parametrize(
    "name", ["gpt3-175b", "llama3-70b", "gpt-neox-20b", "mixtral-8x7b", "deepseek-v3", "gemma2-9b"]
)
def test_zoo_models_lower_to_their_own_flop(name):
    model = load_model(name)
    stack = replace(load_stack("megatron-core"), vocabulary_multiple=1)
    plan = Plan(recompute="full")
    flop = total_flop(lower(model, plan, stack))
    forward, layers = expected_forward(model, plan, stack)
    assert flop[Phase.FORWARD] == pytest.approx(forward, rel=1e-12)
    assert flop[Phase.BACKWARD] == pytest.approx(2 * forward, rel=1e-12)
    assert flop[Phase.RECOMPUTE] == pytest.approx(sum(layers) + model.mtp_layers * layers[-1], rel=1e-12)


def copies(model, plan):
    """Parameters that the ranks of x and y hold more than once, or that padding of the vocabulary adds, at most."""
    attention = model.attention
    layers = model.num_layers + model.mtp_layers
    norms = layers * model.norms_per_layer * model.hidden * (plan.tensor_x - 1)
    router = layers * (model.experts.num_experts if model.experts else 0) * model.hidden * (plan.tensor_x - 1)
    if isinstance(attention, LatentAttention):
        down = model.hidden * ((attention.q_rank or 0) + attention.kv_rank + attention.rope_head_dim)
        width = attention.nope_head_dim + attention.rope_head_dim
        up = attention.heads * ((attention.q_rank or 0) * width + attention.kv_rank * 64)
        extra = down * (plan.tensor_x - 1) + up * (plan.tensor_y - 1)
    else:
        extra = model.hidden * 2 * max(0, plan.tensor_x - attention.kv_heads) * attention.head_dim
    return norms + router + layers * extra


@settings(max_examples=150, deadline=None)
@given(cases())
def test_parameters_at_rest_are_those_of_the_model(case):
    """Lowering leaves out biases, head norms, the norms of latent attention and of MTP: vectors, no matrices."""
    model, _, plan, stack = case
    program = lower(model, plan, stack)
    sizes = program.sizes
    in_stage = plan.num_devices // plan.pipeline
    split, table = plan.tensor_x * plan.tensor_y, embedding_shards(sizes)
    held = 0.0
    for chunks in program.chunks:
        weights = stage_weights(sizes, chunks)
        # one copy of each weight: over x and y, as many ranks as hold parts of it
        held += split * (weights.dense + weights.embedding)
        experts = plan.expert if plan.expert > 1 else 1
        held += weights.experts * experts
        # at rest they are split evenly over the shards
        assert at_rest(sizes, weights) <= weights.dense + weights.experts + weights.embedding
        assert (
            at_rest(sizes, weights) * in_stage >= weights.dense + weights.experts + weights.embedding / table
        )
        assert with_states(sizes, weights) <= at_rest(sizes, weights) * (1 + 1e-12)
    count = parameters(model)
    padding = 2 * (padded_vocabulary(model, plan, stack) - model.vocab) * model.hidden
    tied_twice = model.vocab * model.hidden if model.tied_embeddings and plan.pipeline > 1 else 0
    small = (model.num_layers + model.mtp_layers + 1) * 8 * model.hidden
    assert held >= count.total - small
    assert held <= count.total + padding + tied_twice + copies(model, plan) + small


@settings(max_examples=50, deadline=None)
@given(cases())
def test_every_send_has_one_receiver(case):
    model, _, plan, stack = case
    tasks = lower(model, plan, stack).pipeline
    sends = np.flatnonzero((tasks.role == Role.SEND_FORWARD) | (tasks.role == Role.SEND_BACKWARD))
    boundaries = plan.pipeline * plan.virtual_stages - 1
    assert len(sends) == (2 * boundaries * plan.num_micro_batches if plan.pipeline > 1 else 0)
    structure = tasks.structure
    for send in sends.tolist():
        forward = tasks.role[send] == Role.SEND_FORWARD
        receivers = (
            np.searchsorted(
                structure.predecessor_offset, np.flatnonzero(structure.predecessor == send), side="right"
            )
            - 1
        )
        (receiver,) = receivers[tasks.stage[receivers] != tasks.stage[send]]
        assert tasks.micro_batch[receiver] == tasks.micro_batch[send]
        assert tasks.role[receiver] == (Role.FORWARD if forward else Role.BACKWARD)
        assert tasks.stage[receiver] == (tasks.stage[send] + (1 if forward else -1)) % plan.pipeline


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_group_sizes_multiply_to_the_devices(case, data):
    from towtank.simulator.groups import expert_data_degree, group_size, place

    _, _, plan, _ = case
    product = math.prod(
        group_size(plan, name) for name in ("tensor_x", "tensor_y", "tensor_z", "pipeline", "data")
    )
    assert product == plan.num_devices == group_size(plan, "world")
    assert plan.expert * plan.expert_tensor * expert_data_degree(plan) * plan.pipeline == plan.num_devices
    if plan.zero_stage:
        shards = group_size(plan, "state_shard") * group_size(plan, "replicate")
        assert shards == plan.data * plan.context
    node = data.draw(st.sampled_from([4, 6, 8, 12]))
    for name in ("tensor_x", "tensor_xy", "data", "weight_shard", "context", "pipeline", "expert"):
        placement = place(plan, name, node)
        assert 1 <= placement.local <= min(node, max(1, placement.size))
        assert placement.nodes * placement.local >= placement.size
        assert placement.local * placement.sharers <= max(node, placement.local)
