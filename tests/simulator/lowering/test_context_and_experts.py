"""Messages of context and expert parallelism, counted by hand for one layer."""

import pytest
from lowered import HIDDEN, SEQUENCE, gpt, layer_operations, messages, moe, plan, sent_bytes, stack_with

from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.models.records import Attention, Experts
from towtank.simulator.operations import PREVIOUS, AttentionCore, Elementwise, Matmul, Message, Phase
from towtank.simulator.plan import Overlap
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

B = 2


def by_phase(operations, the_plan, phase):
    return sent_bytes([op for op in operations if op.phase is phase], the_plan)


@pytest.mark.parametrize("kv_heads", [8, 2])
def test_ring_attention_passes_keys_and_values_round(kv_heads):
    # each of c = 4 ranks sends its own s/4 keys and values c - 1 times; backward their gradients as well
    # (arXiv 2310.01889)
    the_plan = plan(context=4, micro_batch=B)
    model = gpt(attention=Attention(8, kv_heads, 32))
    operations = layer_operations(model, the_plan, load_stack("megatron-core"))
    own = B * SEQUENCE / 4 * 2 * kv_heads * 32 * 2
    assert by_phase(operations, the_plan, Phase.FORWARD) == {"context": pytest.approx(3 * own)}
    assert by_phase(operations, the_plan, Phase.BACKWARD) == {"context": pytest.approx(2 * 3 * own)}


def test_ulysses_exchanges_queries_keys_values_and_outputs():
    # arXiv 2309.14509: all-to-all of q, k, v before the core and of its output after it, b s/c h elements each
    the_plan = plan(context=4, context_kind="all-to-all", micro_batch=B)
    operations = layer_operations(gpt(), the_plan, load_stack("deepspeed"))
    own = B * SEQUENCE / 4 * HIDDEN * 2.0
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert messages(operations, phase) == {
            ("all-to-all", "context", 3 * own): 1,
            ("all-to-all", "context", own): 1,
        }
    assert by_phase(operations, the_plan, Phase.FORWARD)["context"] == pytest.approx(4 * own * 3 / 4)


def test_context_parallelism_splits_the_queries_and_keeps_the_keys():
    operations = layer_operations(gpt(), plan(context=4), load_stack("megatron-core"))
    core = next(op.work for op in operations if isinstance(op.work, AttentionCore))
    assert (core.queries, core.keys, core.mean_keys) == (SEQUENCE / 4, SEQUENCE, SEQUENCE / 2)


def test_expert_parallelism_sends_each_copy_of_a_token_twice_each_way():
    # dispatch and combine, forward and backward: b s k h elements of 2 bytes, of which 3/4 leave the device
    the_plan = plan(data=4, expert=4, micro_batch=B)
    operations = layer_operations(moe(), the_plan, load_stack("megatron-core"))
    copies = B * SEQUENCE * 2 * HIDDEN * 2.0
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert messages(operations, phase) == {("all-to-all", "expert", copies): 2}
    assert by_phase(operations, the_plan, Phase.FORWARD)["expert"] == pytest.approx(2 * copies * 3 / 4)


def test_tensor_ranks_route_their_own_tokens():
    the_plan = plan(data=2, tensor_x=2, sequence_parallel=True, expert=4, micro_batch=B)
    operations = layer_operations(moe(), the_plan, load_stack("megatron-core"))
    sent = messages(operations, Phase.FORWARD)
    assert sent[("all-to-all", "expert", B * SEQUENCE / 2 * 2 * HIDDEN * 2.0)] == 2


def test_split_experts_gather_and_scatter_over_their_group():
    # expert_tensor 2: each rank handles the tokens of both with half of the features
    the_plan = plan(data=4, expert=2, expert_tensor=2, micro_batch=B)
    operations = layer_operations(moe(), the_plan, load_stack("megatron-core"))
    copies = B * SEQUENCE * 2 * HIDDEN * 2.0
    assert messages(operations, Phase.FORWARD) == {
        ("all-to-all", "expert", copies): 2,
        ("all-gather", "expert_tensor", 2 * copies): 1,
        ("reduce-scatter", "expert_tensor", 2 * copies): 1,
    }
    up = next(op.work for op in operations if op.name == "experts.up.forward")
    # 512 copies from each of 2 ranks over 4 local experts; both halves of 256 gated features
    assert (up.m, up.n, up.k, up.batch) == (2 * B * SEQUENCE * 2 // 4, 2 * 256, HIDDEN, 4)
    names = [op.name for op in operations if op.name.startswith("experts.combine.")]
    assert names == ["experts.combine.reduce-scatter", "experts.combine.all-to-all"]


def test_without_sequence_parallelism_tensor_ranks_collect_what_the_others_routed():
    operations = layer_operations(moe(), plan(tensor_x=2, micro_batch=B), load_stack("megatron-core"))
    array = ("all-gather", "tensor_x", B * SEQUENCE * HIDDEN * 2.0)
    assert messages(operations, Phase.FORWARD)[array] == 1
    assert messages(operations, Phase.BACKWARD)[array] == 1


@pytest.mark.parametrize(
    "imbalance, capacity, load", [(1.0, None, 1.0), (1.5, None, 1.5), (1.5, 1.25, 1.25), (1.0, 1.25, 1.0)]
)
def test_the_busiest_device_sets_the_work_up_to_the_capacity(imbalance, capacity, load):
    experts = Experts(8, 2, 512, gated=True, imbalance=imbalance, capacity_factor=capacity)
    operations = layer_operations(gpt(experts=experts), plan(data=4, expert=4), load_stack("megatron-core"))
    up = next(op.work for op in operations if op.name == "experts.up.forward")
    assert up.m * up.batch == load * SEQUENCE * 2


def test_stacks_without_grouped_multiplies_run_one_expert_after_the_other():
    operations = layer_operations(moe(), plan(), load_stack("megatron-2021"))
    ups = [op.work for op in operations if isinstance(op.work, Matmul) and op.name.startswith("experts.up")]
    assert len(ups) == 8 * 3 and {work.batch for work in ups} == {1}


def test_multi_token_prediction_adds_a_projection_a_layer_and_a_head():
    program = lower(gpt(mtp_layers=1), plan(), load_stack("megatron-core"))
    (block,) = program.forward[0]
    names = [name for name, _ in block.operations() if name.startswith("prediction.0")]
    assert names[0] == "prediction.0.projection.forward"
    assert "prediction.0.mlp.down.forward" in names and "prediction.0.head.forward" in names


def _launches(operations):
    return [op.work.launches for op in operations if op.kind == "launches"]


@pytest.mark.parametrize(
    "precision, overlap, count",
    [("bf16", False, 60), ("fp8", False, 60 + 16 * 2), ("fp8", True, 2 * (60 + 16 * 2))],
)
def test_the_device_waits_for_the_small_kernels_of_a_layer_with_experts(precision, overlap, count):
    # 8 experts over 4 devices: two are local; two micro-batches in turn double what the host launches in a pass
    the_plan = plan(data=4, expert=4, precision=precision, overlap=Overlap(expert=overlap))
    operations = layer_operations(moe(), the_plan, load_stack("megatron-core"))
    assert _launches(operations) == [count, count]
    assert _launches(layer_operations(gpt(), plan(), load_stack("megatron-core"))) == []
    assert _launches(layer_operations(moe(), the_plan, load_stack("megatron-core-full-graphs"))) == []


def test_an_overlapped_exchange_runs_beside_the_whole_layer():
    the_plan = plan(data=4, expert=4, overlap=Overlap(expert=True))
    operations = layer_operations(moe(), the_plan, load_stack("megatron-core"))
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        own = [op for op in operations if op.phase is phase]
        exchanges = [n for n, op in enumerate(own) if isinstance(op.work, Message)]
        assert [own[n].after for n in exchanges] == [(PREVIOUS,)] * 2
        waiting = [
            op for op in own if {after.position for after in op.after if not after.back} >= set(exchanges)
        ]
        assert len(waiting) == 1  # one operation waits for both
        assert own.index(waiting[0]) > own.index(next(op for op in own if op.name.startswith("experts.up")))


def test_experts_overlap_by_themselves_only_where_two_passes_meet():
    stack = load_stack("megatron-core-full-graphs")
    assert local_sizes(moe(), plan(), stack).overlap.expert
    assert not local_sizes(moe(), plan(pipeline=2, micro_batches=2), stack).overlap.expert
    assert local_sizes(moe(), plan(pipeline=2, virtual_stages=2, micro_batches=2), stack).overlap.expert


def test_a_dispatcher_that_sends_a_token_once_says_how_many_copies_there_are():
    the_plan = plan(data=4, expert=4)
    for name, copies in (("megatron-core", 0), ("megatron-core-flex", 2)):
        sent = [op.work for op in layer_operations(moe(), the_plan, load_stack(name))]
        assert {work.fan_out for work in sent if isinstance(work, Message)} == {copies}


def test_biases_of_experts_are_passes_of_their_own_unless_a_kernel_has_them():
    # 128 tokens x 2 copies; bias: 14 forward and 20 backward passes of the output; clamp: 4 and 6 of the input of the
    # activation, which is 2 x 512 wide
    experts = Experts(8, 2, 512, gated=True, bias=True)
    operations = layer_operations(gpt(experts=experts), plan(), load_stack("megatron-core"))
    sizes = {
        (op.name, op.phase): op.work.bytes
        for op in operations
        if isinstance(op.work, Elementwise) and op.name in ("experts.bias", "experts.clamp")
    }
    copies = 2 * SEQUENCE
    assert sizes == {
        ("experts.bias", Phase.FORWARD): copies * HIDDEN * 14 * 2,
        ("experts.bias", Phase.BACKWARD): copies * HIDDEN * 20 * 2,
        ("experts.clamp", Phase.FORWARD): copies * 1024 * 4 * 2,
        ("experts.clamp", Phase.BACKWARD): copies * 1024 * 6 * 2,
    }
    fused = layer_operations(
        gpt(experts=experts), plan(), stack_with("megatron-core", kernels={"fused_expert_bias": True})
    )
    assert not [op for op in fused if op.name in ("experts.bias", "experts.clamp")]
