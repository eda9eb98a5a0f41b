"""Layers that keep their gathered weights for recomputation: messages, memory and rules by hand."""

import pytest
from lowered import HIDDEN, LAYERS, gpt, layer_operations, messages, plan

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.memory import stage_memories
from towtank.simulator.operations import Phase
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

LINEAR = 12 * HIDDEN**2
"""Weights of the linear layers of one layer."""


def gathers(cached: int, layer: int) -> int:
    the_plan = plan(tensor_z=4, recompute="full", cached_layers=cached)
    sent = messages(layer_operations(gpt(), the_plan, load_stack("axonn"), layer=layer))
    return sum(count for (collective, _, _), count in sent.items() if collective == "all-gather")


def test_a_cached_layer_is_gathered_in_the_forward_pass_only() -> None:
    # four linear layers, twice without the cache; layers 0 and 1 are cached
    assert [gathers(0, 1), gathers(2, 1), gathers(2, 2)] == [8, 4, 8]
    the_plan = plan(tensor_z=4, recompute="full", cached_layers=2)
    again = [
        each
        for each in layer_operations(gpt(), the_plan, load_stack("axonn"))
        if each.phase is Phase.RECOMPUTE and "all-gather" in each.name
    ]
    assert again == []


def test_reductions_of_gradients_stay_as_they_are() -> None:
    sent = [
        messages(
            layer_operations(gpt(), plan(tensor_z=4, recompute="full", cached_layers=c), load_stack("axonn"))
        )
        for c in (0, 4)
    ]
    scattered = [{k: v for k, v in each.items() if k[0] == "reduce-scatter"} for each in sent]
    assert scattered[0] == scattered[1] != {}


def test_each_cached_layer_costs_its_weights_in_memory() -> None:
    def gathered(cached: int) -> float:
        the_plan = plan(tensor_x=2, tensor_z=4, recompute="full", cached_layers=cached)
        (memory,) = stage_memories(lower(gpt(), the_plan, load_stack("axonn")))
        return memory.parts["gathered weights"]

    # two bytes a weight, over x; norms (2 h) are counted with their layer
    assert gathered(3) - gathered(2) == pytest.approx(2 * (LINEAR / 2 + 2 * HIDDEN))
    assert gathered(LAYERS + 5) == gathered(LAYERS)


@pytest.mark.parametrize(
    ("the_plan", "stack", "words"),
    [
        (Plan(tensor_z=2, global_batch=2, recompute="full", cached_layers=-1), "axonn", "must be 0 or more"),
        (Plan(tensor_z=2, global_batch=2, cached_layers=1), "axonn", "needs recompute = full"),
        (
            Plan(data=2, global_batch=2, zero_stage=3, recompute="full", cached_layers=1),
            "torchtitan",
            "torchtitan gathers by layer",
        ),
    ],
)
def test_rules(the_plan: Plan, stack: str, words: str) -> None:
    (fault,) = faults_of(gpt(), load_machine("perlmutter"), the_plan, load_stack(stack))
    assert words in fault
