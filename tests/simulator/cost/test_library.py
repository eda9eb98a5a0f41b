"""The collective library of a machine decides which algorithms the collectives of a step have."""

from dataclasses import replace

import pytest

from towtank import Plan, load_machine, load_stack
from towtank.simulator.cost.collectives import phased, ring, tree
from towtank.simulator.cost.links import links_of
from towtank.simulator.cost.model import CostModel, library_algorithms
from towtank.simulator.operations import Message

PLAN = Plan(data=96, global_batch=96)
SMALL = 64e3


def seconds(machine_name: str, collective: str, num_bytes: float = SMALL) -> float:
    cost = CostModel(load_machine(machine_name), PLAN, load_stack("torchtitan"))
    return cost.duration_s(Message(collective, "data", num_bytes))


def test_a_gather_on_aurora_has_two_phases() -> None:
    machine = load_machine("aurora:nodes=8")
    placement = CostModel(machine, PLAN, load_stack("torchtitan")).placement("data")
    (links,) = links_of(machine, placement, num_devices=96)
    assert (links.nodes, links.local) == (8, 12)
    for num_bytes in (SMALL, 1e9):
        expected = phased("all-gather", num_bytes, 96, links)
        assert seconds("aurora:nodes=8", "all-gather", num_bytes) == pytest.approx(expected)
    # of a small one its steps are left: 7 of 80 us between nodes, 11 of 3.6 us inside
    assert seconds("aurora:nodes=8", "all-gather", 8.0) == pytest.approx(7 * 80e-6 + 11 * 3.6e-6, rel=1e-3)


@pytest.mark.parametrize(
    ("machine_name", "has_tree"), [("dgx-h100:nodes=12", True), ("aws-p5-h100:nodes=12", False)]
)
def test_small_all_reduces_take_a_tree_where_the_library_has_one(machine_name: str, has_tree: bool) -> None:
    machine, stack = load_machine(machine_name), load_stack("torchtitan")
    placement = CostModel(machine, PLAN, stack).placement("data")
    # without the efficiency of the stack, which is 1 here
    assert stack.fitted.network_efficiency == 1.0
    every = links_of(machine, placement, num_devices=96)
    rings = min(ring("all-reduce", SMALL, 96, links) for links in every)
    trees = min(tree(SMALL, links) for links in every)
    assert trees < rings
    assert seconds(machine_name, "all-reduce") == pytest.approx(trees if has_tree else rings)


def test_algorithms_are_those_of_the_stack_where_no_library_is_known() -> None:
    machine = load_machine("tpu-v5p-pod")
    assert library_algorithms(machine) == {}
    assert "tree" not in library_algorithms(load_machine("aws-p5-h100"))["all_reduce"]
    unknown = replace(
        load_machine("dgx-h100"), device=replace(load_machine("dgx-h100").device, vendor="Nobody")
    )
    assert library_algorithms(unknown) == {}
