"""A step whose collectives are flows: equal to the plain engine alone, near the compiled one where they share."""

from dataclasses import replace

import numpy as np
import pytest

from towtank import Plan, load_machine, load_model, load_stack, predict
from towtank.hardware_profiles.errors import UnknownFigure
from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.lowering.weights import gradient_messages, stage_weights
from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.folding import paced
from towtank.simulator.network.placement import Placed
from towtank.simulator.network.routes import from_entries
from towtank.simulator.network.surroundings import Surroundings
from towtank.simulator.operations import Message
from towtank.simulator.predict import EngineName
from towtank.simulator.program import lower
from towtank.simulator.step import time_step
from towtank.simulator.step_flows import StepFlows

AXONN = Plan(
    rank_order=("tensor_y", "tensor_x", "context", "tensor_z", "data", "pipeline"),
    recompute="full",
    precision="bf16",
)


@pytest.mark.parametrize(
    ("machine", "stack", "plan"),
    [
        ("selene", "megatron-2021", Plan(tensor_x=8, pipeline=4, data=4, global_batch=64, precision="fp16")),
        ("selene", "megatron-2021", Plan(tensor_x=16, pipeline=2, data=4, global_batch=16)),
        ("dgx-h100:nodes=8", "megatron-core", Plan(tensor_x=4, context=8, data=2, global_batch=16)),
        ("frontier", "axonn", replace(AXONN, tensor_y=8, tensor_z=4, data=8, global_batch=64)),
        ("dgx-a100", "torchtitan", Plan(tensor_x=2, data=4, zero_stage=3, global_batch=8)),
    ],
)
def test_without_sharing_it_is_the_plain_engine(machine: str, stack: str, plan: Plan) -> None:
    plain, flows = (
        predict("llama-2-70b", machine, plan, stack=stack, engine=engine) for engine in ("simpy", "flows")
    )
    assert flows.step_time_s == pytest.approx(plain.step_time_s, rel=1e-9)
    assert sum(flows.breakdown_s.values()) == pytest.approx(flows.step_time_s, rel=1e-9)


GRIDS = [(8, 2, 64, 32), (2, 8, 32, 64)]


@pytest.mark.parametrize(("x", "y", "z", "data"), GRIDS)
def test_a_step_of_32768_gcds_is_near_the_compiled_engine(x: int, y: int, z: int, data: int) -> None:
    # tensor groups between nodes run beside gathers of weights on the same interfaces; 8 layers of the model
    model = replace(load_model("axonn-320b"), num_layers=8)
    plan = replace(AXONN, tensor_x=x, tensor_y=y, tensor_z=z, data=data, micro_batch=4, global_batch=8192)
    compiled, flows = (
        predict(model, "frontier", plan, stack="axonn", engine=engine) for engine in ("compiled", "flows")
    )
    assert compiled.step_time_s == pytest.approx(flows.step_time_s, rel=0.03)


@pytest.mark.parametrize("machine", ["dgx-h100:nodes=16", "polaris"])
def test_gathers_and_scatters_of_fsdp_share_in_both_engines(machine: str) -> None:
    # short sequences, so that weights take longer than compute; each queue alone would be a quarter faster
    plan = Plan(data=128, zero_stage=3, global_batch=128, micro_batch=1, sequence=512)
    model = replace(load_model("llama-2-70b"), num_layers=16)
    compiled, flows = (
        predict(model, machine, plan, stack="torchtitan", engine=engine) for engine in ("compiled", "flows")
    )
    assert compiled.step_time_s == pytest.approx(flows.step_time_s, rel=0.05)
    assert compiled.breakdown_s["exposed reduce-scatter weight_shard"] > 0


def cost_of(machine: str, plan: Plan, stack: str = "axonn") -> CostModel:
    return CostModel(load_machine(machine), plan, load_stack(stack), crossing=False)


def test_rings_of_symmetric_grids_fold_to_one_class_each() -> None:
    plan = replace(AXONN, tensor_x=2, tensor_y=8, tensor_z=32, data=64, global_batch=8192)
    flows = StepFlows(cost_of("frontier", plan))
    found = flows.flows([("tensor_x", 1), ("weight_shard", 2)], by_stage=False)
    assert [len(numbers) for numbers in found.of_lane.values()] == [1, 1]
    # what is left of 16,384 and 1,024 rings: one interface, two rings of 5 GB/s of each family on 25 x 0.4 GB/s
    assert found.classes.capacity_bytes_per_s == pytest.approx([10e9])
    assert [route.share.tolist() for route in found.classes.route] == [pytest.approx([2.0])] * 2
    assert found.classes.limit_bytes_per_s == pytest.approx([5e9, 5e9])


def test_latency_and_movement_are_the_whole_message() -> None:
    # 64 members on 64 nodes: 63 of 64 parts at 5 GB/s, 64 steps of 15.1 us
    plan = replace(AXONN, tensor_y=8, tensor_z=2, data=64, global_batch=128)
    cost = cost_of("frontier", plan)
    message = Message("reduce-scatter", "data", 1e9)
    assert cost.moving_s(message) == pytest.approx(63 / 64 * 1e9 / 5e9)
    assert cost.duration_s(message) - cost.moving_s(message) == pytest.approx(64 * 15.1e-6)
    assert cost.moving_s(Message("all-reduce", "tensor_y", 1e9)) == 0.0


def test_bytes_of_a_step_are_those_of_its_messages() -> None:
    # two data groups of 8 nodes a stage: every ring moves 2 (n - 1) / n of the gradients once
    plan = Plan(tensor_x=8, pipeline=2, data=8, micro_batch=1, global_batch=64, precision="bf16")
    machine, stack = load_machine("selene"), load_stack("megatron-2021")
    cost = CostModel(machine, plan, stack, crossing=False)
    flows = StepFlows(cost)
    program = lower(load_model("llama-2-7b"), plan, stack)
    step = time_step(program, cost, simulate, flows)
    reduced = [
        sum(
            message.bytes
            for message in gradient_messages(program.sizes, stage_weights(program.sizes, chunks))
        )
        for chunks in program.chunks
    ]
    assert len(reduced) == 2 and min(reduced) > 0
    assert flows.bytes_moved == pytest.approx(sum(reduced) * 2 * 7 / 8)
    # no ring meets another: eight on the eight interfaces of each node
    assert step.step_time_s == pytest.approx(time_step(program, cost, simulate).step_time_s, rel=1e-9)


def test_unknown_topology_is_told() -> None:
    plan = Plan(tensor_x=8, data=2, global_batch=16)
    selene = load_machine("selene")
    unknown = replace(selene, network=replace(selene.network, topology="unknown"))
    with pytest.raises(UnknownFigure, match=r"network.topology is unknown and the flows of a step"):
        predict("llama-2-7b", unknown, plan, stack="megatron-core", engine="flows")
    torus = replace(selene, network=replace(selene.network, topology="torus"))
    with pytest.raises(UnknownFigure, match="routes over a torus are unknown"):
        predict("llama-2-7b", torus, plan, stack="megatron-core", engine="flows")
    inside = replace(plan, data=1, global_batch=8)
    assert predict("llama-2-7b", unknown, inside, stack="megatron-core", engine="flows").step_time_s > 0


PLACES = {
    "scattered": Surroundings(Placed("scattered", 0.5, 1)),
    "scattered, busy": Surroundings(Placed("scattered", 0.5, 1), {"global": 0.8, "interface": 0.1}),
    "random, busy": Surroundings(Placed("random", 0.0, 3), {"global": 0.7}),
    "busy": Surroundings(background={"global": 0.8}),
}


@pytest.mark.parametrize(
    ("name", "grid"), [*((name, (1, 8, 64, 8)) for name in PLACES), ("random, busy", (2, 8, 16, 8))]
)
def test_surroundings_are_the_same_to_both_engines(name: str, grid: tuple[int, int, int, int]) -> None:
    around, (x, y, z, data) = PLACES[name], grid
    model = replace(load_model("axonn-40b"), num_layers=4)
    plan = replace(AXONN, tensor_x=x, tensor_y=y, tensor_z=z, data=data, global_batch=1024)
    usual = predict(model, "frontier", plan, stack="axonn").step_time_s
    compiled, flows = (
        predict(model, "frontier", plan, stack="axonn", engine=engine, surroundings=around).step_time_s
        for engine in ("compiled", "flows")
    )
    assert compiled == pytest.approx(flows, rel=0.03)
    assert compiled >= usual


@pytest.mark.parametrize("engine", ["compiled", "flows"])
def test_a_busy_interface_by_hand(engine: EngineName) -> None:
    # eight rings a node on 100 GB/s of which RCCL reaches 40 %; half of it taken by others, bytes take twice as long
    plan = Plan(tensor_x=8, data=8, global_batch=8, precision="bf16")
    quiet, busy = (
        predict(
            "llama-2-7b", "frontier", plan, stack="megatron-2021", engine=engine,
            surroundings=Surroundings(background={"interface": share}),
        )
        for share in (0.0, 0.5)
    )  # fmt: skip
    name = "exposed gradient reduction data"
    moved = cost_of("frontier", plan, "megatron-2021").ring_rate_bytes_per_s("data")
    assert moved == pytest.approx(5e9)
    longer = busy.breakdown_s[name] - quiet.breakdown_s[name]
    latency = quiet.breakdown_s[name] - longer
    assert 0 < latency < 0.01 * longer
    assert busy.step_time_s - quiet.step_time_s == pytest.approx(longer, rel=0.02)


@pytest.mark.parametrize("engine", ["compiled", "flows"])
def test_more_background_never_makes_a_step_faster(engine: EngineName) -> None:
    model = replace(load_model("axonn-40b"), num_layers=2)
    plan = replace(AXONN, tensor_y=8, tensor_z=64, data=4, global_batch=256)
    placed = Placed("scattered", 0.5, 1)
    steps = [
        predict(
            model, "frontier", plan, stack="axonn", engine=engine,
            surroundings=Surroundings(placed, {"global": share, "interface": share / 4}),
        ).step_time_s
        for share in (0.0, 0.4, 0.6, 0.95)
    ]  # fmt: skip
    assert steps == sorted(steps) and steps[-1] > 1.2 * steps[0]


def test_a_job_in_one_group_needs_no_taper() -> None:
    plan = Plan(tensor_x=4, data=64, global_batch=64)
    flows, compiled = (
        predict("llama-2-7b", "perlmutter", plan, engine=engine).step_time_s
        for engine in ("flows", "compiled")
    )
    assert flows == pytest.approx(compiled, rel=0.01)
    with pytest.raises(UnknownFigure, match=r"network.taper .* is unknown.*perlmutter:taper=0.5"):
        predict("llama-2-7b", "perlmutter", replace(plan, data=256, global_batch=256), engine="flows")
    tapered = predict(
        "llama-2-7b", "perlmutter:taper=0.5", replace(plan, data=256, global_batch=256), engine="flows"
    )
    assert "chosen by you" in " ".join(tapered.provenance)


def test_rings_at_one_pace_end_as_those_of_their_own() -> None:
    # three rings on two links: the second link has two of them and sets the pace of the family
    routes = from_entries(3, np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1]), np.array([1.0, 1.0, 2.0, 1.0]))
    capacity, merged = paced(np.array([10.0, 6.0]), routes, np.zeros(3, np.int64), 1)
    assert capacity.tolist() == [6.0] and merged.share.tolist() == [3.0]
    rates = max_min_rates(np.array([10.0, 6.0]), routes)
    assert rates.min() == pytest.approx(6 / 3)
