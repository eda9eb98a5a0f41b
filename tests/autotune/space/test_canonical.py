"""Plans that are the same by another name: one canonical plan, with the same step and the same memory."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import STACKS, cases

from towtank.autotune.space.canonical import canonical
from towtank.autotune.space.dimensions import rank_orders
from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Machine
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack

_SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

Case = tuple[ModelSpec, Machine, Plan, Stack]


def _network(machine: Machine, kind: str) -> Machine:
    """The machine with small groups in its network, so that small jobs leave them."""
    if kind == "as it is":
        return machine
    slower = 0.5 if kind == "slower between groups" else None
    network = replace(
        machine.network, topology="dragonfly", group_nodes=1, group_crossing=slower, taper=0.5, groups=16,
        group_links=None,
    )  # fmt: skip
    return replace(machine, network=network)


@st.composite
def legal_cases(draw: st.DrawFn) -> Case:
    """Like `cases`, with all stacks, rank orders, schedules, and machines whose network has small groups."""
    model, machine_name, plan, stack = draw(cases())
    if draw(st.booleans()):
        stack = load_stack(draw(st.sampled_from(("any", *STACKS))))
    machine = load_machine(machine_name)
    kinds = ("as it is", "slower between groups", "shared cables between groups")
    machine = _network(machine, draw(st.sampled_from(kinds)))
    changes: dict[str, object] = {"rank_order": draw(st.sampled_from(rank_orders(stack)[:40]))}
    if plan.virtual_stages == 1:
        changes["schedule"] = draw(st.sampled_from([None, "1f1b", "gpipe"]))
    if draw(st.booleans()):
        changes["tensor_z"] = draw(st.sampled_from([2, 4, 3]))
    if draw(st.booleans()):
        changes["data"] = draw(st.sampled_from([1, 2, 3, 8]))
        changes["data_shard"] = None
    changed = replace(plan, **changes)
    batch = changed.micro_batch * changed.data * changed.tensor_z * draw(st.sampled_from([1, 2, 4]))
    changed = replace(changed, global_batch=batch)
    if faults_of(model, machine, changed, stack):
        changed = plan
    if faults_of(model, machine, changed, stack):
        changed = Plan(global_batch=2)
    return model, machine, changed, stack


@_SETTINGS
@given(legal_cases())
def test_the_canonical_plan_is_legal_and_takes_as_long_in_as_much_memory(case: Case) -> None:
    model, machine, plan, stack = case
    name = canonical(model, machine, stack, plan)
    assert faults_of(model, machine, name, stack, plan.num_devices) == []
    mine, other = (predict(model, machine, each, stack=stack) for each in (plan, name))
    assert other.step_time_s == pytest.approx(mine.step_time_s, rel=1e-9)
    assert other.peak_memory_bytes == pytest.approx(mine.peak_memory_bytes, rel=1e-9)


@_SETTINGS
@given(legal_cases())
def test_a_canonical_plan_is_its_own_name(case: Case) -> None:
    model, machine, plan, stack = case
    name = canonical(model, machine, stack, plan)
    assert canonical(model, machine, stack, name) == name
