"""Orders of ranks that a stack can run."""

from dataclasses import replace

import pytest

from towtank.simulator.plan import DEFAULT_RANK_ORDER, Plan
from towtank.simulator.stacks.load import list_stacks, load_stack
from towtank.simulator.stacks.rules import stack_faults

STAGES_INSIDE = ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data")
PLAN = Plan(tensor_x=2, data=2, pipeline=2, global_batch=4)


def test_megatron_core_has_stages_outside_or_inside_of_data() -> None:
    core, early = load_stack("megatron-core"), load_stack("megatron-2021")
    assert stack_faults(core, PLAN) == []
    assert stack_faults(core, replace(PLAN, rank_order=STAGES_INSIDE)) == []
    (fault,) = stack_faults(early, replace(PLAN, rank_order=STAGES_INSIDE))
    assert "megatron-2021 cannot run rank_order = [tensor_y, tensor_x, context, pipeline" in fault


@pytest.mark.parametrize("name", list_stacks())
def test_every_stack_has_the_usual_order(name: str) -> None:
    stack = load_stack(name)
    supports = stack.supports.rank_orders
    assert supports == "all" or DEFAULT_RANK_ORDER in supports


def test_dimensions_of_one_device_have_no_place_in_an_order() -> None:
    stack = load_stack("megatron-2021")
    turned = tuple(reversed(DEFAULT_RANK_ORDER))
    assert stack_faults(stack, Plan(data=4, global_batch=4, rank_order=turned)) == []
    assert len(stack_faults(stack, replace(PLAN, rank_order=turned))) == 1


def test_a_stack_of_all_orders_refuses_none() -> None:
    assert (
        stack_faults(load_stack("any"), replace(PLAN, rank_order=tuple(reversed(DEFAULT_RANK_ORDER)))) == []
    )
