"""Messages of tensor parallelism, counted by hand for one layer of hidden size h, b sequences of s tokens."""

from collections import Counter

import pytest
from lowered import HIDDEN, SEQUENCE, gpt, layer_operations, messages, mla, moe, plan, sent_bytes, stack_with

from towtank.simulator.axonn.grid import Grid
from towtank.simulator.axonn.traffic import (
    FULL_RECOMPUTE,
    NO_RECOMPUTE,
    Workload,
    gpt_block,
    layer_traffic,
)
from towtank.simulator.lowering.weights import gradient_messages, layer_weights
from towtank.simulator.models.records import Attention, Experts
from towtank.simulator.operations import Matmul, Message, Phase
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

B = 2
ARRAY = B * SEQUENCE * HIDDEN * 2.0
"""Hidden state of one micro-batch: b s h elements of 2 bytes."""

ALL_REDUCE = ("all-reduce", "tensor_x", ARRAY)
GATHER = ("all-gather", "tensor_x", ARRAY)
SCATTER = ("reduce-scatter", "tensor_x", ARRAY)


def test_megatron_has_four_all_reduces_of_the_hidden_state():
    # forward: after attention and after the MLP; backward: at the inputs of both (arXiv 1909.08053, figure 4)
    operations = layer_operations(gpt(), plan(tensor_x=4, micro_batch=B), load_stack("megatron-2021"))
    assert messages(operations, Phase.FORWARD) == Counter({ALL_REDUCE: 2})
    assert messages(operations, Phase.BACKWARD) == Counter({ALL_REDUCE: 2})


@pytest.mark.parametrize("precision, bytes_per_element", [("fp8", 1.0), ("mxfp8", 33 / 32), ("bf16", 2.0)])
def test_what_is_gathered_for_a_narrow_multiply_is_cast_before(precision, bytes_per_element):
    # Transformer Engine: inputs of QKV and of the first MLP layer (forward, and again for the weight gradients) and
    # gradients at the two outputs (backward) are quantized by each rank; sums stay in bf16
    degree = 4
    mapping = plan(tensor_x=degree, micro_batch=B, sequence_parallel=True, precision=precision)
    operations = layer_operations(gpt(), mapping, load_stack("megatron-core"))
    gather = ("all-gather", "tensor_x", ARRAY / 2 * bytes_per_element)
    assert messages(operations, Phase.FORWARD) == Counter({gather: 2, SCATTER: 2})
    assert messages(operations, Phase.BACKWARD) == Counter({gather: 4, SCATTER: 2})
    if precision == "bf16":
        return
    forward = [done for done in operations if done.phase is Phase.FORWARD]
    casts = {done.name: done.work.bytes for done in forward if done.name.endswith(".cast")}
    # 1.5 passes of 2 bytes over a rank's own part of the hidden state
    assert casts["attention.qkv.cast"] == pytest.approx(1.5 * ARRAY / degree)
    assert casts["attention.output.cast"] == pytest.approx(
        1.5 * ARRAY / degree
    )  # heads are split, not gathered


def test_full_recompute_repeats_the_forward_ones():
    operations = layer_operations(
        gpt(), plan(tensor_x=4, micro_batch=B, recompute="full"), load_stack("megatron-2021")
    )
    assert messages(operations) == Counter({ALL_REDUCE: 6})


def test_sequence_parallelism_splits_each_all_reduce_in_two():
    # arXiv 2205.05198, section 4.2.2: an all-gather before and a reduce-scatter after each pair of multiplies,
    # forward and backward, and one more all-gather of each pair's input for the weight gradients
    operations = layer_operations(
        gpt(), plan(tensor_x=4, micro_batch=B, sequence_parallel=True), load_stack("megatron-2021")
    )
    assert messages(operations, Phase.FORWARD) == Counter({GATHER: 2, SCATTER: 2})
    assert messages(operations, Phase.BACKWARD) == Counter({GATHER: 2 + 2, SCATTER: 2})


def test_sequence_parallelism_sends_as_much_as_tensor_parallelism_in_the_forward_pass():
    # (t-1)/t for the gather and as much for the scatter: the 2 (t-1)/t of an all-reduce
    stack = load_stack("megatron-2021")
    sent = []
    for split in (False, True):
        the_plan = plan(tensor_x=4, micro_batch=B, sequence_parallel=split)
        operations = layer_operations(gpt(), the_plan, stack)
        sent.append(sent_bytes([op for op in operations if op.phase is Phase.FORWARD], the_plan))
    assert sent[0] == pytest.approx(sent[1])


def test_overlapped_tensor_collectives_send_the_same_bytes():
    stack = load_stack("megatron-core")
    for model in (gpt(), gpt(parallel_block=True), mla()):
        sent = []
        for wish in (False, True):
            the_plan = plan(tensor_x=4, micro_batch=B, sequence_parallel=True)
            the_stack = stack_with("megatron-core", communication={"overlaps": ("tensor",) if wish else ()})
            sent.append(sent_bytes(layer_operations(model, the_plan, the_stack), the_plan))
        assert sent[0] == pytest.approx(sent[1]), model.attention
    assert "tensor" in stack.supports.overlaps


def test_parallel_block_communicates_half_as_often():
    # attention and MLP read one input and their outputs are added before the sum over x (PaLM, section 2)
    model, stack = gpt(parallel_block=True, norms_per_layer=1), load_stack("megatron-2021")
    assert messages(layer_operations(model, plan(tensor_x=4, micro_batch=B), stack)) == Counter(
        {ALL_REDUCE: 2}
    )
    operations = layer_operations(model, plan(tensor_x=4, micro_batch=B, sequence_parallel=True), stack)
    assert messages(operations, Phase.FORWARD) == Counter({GATHER: 1, SCATTER: 1})
    assert messages(operations, Phase.BACKWARD) == Counter({GATHER: 1 + 1, SCATTER: 1})


def test_shared_experts_communicate_like_a_dense_part():
    experts = Experts(8, 2, 512, gated=True, shared_hidden=512)
    the_plan = plan(tensor_x=2, micro_batch=B, sequence_parallel=True, expert=2)
    with_shared = messages(layer_operations(gpt(experts=experts), the_plan, load_stack("megatron-core")))
    without = messages(layer_operations(moe(), the_plan, load_stack("megatron-core")))
    assert with_shared - without == Counter({GATHER: 1 + 2, SCATTER: 1 + 1})


def test_latent_attention_reduces_the_gradients_of_its_compressed_inputs():
    # the up-projections from ranks 64 and 32 are split over x, the down-projections are copied: backward, the
    # gradients of both compressed tensors are sums over x, that of the hidden state is then whole already
    operations = layer_operations(mla(), plan(tensor_x=2, micro_batch=B), load_stack("megatron-core"))
    tokens = B * SEQUENCE
    assert messages(operations, Phase.BACKWARD) == Counter(
        {
            ("all-reduce", "tensor_x", tokens * 64 * 2.0): 1,
            ("all-reduce", "tensor_x", tokens * 32 * 2.0): 1,
            ALL_REDUCE: 1,  # input of the MLP
        }
    )
    assert messages(operations, Phase.FORWARD) == Counter({ALL_REDUCE: 2})


def test_megatron_layer_is_the_hand_written_list():
    # h = 256, 8 heads of 32, x = 4: QKV 256 -> 3 * 64, output 64 -> 256, MLP 256 -> 256 -> 256; 256 tokens
    stack = stack_with("axonn", kernels={"dropout": False})
    operations = layer_operations(gpt(), plan(tensor_x=4, micro_batch=B), stack)
    multiplies = [
        (op.name, op.work.m, op.work.n, op.work.k) for op in operations if isinstance(op.work, Matmul)
    ]
    assert multiplies == [
        ("attention.qkv.forward", 256, 192, 256),
        ("attention.output.forward", 256, 256, 64),
        ("mlp.up.forward", 256, 256, 256),
        ("mlp.down.forward", 256, 256, 256),
        ("mlp.down.dgrad", 256, 256, 256),
        ("mlp.down.wgrad", 256, 256, 256),
        ("mlp.up.dgrad", 256, 256, 256),
        ("mlp.up.wgrad", 256, 256, 256),
        ("attention.output.dgrad", 256, 64, 256),
        ("attention.output.wgrad", 256, 64, 256),
        ("attention.qkv.dgrad", 256, 256, 192),
        ("attention.qkv.wgrad", 192, 256, 256),
    ]
    sent = [op.name for op in operations if isinstance(op.work, Message)]
    assert sent == [
        "attention.output.all-reduce",
        "mlp.down.all-reduce",
        "mlp.up.dgrad.all-reduce",
        "attention.qkv.dgrad.all-reduce",
    ]


def test_axonn_with_one_y_and_z_does_what_megatron_does():
    megatron, axonn = load_stack("megatron-2021"), load_stack("axonn")
    same = stack_with("axonn", kernels={"attention": megatron.kernels.attention})
    the_plan = plan(tensor_x=4, micro_batch=B)
    assert axonn.communication.shard_unit == "linear"
    assert layer_operations(gpt(), the_plan, same) == layer_operations(gpt(), the_plan, megatron)


GRIDS = [(2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 4, 1), (2, 2, 2, 2), (4, 2, 1, 3), (2, 4, 4, 1), (1, 1, 2, 4)]


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("degrees", GRIDS)
def test_axonn_traffic_is_that_of_the_published_model(degrees, recompute):
    grid = Grid(*degrees)
    micro_batches = 3
    the_plan = plan(
        tensor_x=grid.x, tensor_y=grid.y, tensor_z=grid.z, data=grid.data,
        micro_batch=B, micro_batches=micro_batches, recompute=recompute,
    )  # fmt: skip
    workload = Workload(
        gpt_block(HIDDEN), 1, the_plan.global_batch, SEQUENCE, micro_batches,
        FULL_RECOMPUTE if recompute == "full" else NO_RECOMPUTE,
    )  # fmt: skip
    expected = [layer_traffic(layer, grid, workload) for layer in gpt_block(HIDDEN)]
    stack = load_stack("axonn")
    sent = sent_bytes(layer_operations(gpt(), the_plan, stack), the_plan)
    assert sent.get("tensor_x", 0) * micro_batches == pytest.approx(sum(each.x_bytes for each in expected))
    assert sent.get("tensor_y", 0) * micro_batches == pytest.approx(sum(each.y_bytes for each in expected))
    assert sent.get("weight_shard", 0) * micro_batches == pytest.approx(
        sum(each.z_bytes for each in expected)
    )
    # the published model has no norms: 2 h elements a layer, split over y, reduced in fp32
    sizes = lower(gpt(), the_plan, stack).sizes
    reduced = sum(message.bytes for message in gradient_messages(sizes, layer_weights(sizes, 0)))
    norms = 2 * HIDDEN / grid.y / grid.z * 4
    data = 2 * (grid.data - 1) / grid.data * (reduced - norms)
    assert data == pytest.approx(sum(each.data_bytes for each in expected))


def test_key_value_heads_are_copied_where_there_are_fewer_than_x():
    model = gpt(attention=Attention(8, 2, 32))
    operations = layer_operations(model, plan(tensor_x=4), load_stack("megatron-core"))
    qkv = next(op.work for op in operations if op.name == "attention.qkv.forward")
    assert qkv.n == (2 + 2 * 1) * 32  # two query heads, one key and one value head


def test_split_norms_reduce_two_numbers_a_token():
    operations = layer_operations(gpt(), plan(tensor_y=2, micro_batch=B), load_stack("towtank-executor"))
    statistics = ("all-reduce", "tensor_y", B * SEQUENCE * 2 * 4.0)
    assert messages(operations)[statistics] == 4  # two norms, forward and backward
    assert messages(layer_operations(gpt(), plan(tensor_y=2), load_stack("axonn"))).total() == 4


@pytest.mark.parametrize(("heads", "width", "aligned"), [(8, 108, False), (6, 144, True)])
def test_products_of_heads_align_where_a_head_is_a_multiple_of_eight_features(heads, width, aligned):
    # 16 bytes hold eight features; 108 and 144 are the widths of BLOOM's comparison of head counts
    model = gpt(hidden=864, attention=Attention(heads, heads, width))
    operations = layer_operations(model, plan(), load_stack("megatron-deepspeed"))
    works = {op.name: op.work for op in operations if isinstance(op.work, Matmul)}
    assert {work.aligned for name, work in works.items() if "scores" in name or "values" in name} == {aligned}
    assert {work.aligned for name, work in works.items() if "qkv" in name or "mlp" in name} == {True}
