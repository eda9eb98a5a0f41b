"""Whatever machine and stack are shipped: a step on them can be predicted and is consistent."""

import pytest

from towtank import Plan, load_machine, load_stack, predict
from towtank.hardware_profiles.load import list_machines
from towtank.simulator.stacks.load import list_stacks

pytestmark = pytest.mark.slow
MODEL = "llama-2-7b"


def _plan(machine_name: str, stack: str) -> Plan:
    """Two nodes of data-parallel replicas, in the first precision that both sides know."""
    machine = load_machine(machine_name)
    both = set(load_stack(stack).supports.precisions) & set(machine.device.peak_flop_per_s)
    precision = next(name for name in ("bf16", "fp16", "fp32") if name in both)
    devices = 2 * machine.node.devices
    return Plan(data=devices, global_batch=4 * devices, precision=precision, recompute="full")


@pytest.mark.parametrize("stack", list_stacks())
@pytest.mark.parametrize("machine", list_machines())
def test_a_step_adds_up(machine: str, stack: str) -> None:
    step = predict(MODEL, machine, _plan(machine, stack), stack=stack)
    assert 0 < step.bound_s <= step.step_time_s
    assert sum(step.breakdown_s.values()) == pytest.approx(step.step_time_s, rel=1e-9)
    assert 0 < step.mfu <= step.hfu < 1
    # Adam without sharding: weights, gradients, master weights and two moments are 16 bytes a parameter or more
    assert step.peak_memory_bytes > 16 * 6.7e9
