"""Collectives of a device that share its network interfaces: fluid sharing by hand."""

import numpy as np
import pytest
from lowered import gpt, plan, stack_with

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.block_graph import block_graph
from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.graph import Contention, GraphStructure, Timeline
from towtank.simulator.predict import predict
from towtank.simulator.program import lower
from towtank.simulator.shared_interfaces import families_of, overlap_s, timeline_of


def structure(streams: list[int]) -> GraphStructure:
    """Tasks without dependencies on three streams of communication."""
    return GraphStructure(
        stream=np.array(streams, np.int32),
        predecessor_offset=np.zeros(len(streams) + 1, np.int64),
        predecessor=np.zeros(0, np.int32),
        order=np.arange(len(streams), dtype=np.int32),
        device=np.zeros(3, np.int32),
        communicates=np.array([True, True, True]),
    )


def finishes(streams: list[int], alone: list[float], engine=evaluate) -> list[float]:
    tasks = np.array(streams)
    families = tuple(np.flatnonzero(tasks == number) for number in sorted(set(streams)))
    timeline = timeline_of(structure(streams), np.array(alone), families, engine, Contention())
    return timeline.finish_s.tolist()


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_two_of_equal_length_take_twice_as_long(engine) -> None:
    assert finishes([0, 1], [1.0, 1.0], engine) == pytest.approx([2.0, 2.0], rel=0.01)


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_the_longer_one_goes_on_at_full_rate(engine) -> None:
    # both at half rate until 2, when the short one has its 1; the long one has 2 left
    assert finishes([0, 1], [1.0, 3.0], engine) == pytest.approx([2.0, 4.0], rel=0.01)


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_three_at_once_have_a_third_each(engine) -> None:
    assert finishes([0, 1, 2], [1.0, 1.0, 1.0], engine) == pytest.approx([3.0, 3.0, 3.0], rel=0.01)
    # thirds until 3, halves until 5, and the longest has the last second to itself
    assert finishes([0, 1, 2], [1.0, 2.0, 3.0], engine) == pytest.approx([3.0, 5.0, 6.0], rel=0.01)


def test_work_is_conserved_where_interfaces_are_never_idle() -> None:
    assert max(finishes([0, 0, 1, 0, 1], [1.0, 2.0, 2.5, 0.5, 4.0])) == pytest.approx(10.0, rel=0.01)


def test_overlap_of_intervals() -> None:
    start, finish = np.array([0.0, 2.0, 1.0, 5.0]), np.array([1.5, 4.0, 3.0, 6.0])
    timeline = Timeline(start, finish, np.zeros(4, np.int32))
    # [1, 3] and [5, 6] against [0, 1.5] and [2, 4]
    assert overlap_s(np.array([2, 3]), np.array([0, 1]), timeline) == pytest.approx([0.5 + 1.0, 0.0])
    assert overlap_s(np.array([0, 1]), np.array([2, 3]), timeline) == pytest.approx([0.5, 1.0])


def families(machine: str, stack: str = "axonn", **degrees: int) -> int:
    the_plan = plan(recompute="full", micro_batch=1, **degrees)
    program = lower(gpt(), the_plan, stack_with(stack))
    cost = CostModel(load_machine(machine), the_plan, stack_with(stack))
    return len(families_of(block_graph(program.backward[0][0]), cost))


def test_only_groups_that_leave_the_node_share() -> None:
    # a node of Perlmutter has four devices
    assert families("perlmutter", tensor_x=4, tensor_z=4) == 0
    assert families("perlmutter", tensor_x=8, tensor_z=4) == 2
    assert families("perlmutter", tensor_x=8, tensor_z=1) == 0
    # gathers of weights beside scatters of gradients, and tensor collectives beside both
    assert families("perlmutter", "torchtitan", data=16, zero_stage=3) == 2
    assert families("perlmutter", "torchtitan", data=4, zero_stage=3) == 0
    assert families("perlmutter", "torchtitan", data=4, tensor_x=8, zero_stage=3) == 3


def test_a_step_whose_tensor_groups_leave_the_node_is_longer_than_its_queues_alone(monkeypatch) -> None:
    model = gpt(hidden=4096, num_layers=4, attention=gpt().attention)
    the_plan = plan(tensor_x=8, tensor_z=16, recompute="full", micro_batch=8)
    shared = predict(model, "perlmutter", the_plan, stack="axonn").step_time_s
    monkeypatch.setattr("towtank.simulator.block_time.families_of", lambda graph, cost: ())
    alone = predict(model, "perlmutter", the_plan, stack="axonn").step_time_s
    assert alone < shared < 2 * alone


def test_an_empty_block_has_nothing_to_share() -> None:
    the_plan = plan(tensor_x=2, pipeline=4, micro_batches=4, stage_layers=(0, 2, 2, 0))
    assert predict(gpt(), "perlmutter", the_plan).step_time_s > 0


def test_axes_of_a_torus_do_not_share() -> None:
    assert load_machine("tpu-v5p-pod").network.topology == "torus"
    assert families("tpu-v5p-pod", tensor_x=8, tensor_z=4) == 0
