"""What must hold for every step, whatever model, machine, plan and stack."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ZOO, cases, legal

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.cost.model import CostModel
from towtank.simulator.groups import group_size
from towtank.simulator.models.load import load_model
from towtank.simulator.operations import Message, Stream
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack


@cache
def machine_of(name):
    """A machine with every device of the plan: its size does not matter here."""
    return replace(load_machine(name), num_nodes=None)


def calm(stack):
    """The stack without slow-down of kernels beside collectives."""
    return replace(stack, fitted=replace(stack.fitted, compute_slowdown=0.0))


def run(case, **changes):
    model, machine, plan, stack = case
    return predict(model, machine_of(machine), plan, stack=calm(stack), **changes)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_bound_holds_and_the_engines_agree(case):
    compiled, reference = run(case), run(case, engine="simpy")
    assert compiled.step_time_s == pytest.approx(reference.step_time_s, rel=1e-9)
    assert compiled.bound_s <= compiled.step_time_s * (1 + 1e-12)
    assert compiled.bound_s > 0


@settings(max_examples=60, deadline=None)
@given(cases())
def test_breakdown_accounts_for_every_second(case):
    prediction = predict(case[0], machine_of(case[1]), case[2], stack=case[3])
    assert sum(prediction.breakdown_s.values()) == pytest.approx(prediction.step_time_s, rel=1e-9)
    assert all(seconds > 0 for seconds in prediction.breakdown_s.values())
    exposed = sum(operation.exposed_s for operation in prediction.record().operations)
    assert exposed <= prediction.step_time_s * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_same_question_same_bits(case):
    model, machine, plan, stack = case
    again = predict(replace(model), machine_of(machine), replace(plan), stack=replace(calm(stack)))
    first = run(case)
    assert first.step_time_s.hex() == again.step_time_s.hex()
    assert dict(first.breakdown_s) == dict(again.breakdown_s)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_step_is_no_longer_than_everything_in_a_row(case):
    """All blocks, messages and ends one after the other bound the step from above."""
    _, machine, plan, stack = case
    prediction = run(case)
    step, cost = prediction.step, CostModel(machine_of(machine), plan, calm(stack))
    host, members = stack.host, plan.tensor_x * plan.tensor_y
    host_s = host.tensor_call_s if plan.pipeline == 1 else host.tensor_call_in_pipeline_s * members
    serial = 0.0
    for blocks in (step.program.forward, step.program.backward):
        for stage in blocks:
            for block in stage:
                work = sum(cost.duration_s(operation.work) for _, operation in block.operations())
                calls = sum(operation.stream is Stream.TENSOR for _, operation in block.operations())
                serial += max(work, calls * host_s) * plan.num_micro_batches
    others = step.graph.duration_s[step.program.pipeline.role > 1].sum()
    assert prediction.step_time_s <= (serial + others) * (1 + 1e-9)


def faster(machine, *, bandwidth=1.0, latency=1.0):
    """The machine with links and memory so many times as fast and start-ups so many times as long."""
    node, network, device = machine.node, machine.network, machine.device

    def times(value, factor):
        return None if value is None else value * factor

    return replace(
        machine,
        device=replace(
            device, memory_bandwidth_bytes_per_s=times(device.memory_bandwidth_bytes_per_s, bandwidth)
        ),
        node=replace(
            node,
            pair_bandwidth_max_bytes_per_s=times(node.pair_bandwidth_max_bytes_per_s, bandwidth),
            pair_bandwidth_min_bytes_per_s=times(node.pair_bandwidth_min_bytes_per_s, bandwidth),
            device_bandwidth_bytes_per_s=times(node.device_bandwidth_bytes_per_s, bandwidth),
            injection_bytes_per_s=times(node.injection_bytes_per_s, bandwidth),
            latency_s=times(node.latency_s, latency),
            latency_ll128_s=times(node.latency_ll128_s, latency),
        ),
        network=replace(
            network,
            latency_s=times(network.latency_s, latency),
            latency_ll128_s=times(network.latency_ll128_s, latency),
        ),
    )


@settings(max_examples=40, deadline=None)
@given(cases(), st.floats(1, 8), st.floats(0.1, 1))
def test_better_links_are_never_slower(case, bandwidth, latency):
    model, machine, plan, stack = case
    base = machine_of(machine)
    # a name of its own: costs are cached by machine, which compares all figures
    times = [
        predict(model, each, plan, stack=calm(stack)).step_time_s
        for each in (base, faster(base, bandwidth=bandwidth), faster(base, latency=latency))
    ]
    assert times[1] <= times[0] * (1 + 1e-9)
    assert times[2] <= times[0] * (1 + 1e-9)


COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "send", "broadcast")


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(COLLECTIVES), st.floats(1, 1e9), st.floats(1, 16))
def test_fewer_bytes_are_never_slower(case, collective, size, factor):
    _, machine, plan, stack = case
    cost = CostModel(machine_of(machine), plan, stack)
    for group in ("tensor_x", "data", "weight_shard", "pipeline"):
        small = cost.duration_s(Message(collective, group, size))
        large = cost.duration_s(Message(collective, group, size * factor))
        assert 0 <= small <= large * (1 + 1e-12)
        assert (small > 0) == (group_size(plan, group) > 1)


def passes_s(prediction):
    """Seconds of forward and backward block of the only stage."""
    step = prediction.step
    return sum(times[0][0].makespan_s for times in (step.forward, step.backward))


@pytest.mark.parametrize(
    "stack, plan",
    [
        ("megatron-core", Plan(tensor_x=4)),
        ("megatron-core", Plan(tensor_x=4, sequence_parallel=True, recompute="full")),
        ("axonn", Plan(tensor_x=2, tensor_y=2, tensor_z=2)),
        ("torchtitan", Plan(data=8, zero_stage=3, recompute="full")),
    ],
)
def test_each_further_layer_takes_as_long(stack, plan):
    model = load_model("tiny-llama")
    batch = plan.micro_batch * plan.data * plan.tensor_z
    times = [
        passes_s(
            predict(
                replace(model, num_layers=layers), "perlmutter", replace(plan, global_batch=batch),
                stack=calm(load_stack(stack)),
            )
        )
        for layers in (8, 16, 32)
    ]  # fmt: skip
    # without the ends: twice the layers take twice the time
    assert times[2] - times[1] == pytest.approx(2 * (times[1] - times[0]), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(cases(of=ZOO))
def test_a_larger_batch_takes_longer_and_loses_no_throughput(case):
    model, machine, plan, stack = case
    doubled = replace(plan, global_batch=2 * plan.global_batch)
    if not legal(model, machine, doubled, stack):
        return
    first, second = run(case), run((model, machine, doubled, stack))
    assert second.step_time_s > first.step_time_s
    assert second.tokens_per_s >= first.tokens_per_s * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(cases(of=ZOO), st.sampled_from(sorted(Overlap.__dataclass_fields__)))
def test_an_overlap_never_slows_a_step_without_contention(case, name):
    model, machine, plan, stack = case
    if name not in stack.supports.overlaps or name == "tensor":
        return  # `tensor` sends in parts, each with a start-up
    if name == "expert" and plan.expert > 1:
        return  # two micro-batches beside each other take twice the launches (OVERLAPPED_LAUNCHES)
    off, on = (replace(plan, overlap=replace(plan.overlap, **{name: wish})) for wish in (False, True))
    times = [run((model, machine, each, stack)).step_time_s for each in (off, on)]
    assert times[1] <= times[0] * (1 + 1e-6)


@settings(max_examples=30, deadline=None)
@given(cases(), st.floats(0, 0.5))
def test_contention_slows_by_no_more_than_its_factor(case, slowdown):
    model, machine, plan, stack = case
    slowed = replace(stack, fitted=replace(stack.fitted, compute_slowdown=slowdown))
    base = run(case).step_time_s
    longest = base * (1 + slowdown) * (1 + 1e-9)
    assert base * (1 - 1e-9) <= predict(model, machine_of(machine), plan, stack=slowed).step_time_s <= longest
