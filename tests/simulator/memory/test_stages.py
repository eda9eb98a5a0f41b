"""Peak memory of stages: states by sharding, gathered weights, activations alive; by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lowered import HIDDEN, LAYERS, SEQUENCE, gpt, moe, plan, stack_with

from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.lowering.weights import stage_weights
from towtank.simulator.memory import stage_memories
from towtank.simulator.models.load import load_model
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

LAYER = 12 * HIDDEN**2 + 2 * HIDDEN
TABLE = 1024 * HIDDEN
MODEL = LAYERS * LAYER + 2 * TABLE
STATES = ("weights", "gradients", "optimizer")


def memories(the_plan, stack="megatron-core", model=None):
    the_stack = load_stack(stack) if isinstance(stack, str) else stack
    return stage_memories(lower(model or gpt(), the_plan, the_stack))


def states(memory):
    return sum(memory.parts.get(name, 0.0) for name in STATES)


def test_parts_sum_to_the_peak():
    (memory,) = memories(plan())
    assert memory.peak_bytes == pytest.approx(sum(memory.parts.values()))
    assert memory.parts["device context"] == load_stack("megatron-core").memory.context_bytes


@pytest.mark.parametrize(
    "stack, fields, weights, gradients, optimizer",
    [
        # bf16 weight 2, fp32 gradient 4, fp32 master 4 and moments 8: 18 bytes
        ("megatron-core", {}, 2, 4, 12),
        # the optimizer's part over 8
        ("megatron-core", {"data": 8, "zero_stage": 1}, 2, 4, 12 / 8),
        ("megatron-core", {"data": 8, "zero_stage": 1, "data_shard": 4}, 2, 4, 12 / 4),
        # ZeRO 2: gradients too
        ("megatron-core", {"data": 8, "zero_stage": 2}, 2, 4 / 8, 12 / 8),
        # FSDP of torchtitan keeps fp32 weights only, 4 + 4 + 8 = 16 bytes over 8
        ("torchtitan", {"data": 8, "zero_stage": 3}, 4 / 8, 4 / 8, 8 / 8),
        # weights, gradients and moments in the precision of its parameters
        ("torchtitan", {"data": 8, "zero_stage": 3, "master_precision": "bf16"}, 2 / 8, 2 / 8, 4 / 8),
        # 16-bit gradients: 2 + 2 + 12
        ("megatron-core", {"gradient_precision": "bf16"}, 2, 2, 12),
        # no master: 2 + 4 + 8
        ("megatron-core", {"master_precision": "none"}, 2, 4, 8),
        # everything in fp32 is its own master
        ("megatron-core", {"precision": "fp32"}, 4, 4, 8),
        ("megatron-core", {"tensor_x": 2}, 1, 2, 6),
        # DeepSpeed adds up in fp32 beside the 16 bits that travel: all gradients under bf16, its part under fp16
        ("megatron-deepspeed", {"data": 8, "zero_stage": 1, "precision": "bf16"}, 2, 2 + 4, 12 / 8),
        ("megatron-deepspeed", {"data": 8, "zero_stage": 1, "precision": "fp16"}, 2, 2 + 4 / 8, 12 / 8),
        ("megatron-deepspeed", {"data": 8, "zero_stage": 0, "precision": "fp16"}, 2, 2 + 4, 12),
    ],
)
def test_states_a_parameter(stack, fields, weights, gradients, optimizer):
    (memory,) = memories(plan(**fields), stack)
    norms = LAYERS * 2 * HIDDEN  # copied over x
    split = fields.get("tensor_x", 1)
    count = MODEL + norms * (split - 1)
    for name, each in zip(STATES, (weights, gradients, optimizer), strict=True):
        assert memory.parts[name] == pytest.approx(each * count, rel=1e-12), name


def test_sharded_states_travel_in_buckets_of_the_stack():
    buffers = {
        (precision, stage): memories(
            plan(data=8, zero_stage=stage, precision=precision), "megatron-deepspeed"
        )[0].parts["communication buffers"]
        for precision in ("fp16", "bf16")
        for stage in (0, 1)
    }
    # two buckets of 5e8 elements of 2 bytes; the bf16 optimizer shards without them
    assert buffers["fp16", 1] - buffers["fp16", 0] == pytest.approx(2e9)
    assert buffers["bf16", 1] == buffers["bf16", 0]


def test_axonn_shards_layers_over_z_and_keeps_whole_tables():
    # arithmetic of Megatron-AxoNN: 18 bytes over x y z, tables over x y
    (memory,) = memories(plan(tensor_x=2, tensor_z=4, recompute="full"), "axonn")
    layers = LAYERS * (12 * HIDDEN**2 / 8 + 2 * HIDDEN / 4)
    assert states(memory) == pytest.approx(18 * (layers + 2 * TABLE / 2))


def test_gathered_weights():
    # one layer in use and one prefetched in bf16, gradients of two in fp32
    (memory,) = memories(plan(data=8, zero_stage=3), "torchtitan")
    assert memory.parts["gathered weights"] == pytest.approx(2 * LAYER * 2 + 2 * LAYER * 4)
    (memory,) = memories(plan(data=8, zero_stage=1))
    assert "gathered weights" not in memory.parts


def test_weights_that_are_not_gathered_again_stay():
    stack = stack_with("torchtitan", communication={"regather_in_backward": False})
    again, once = (memories(plan(data=8, zero_stage=3), each)[0] for each in ("torchtitan", stack))
    assert once.parts["gathered weights"] - again.parts["gathered weights"] == pytest.approx(
        LAYERS * LAYER * 2
    )
    # recomputed layers gather for themselves
    recomputed = plan(data=8, zero_stage=3, recompute="full")
    found = [memories(recomputed, each)[0].parts["gathered weights"] for each in ("torchtitan", stack)]
    assert found[0] == found[1]


def test_gradients_reduced_once_per_step_are_whole():
    stack = stack_with("torchtitan", communication={"reduce_every_micro_batch": False})
    (one,) = memories(plan(data=8, zero_stage=3), stack)
    (many,) = memories(plan(data=8, zero_stage=3, micro_batches=2), stack)
    assert many.parts["gradients"] == pytest.approx(8 * one.parts["gradients"])


def test_working_gradients_are_kept_in_the_buckets_of_replicas():
    # nanotron: fp32 buffer 4 bytes, and 2 in the buckets of DistributedDataParallel where there are replicas
    (one,) = memories(plan(micro_batch=64), "nanotron")
    (two,) = memories(plan(micro_batch=64, data=2), "nanotron")
    assert one.parts["gradients"] == pytest.approx(4 * MODEL)
    assert two.parts["gradients"] == pytest.approx((4 + 2) * MODEL)


def test_working_gradients_outlast_small_activations():
    # at the end of a backward pass 2 bytes a gradient stand where the activations were that they replace
    (memory,) = memories(plan(), "nanotron")
    freed = memory.parts["activations"] + memory.parts["logits"]
    assert freed < 2 * MODEL
    assert memory.parts["gradients"] == pytest.approx(4 * MODEL + 2 * MODEL - freed)


def test_logits_of_the_last_micro_batch_stay_under_tensor_parallelism():
    def logits(tensor_x, micro_batches):
        the_plan = plan(tensor_x=tensor_x, micro_batches=micro_batches)
        return memories(the_plan, "nanotron")[0].parts["logits"]

    # bf16, fp32 and the fp32 gradient: 10 bytes for each of 1024 columns
    assert logits(1, 1) == logits(1, 2) == SEQUENCE * 1024 * 10
    assert logits(2, 1) == SEQUENCE * 512 * 10
    # of the micro-batch before it bf16 logits and their fp32 softmax: 6 bytes
    assert logits(2, 2) == SEQUENCE * 512 * (10 + 6)


def test_what_fragments():
    (memory,) = memories(plan(), stack_with("nanotron", memory={"fragmentation": 0.5}))
    assert memory.parts["fragmentation"] == pytest.approx(0.5 * memory.parts["activations"])
    # t = 2: of each layer the gathered inputs of two linear layers, 2 bytes an element each, leave no holes
    the_plan = plan(tensor_x=2, sequence_parallel=True)
    (memory,) = memories(the_plan, stack_with("nanotron", memory={"fragmentation": 0.5}))
    gathered = LAYERS * 2 * 2 * SEQUENCE * HIDDEN
    assert memory.parts["fragmentation"] == pytest.approx(0.5 * (memory.parts["activations"] - gathered))
    (memory,) = memories(plan(), stack_with("megatron-core", memory={"fragmentation": 0.5}))
    context = memory.parts["device context"]
    assert memory.parts["fragmentation"] == pytest.approx((memory.peak_bytes - context) / 3)


def test_first_stage_holds_as_many_micro_batches_as_there_are_stages():
    # 1F1B (arXiv 2104.04473, section 2.2): stage i of p holds p - i
    found = memories(plan(pipeline=4, micro_batches=8))
    assert [memory.alive_micro_batches for memory in found] == [4, 3, 2, 1]
    one = found[2].parts["activations"] / 2
    assert found[1].parts["activations"] == pytest.approx(3 * one)
    assert found[0].parts["activations"] == pytest.approx(4 * one)
    gpipe = memories(plan(pipeline=4, micro_batches=8, schedule="gpipe"))
    assert {memory.alive_micro_batches for memory in gpipe} == {8}


def test_interleaving_holds_more():
    # arXiv 2205.05198, section 4.2.3: p + (p - 1) / v layers' worth, here 4 x (1 + 3 / 8) of 2 chunks each
    plain = memories(plan(pipeline=4, micro_batches=8), model=gpt(num_layers=8))
    split = memories(plan(pipeline=4, virtual_stages=2, micro_batches=8), model=gpt(num_layers=8))
    ratio = split[0].parts["activations"] / plain[0].parts["activations"]
    assert ratio == pytest.approx(1 + (4 - 1) / (4 * 2))


def test_ends_lie_on_the_first_and_last_stage():
    sizes = lower(gpt(), plan(pipeline=2, micro_batches=2), load_stack("megatron-core")).sizes
    first, last = (stage_weights(sizes, chunks) for chunks in chunks_of(sizes))
    assert first.embedding == last.embedding == TABLE
    tied = lower(gpt(tied_embeddings=True), plan(), load_stack("megatron-core")).sizes
    assert stage_weights(tied, chunks_of(tied)[0]).embedding == TABLE


def test_expert_weights_are_split_over_experts():
    whole, split = (memories(plan(data=4, expert=e), model=moe())[0] for e in (1, 4))
    saved = LAYERS * 3 * HIDDEN * 512 * 8 * 3 / 4
    assert whole.parts["weights"] - split.parts["weights"] == pytest.approx(2 * saved)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["tiny-llama", "tiny-gpt", "tiny-moe", "tiny-mla"]),
    st.sampled_from(["none", "selective", "full"]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.integers(1, 4),
)
def test_peak_grows_with_the_micro_batch_and_shrinks_with_recompute(
    name, recompute, pipeline, x, micro_batch
):
    model, stack = load_model(name), load_stack("megatron-core")

    def peaks(**fields):
        the_plan = plan(tensor_x=x, pipeline=pipeline, micro_batches=4, **fields)
        return [memory.peak_bytes for memory in stage_memories(lower(model, the_plan, stack))]

    small = peaks(micro_batch=micro_batch, recompute=recompute)
    large = peaks(micro_batch=micro_batch + 1, recompute=recompute)
    assert all(a < b for a, b in zip(small, large, strict=True))
    first = peaks(micro_batch=micro_batch, recompute="full")[0]
    assert first <= peaks(micro_batch=micro_batch, recompute="none")[0] * (1 + 1e-12)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_each_further_zero_stage_needs_less(stage):
    def peak(zero):
        (memory,) = memories(plan(data=8, zero_stage=zero), "towtank-executor", model=gpt(num_layers=64))
        return memory.peak_bytes

    assert peak(stage) < peak(stage - 1)


def test_more_tokens_are_more_activations():
    longer = memories(plan(sequence=2 * SEQUENCE))[0].parts["activations"]
    assert longer == pytest.approx(2 * memories(plan())[0].parts["activations"])


def test_a_pipeline_of_torchtitan_keeps_weights_gathered_and_gradients_whole():
    # two stages of two layers: all of their weights in bf16 for the step, whole gradients in fp32
    found = memories(plan(pipeline=2, data=8, zero_stage=3, micro_batches=4, recompute="full"), "torchtitan")
    stage = LAYERS / 2 * LAYER + TABLE
    assert found[0].parts["gradients"] == pytest.approx(stage * 4)
    again = stack_with("torchtitan", communication={"pipeline_keeps_gathered": False})
    other = memories(plan(pipeline=2, data=8, zero_stage=3, micro_batches=4, recompute="full"), again)
    more = found[0].parts["gathered weights"] - other[0].parts["gathered weights"]
    assert more == pytest.approx(LAYERS / 2 * LAYER * 2)
    assert other[0].parts["gradients"] == pytest.approx(stage * 4 / 8)
