"""Steps on the clock: what a step consists of, with numbers that a few lines can check."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lowered import gpt, moe, plan, stack_with

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.cost.model import CostModel
from towtank.simulator.lowering.stages import layer_counts
from towtank.simulator.operations import Stream
from towtank.simulator.plan import Overlap
from towtank.simulator.predict import bound, predict
from towtank.simulator.program import lower, send_message
from towtank.simulator.schedules.roles import Role
from towtank.simulator.stacks.load import load_stack

MACHINE = "perlmutter"
NO_OVERLAP = Overlap(*[False] * 8)


def calm(name="megatron-core"):
    return stack_with(name, fitted={"compute_slowdown": 0.0})


def test_without_overlap_a_step_is_the_sum_of_its_parts():
    # one stage, nothing beside anything: passes x micro-batches, reduction, norm, optimizer
    the_plan = plan(tensor_x=2, data=4, micro_batches=3, overlap=NO_OVERLAP)
    stack = calm()
    prediction = predict(gpt(), MACHINE, the_plan, stack=stack)
    cost = CostModel(load_machine(MACHINE), the_plan, stack)
    program = prediction.step.program
    passes = sum(
        cost.duration_s(operation.work)
        for blocks in (program.forward, program.backward)
        for _, operation in blocks[0][0].operations()
    )
    around = prediction.step.graph.duration_s[program.pipeline.role > Role.SEND_BACKWARD].sum()
    assert prediction.step_time_s == pytest.approx(3 * passes + around)


def test_pipeline_of_equal_stages_has_the_bubble_of_the_paper():
    # arXiv 2104.04473, section 2.2.1: (p - 1) (f + b) of bubble for m (f + b) of work; sends are free here
    machine = load_machine(MACHINE)
    model = gpt(num_layers=64, vocab=128)
    p, m = 4, 8
    the_plan = plan(pipeline=p, micro_batches=m, stage_layers=(16,) * 4)
    prediction = predict(model, machine, the_plan, stack=calm())
    forward, backward = prediction.step.forward, prediction.step.backward
    middle = forward[1][0].makespan_s + backward[1][0].makespan_s
    bubble = prediction.breakdown_s["bubble"]
    # ends differ a little from the middle stages; waits for messages are listed apart
    exposed = prediction.breakdown_s.get("exposed send pipeline", 0.0)
    assert bubble + exposed == pytest.approx((p - 1) * middle, rel=0.25)


def test_hidden_communication_is_not_exposed():
    the_plan = plan(data=8, zero_stage=3, micro_batch=4)
    large = gpt(hidden=2048, mlp=replace(gpt().mlp, hidden=8192), sequence=2048)
    shown, hidden = (
        predict(large, MACHINE, replace(the_plan, overlap=replace(NO_OVERLAP, all_gather=on, reduce_scatter=on)),
                stack=calm("torchtitan"))
        for on in (False, True)
    )  # fmt: skip
    row = "exposed all-gather weight_shard"
    assert hidden.breakdown_s[row] < shown.breakdown_s[row] / 2
    assert hidden.step_time_s < shown.step_time_s


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_one_kernel_queue_hides_nothing(zero_stage):
    """Collectives and compute take turns: the step is that of a plan without any overlap."""
    machine = load_machine(MACHINE)
    one = replace(machine, name="one queue", device=replace(machine.device, kernel_queues=1))
    the_plan = plan(data=8, zero_stage=zero_stage, micro_batch=4)
    serial = predict(gpt(), one, the_plan, stack=calm("megatron-core"))
    blocking = predict(gpt(), machine, replace(the_plan, overlap=NO_OVERLAP), stack=calm("megatron-core"))
    assert serial.step_time_s == pytest.approx(blocking.step_time_s)
    assert serial.step_time_s > predict(gpt(), machine, the_plan, stack=calm("megatron-core")).step_time_s


def test_first_layer_of_a_block_cannot_hide_its_gather():
    prediction = predict(gpt(), MACHINE, plan(data=8, zero_stage=3), stack=calm("torchtitan"))
    operations = {operation.name: operation for operation in prediction.record().operations}
    assert operations["model.embedding.weight.all-gather"].exposed_s > 0


def test_rows_of_the_record_are_the_names_of_the_program():
    the_plan = plan(tensor_x=2, sequence_parallel=True, pipeline=2, micro_batches=4)
    prediction = predict(gpt(), MACHINE, the_plan, stack=calm())
    record = prediction.record()
    program = prediction.step.program
    names = {
        name
        for blocks in (program.forward, program.backward)
        for stage in blocks
        for block in stage
        for name, operation in block.operations()
    }
    assert {operation.name for operation in record.operations} <= names
    assert {f"layer.{layer}.mlp.up.forward" for layer in range(4)} <= {op.name for op in record.operations}
    assert record.step_time_s == prediction.step_time_s
    assert record.peak_memory_bytes == prediction.peak_memory_bytes


def test_utilisation_counts_the_work_of_the_model():
    the_plan = plan(tensor_x=4, recompute="full", micro_batches=2)
    prediction = predict(gpt(), MACHINE, the_plan)
    available = prediction.step_time_s * 4 * 312e12
    assert prediction.mfu == pytest.approx(prediction.model_flop / available)
    assert prediction.hfu / prediction.mfu == pytest.approx(prediction.executed_flop / prediction.model_flop)
    # 8 matrices h^2 x 12, scores, no head: recompute adds the forward pass of the layers
    s, h, layers = 128, 256, 4
    again = the_plan.global_batch * layers * (24 * s * h * h + 4 * s * s * h)
    assert prediction.executed_flop - prediction.model_flop == pytest.approx(again)
    assert prediction.tokens_per_step == the_plan.global_batch * s
    assert prediction.flop_per_s_per_device == pytest.approx(prediction.mfu * 312e12)


@pytest.mark.parametrize(
    "layers, chunks, expected",
    [
        (8, 4, (2, 2, 2, 2)),
        # 126 layers on 16 chunks: the first and the last have one fewer (Llama 3 405B, arXiv 2407.21783, 3.3.2)
        (126, 16, (7, *[8] * 14, 7)),
        (7, 4, (2, 2, 2, 1)),
        (62, 16, (3, *[4] * 14, 3)),
    ],
)
def test_even_split_spares_the_ends(layers, chunks, expected):
    assert layer_counts(layers, chunks, None) == expected


@given(st.integers(1, 200), st.integers(1, 64))
def test_split_adds_up(layers, chunks):
    counts = layer_counts(layers, chunks, None)
    assert len(counts) == chunks and sum(counts) == layers
    assert min(counts) >= 0
    if layers >= chunks:
        assert max(counts) - min(counts) <= 1


def test_stages_that_do_the_same_are_timed_once():
    the_plan = plan(pipeline=4, micro_batches=4)
    step = predict(gpt(num_layers=8), MACHINE, the_plan).step
    assert step.forward[1][0].timeline is step.forward[2][0].timeline
    assert step.forward[0][0].timeline is not step.forward[1][0].timeline


@pytest.mark.parametrize(
    "fields, parts",
    [({}, 1), ({"sequence_parallel": True}, 4)],
)
def test_sends_carry_the_hidden_state(fields, parts):
    # 2 sequences x 128 tokens x 256 x 2 B, each rank its part where sequence parallelism splits it
    sizes = lower(gpt(), plan(tensor_x=4, pipeline=2, micro_batch=2, micro_batches=2, **fields), calm()).sizes
    assert send_message(sizes).bytes == 2 * 128 * 256 * 2 / parts
    scattered = lower(gpt(), plan(tensor_x=4, pipeline=2, micro_batches=2), load_stack("megatron-2021")).sizes
    assert send_message(scattered).bytes == 128 * 256 * 2 / 4  # scatter and gather, arXiv 2104.04473, 4.1


def test_unrolled_and_whole_reductions_move_the_same_time_without_latency():
    # gradients reduced layer by layer under the last backward pass, or at the end: less exposed, same bytes
    stack = calm()
    together, apart = (
        predict(gpt(num_layers=8), MACHINE,
                plan(data=8, overlap=replace(NO_OVERLAP, data_gradients=on)), stack=stack)
        for on in (False, True)
    )  # fmt: skip
    row = "exposed gradient reduction data"
    assert apart.breakdown_s[row] < together.breakdown_s[row]
    assert apart.step_time_s < together.step_time_s


def test_collectives_of_different_groups_have_streams_of_their_own():
    program = lower(moe(), plan(data=4, expert=4, zero_stage=3), load_stack("megatron-core"))
    streams = {op.stream for _, op in program.backward[0][0].operations()}
    assert streams == {Stream.COMPUTE, Stream.GATHER, Stream.SCATTER, Stream.EXPERT}


def test_bound_alone_needs_no_engine():
    the_plan = plan(tensor_x=2, data=2, micro_batches=2)
    machine, stack = load_machine(MACHINE), calm()
    prediction = predict(gpt(), machine, the_plan, stack=stack)
    assert bound(gpt(), machine, the_plan, stack) == prediction.bound_s


def test_collectives_that_wait_for_their_chunk_make_a_short_interleaved_step_longer() -> None:
    # --align-grad-reduce of Megatron-LM, on by default; torchtitan's FSDP has nothing of the kind
    aligned = stack_with("megatron-core")
    assert aligned.communication.collectives_by_chunk
    assert not stack_with("torchtitan").communication.collectives_by_chunk
    layerwise = stack_with("megatron-core", communication={"collectives_by_chunk": False})
    the_plan = plan(pipeline=4, virtual_stages=2, data=8, micro_batches=4, zero_stage=1)
    model = gpt(hidden=2048, num_layers=16)
    by_chunk, by_layer = (
        predict(model, "perlmutter", the_plan, stack=stack).step_time_s for stack in (aligned, layerwise)
    )
    assert by_layer < by_chunk < 1.5 * by_layer
    one_stage = plan(data=32, micro_batches=4, zero_stage=1)
    assert predict(model, "perlmutter", one_stage, stack=aligned).step_time_s == pytest.approx(
        predict(model, "perlmutter", one_stage, stack=layerwise).step_time_s, rel=1e-12
    )
