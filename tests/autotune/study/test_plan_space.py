"""What is changed on a plan, against splits worked out by hand."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.autotune.constraints import Constraints
from towtank.autotune.space.canonical import canonical
from towtank.autotune.study.plan_objective import PlanObjective, plan_of_name
from towtank.autotune.study.plan_space import default_layers, move_layers, plan_space
from towtank.autotune.study.records import Choice, Outcome, RefusedError, Settings, Whole
from towtank.autotune.study.session import create_or_continue
from towtank.autotune.study.storage import MEMORY
from towtank.autotune.study.work import work
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack

MODEL, MACHINE, STACK = load_model("llama3-8b"), load_machine("dgx-h100:nodes=4"), load_stack("megatron-core")
EVEN = Plan(
    tensor_x=2, pipeline=4, data=4, sequence_parallel=True, global_batch=64, recompute="full"
)  # 32 layers: 8 a stage


def task(constraints: Constraints | None = None) -> TuningTask:
    return TuningTask(MODEL, MACHINE, STACK, 32, 64, constraints=constraints or Constraints())


@pytest.mark.parametrize(
    ("first", "last", "slope", "split"),
    [
        (0, 0, 0, (8, 8, 8, 8)),
        (0, 2, 0, (8, 9, 9, 6)),
        (2, 0, 0, (6, 9, 9, 8)),
        (-2, 0, 0, (10, 7, 7, 8)),
        (1, 3, 0, (7, 10, 10, 5)),
        (0, 0, 6, (5, 7, 9, 11)),
        (0, 0, -6, (11, 9, 7, 5)),
        (0, 1, 0, (8, 9, 8, 7)),  # 8, 8.5, 8.5, 7: of equal remainders the first gets the layer
    ],
)
def test_layers_move_as_by_hand(first: int, last: int, slope: int, split: tuple[int, ...]) -> None:
    assert move_layers((8, 8, 8, 8), first, last, slope) == split


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=9).filter(any),
    st.integers(-8, 8),
    st.integers(-8, 8),
    st.integers(-8, 8),
)
def test_no_layer_is_lost_or_made(counts: list[int], first: int, last: int, slope: int) -> None:
    moved = move_layers(tuple(counts), first, last, slope)
    assert sum(moved) == sum(counts)
    assert len(moved) == len(counts)
    assert min(moved) >= 0


def test_the_usual_split_is_that_of_the_stack() -> None:
    assert default_layers(MODEL, STACK, EVEN) == (8, 8, 8, 8)
    assert default_layers(MODEL, STACK, replace(EVEN, virtual_stages=2)) == (4,) * 8


def test_a_start_is_the_plan_itself() -> None:
    other = replace(EVEN, recompute_every=2, overlap=Overlap(tensor=True), stage_layers=(9, 8, 8, 7))
    space = plan_space(MODEL, MACHINE, STACK, [EVEN, other])
    assert [space.plan(space.start(index)) for index in (0, 1)] == [EVEN, other]


def test_the_best_plan_comes_first_then_what_is_next_to_it() -> None:
    other = replace(EVEN, micro_batch=2)
    seeds = PlanObjective(task(), [EVEN, other]).seeds
    space = plan_space(MODEL, MACHINE, STACK, [EVEN, other])
    assert (space.plan(seeds[0]), space.plan(seeds[-1])) == (EVEN, other)
    splits = [space.plan(seed).stage_layers for seed in seeds]
    assert [split for split in splits if split is not None][:4] == [
        (7, 9, 8, 8), (6, 9, 9, 8), (9, 8, 7, 8), (10, 7, 7, 8)
    ]  # fmt: skip
    assert (8, 9, 8, 7) in splits


def test_each_parameter_does_what_its_name_says() -> None:
    space = plan_space(MODEL, MACHINE, STACK, [EVEN])
    start = space.start(0)
    assert space.plan({**start, "layers.last": 2}).stage_layers == (8, 9, 9, 6)
    assert space.plan({**start, "recompute_every": 3}).recompute_every == 3
    without = space.plan({**start, "recompute": "none", "recompute_every": 3})
    assert (without.recompute, without.recompute_every) == ("none", 1)
    assert space.plan({**start, "overlap.tensor": True}).overlap == Overlap(tensor=True)
    # the stack overlaps sends by itself: saying so changes nothing
    assert space.plan({**start, "overlap.pipeline": True}) == EVEN
    assert space.plan({**start, "overlap.pipeline": False}).overlap == Overlap(pipeline=False)
    # 2^(number - 1) million weights; 0 leaves the plan's own
    assert space.plan({**start, "gradient_bucket": 1}).gradient_bucket == 1_000_000
    assert space.plan({**start, "gradient_bucket": 6}).gradient_bucket == 32_000_000
    order = space.plan({**start, "rank_order": "data,tensor_x,pipeline"}).rank_order
    assert order == ("data", "tensor_x", "pipeline", "tensor_y", "context", "tensor_z")


def test_what_changes_no_plan_is_no_parameter() -> None:
    parameters = plan_space(MODEL, MACHINE, STACK, [EVEN]).parameters
    assert "overlap.tensor" in parameters
    assert "overlap.expert" not in parameters  # no experts
    assert "overlap.all_gather" not in parameters  # no sharded weights
    assert parameters["overlap.pipeline"] == Choice(("as it is", False))  # the stack has it on by itself


def test_what_the_stack_cannot_run_is_no_parameter() -> None:
    old = load_stack("megatron-2021")
    space = plan_space(MODEL, MACHINE, old, [EVEN])
    assert not [name for name in space.parameters if name.startswith("layers.")]  # stages of equal size
    assert "cached_layers" not in space.parameters  # it gathers whole layers
    axonn = load_stack("axonn")
    grid = Plan(tensor_x=4, tensor_z=8, global_batch=64, recompute="full")
    space = plan_space(MODEL, MACHINE, axonn, [grid])
    assert space.parameters["cached_layers"] == Whole(0, 32)
    assert space.plan({**space.start(0), "cached_layers": 5}).cached_layers == 5


def test_buckets_reach_from_the_smallest_to_all_weights_of_a_device() -> None:
    # 8.03 billion weights over tensor 2 x pipeline 4: 1,004 million; 2^10 million hold them
    assert plan_space(MODEL, MACHINE, STACK, [EVEN]).parameters["gradient_bucket"] == Whole(0, 11)
    sharded = replace(EVEN, pipeline=1, data=16, zero_stage=3)
    space = plan_space(MODEL, MACHINE, STACK, [sharded, EVEN])
    assert space.plan({**space.start(0), "gradient_bucket": 3}).gradient_bucket is None  # it sends layers
    assert space.plan({**space.start(1), "gradient_bucket": 3}).gradient_bucket == 4_000_000
    for plans, stack in (
        ([sharded], STACK),
        ([replace(EVEN, data=1, pipeline=16)], STACK),
        ([EVEN], load_stack("axonn")),
    ):
        assert "gradient_bucket" not in plan_space(MODEL, MACHINE, stack, plans).parameters


def test_what_is_fixed_is_no_parameter() -> None:
    fixed = {"recompute": ("full",), "overlap.tensor": (None,), "stage_layers": (None,)}
    parameters = plan_space(MODEL, MACHINE, STACK, [EVEN], Constraints(fixed=fixed)).parameters
    assert "recompute" not in parameters
    assert "overlap.tensor" not in parameters
    assert "overlap.pipeline" in parameters
    assert "layers.last" not in parameters


@cache
def two_plans() -> PlanObjective:
    return PlanObjective(task(), [EVEN, replace(EVEN, virtual_stages=2, micro_batch=2)])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_configuration_with_a_name_is_a_legal_plan(data: st.DataObject) -> None:
    objective = two_plans()
    parameters = {
        name: data.draw(
            st.sampled_from(parameter.values)
            if isinstance(parameter, Choice)
            else st.integers(parameter.least, parameter.most)  # type: ignore[union-attr]
        )
        for name, parameter in objective.space.items()
    }
    try:
        name = objective.name_of(parameters)
    except RefusedError:
        return
    plan = plan_of_name(name)
    assert plan == objective.plan(parameters) == canonical(MODEL, MACHINE, STACK, plan)
    assert faults_of(MODEL, MACHINE, plan, STACK, 32) == []


def test_constraints_hold_for_every_configuration() -> None:
    objective = PlanObjective(task(Constraints(most={"recompute_every": 2})), [EVEN])
    start = objective.seeds[0]
    assert objective.plan({**start, "recompute_every": 2}).recompute_every == 2
    with pytest.raises(RefusedError, match="recompute_every = 3, but it must be 2 or less"):
        objective.name_of({**start, "recompute_every": 3})


@pytest.mark.parametrize(
    "limits",
    [
        Constraints(fixed={"schedule": ("1f1b",)}),  # the plan does not name its schedule
        Constraints(least={"data_shard": 2}),  # nor its shards, which are all of data
        Constraints(fixed={"overlap.data_gradients": (True,), "data_shard": (4,)}),
    ],
)
def test_constraints_are_kept_by_what_is_in_force(limits: Constraints) -> None:
    sharded = replace(EVEN, zero_stage=1)
    objective = PlanObjective(task(limits), [sharded])
    start = objective.seeds[0]
    assert objective.plan(start) == canonical(MODEL, MACHINE, STACK, sharded)
    with pytest.raises(RefusedError, match="data_shard = 1, but it must be 2 or more"):
        PlanObjective(task(Constraints(least={"data_shard": 2})), [EVEN]).name_of(start)


def test_an_evaluation_is_the_prediction() -> None:
    objective = PlanObjective(task(), [EVEN], ("step_time", "headroom", "energy"))
    uneven = {**objective.seeds[0], "layers.last": 1}
    outcome = objective.evaluate(uneven)
    expected = predict(MODEL, MACHINE, replace(EVEN, stage_layers=(8, 9, 8, 7)), stack=STACK)
    # without energy the step goes through the fast path
    fast = PlanObjective(task(), [EVEN], ("step_time", "headroom")).evaluate(uneven)
    assert fast == Outcome(outcome.values[:2], outcome.constraints)
    assert outcome.values[0] == expected.step_time_s
    assert outcome.values[1] == expected.memory_capacity_bytes - expected.peak_memory_bytes
    assert outcome.constraints == {"memory": expected.peak_memory_bytes - expected.memory_capacity_bytes}


def test_an_uneven_split_beats_the_even_one() -> None:
    # the head of 128,256 words is worth more than a layer: the last stage should hold fewer
    fixed = {f"overlap.{name}": (None,) for name in Overlap.__dataclass_fields__}
    fixed |= {"rank_order": (EVEN.rank_order,), "recompute": ("full",), "recompute_every": (1,)}
    fixed["gradient_bucket"] = (None,)
    objective = PlanObjective(task(Constraints(fixed=fixed)), [EVEN])
    assert set(objective.space) == {"plan", "layers.first", "layers.last", "layers.slope"}
    opened = create_or_continue(MEMORY, "split", objective, Settings(20, "random"))
    best = work(opened, objective).best[0]
    found, even = plan_of_name(best.name), predict(MODEL, MACHINE, EVEN, stack=STACK).step_time_s
    assert found.stage_layers is not None
    assert found.stage_layers[-1] < 8
    assert best.outcome.values[0] < 0.98 * even
