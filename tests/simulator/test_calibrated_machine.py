"""Predictions on a calibrated machine, by hand."""

import pytest
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.autotune.search.exact import tune
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.calibrated.machine import machine_of
from towtank.simulator.cost.calibrated import (
    STREAMED_BYTES,
    CalibratedCosts,
    elementwise_features,
    load_of,
    stack_on,
)
from towtank.simulator.cost.model import CostModel
from towtank.simulator.models.load import load_model
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Message
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack

MACHINE = machine_of(calibration())
STACK = load_stack("towtank-executor")


@pytest.mark.parametrize(
    ("plan", "load"),
    [
        (Plan(), 1.0),
        (Plan(data=4, global_batch=4), 4.0),
        (Plan(data=8, global_batch=8), 4.0),  # four devices a node
        (Plan(pipeline=2, global_batch=1), 1.0),  # one micro-batch: one stage at a time
        (Plan(pipeline=4, global_batch=4), 4 * 4 / 7),
        (Plan(pipeline=2, virtual_stages=2, global_batch=2), 2 * 4 / 5),
    ],
)
def test_load_is_the_number_of_processes_at_work(plan: Plan, load: float) -> None:
    assert load_of(plan, 4) == pytest.approx(load)


def test_kernels_by_hand() -> None:
    costs = CalibratedCosts(calibration(), "fp32", 1, (4.0,))  # launch 4 us, 4e-11 s a FLOP, 4e-10 s a byte
    assert costs.duration_s(Matmul(10, 20, 30, "fp32", "forward")) == pytest.approx(4e-6 + 12000 * 4e-11)
    assert costs.duration_s(Elementwise(1e6, 2, "norm.forward")) == pytest.approx(8e-6 + 4e-4)
    core = AttentionCore(1, 8, 8, 4.0, 2, 2, 16, 16, backward=True)
    flop = 2.5 * 2 * (2 * 8 * 4) * 32
    num_bytes = 4 * (2 * 8 * 32 + 2 * 8 * 32)
    assert costs.duration_s(core) == pytest.approx(4e-6 + flop * 4e-11 + num_bytes * 4e-10)


def test_a_kernel_without_a_fit_of_its_own_costs_a_copy() -> None:
    costs = CalibratedCosts(calibration(), "fp32", 1, (1.0,))
    assert costs.duration_s(Elementwise(1e6, 1, "rope.forward")) == costs.duration_s(Elementwise(1e6, 1))


def test_a_join_of_streams_costs_nothing() -> None:
    assert CalibratedCosts(calibration(), "fp32", 1, (1.0,)).duration_s(Elementwise(0.0, 0)) == 0.0


def test_bytes_beyond_caches_are_a_feature() -> None:
    assert elementwise_features(STREAMED_BYTES, 2)["streamed"] == 0.0
    assert elementwise_features(3 * STREAMED_BYTES, 2)["streamed"] == STREAMED_BYTES


def test_a_bound_takes_the_least_over_all_loads() -> None:
    plan, work = Plan(data=4, global_batch=4, precision="fp32"), Matmul(64, 64, 64, "fp32", "forward")
    whole = CostModel(MACHINE, plan, STACK)
    bound = CostModel(MACHINE, plan, STACK, any_load=True)
    assert whole.duration_s(work) == pytest.approx(2 * bound.duration_s(work))


def test_collectives_come_from_the_calibration() -> None:
    cost = CostModel(MACHINE, Plan(data=2, tensor_x=2, global_batch=2, precision="fp32"), STACK)
    assert cost.duration_s(Message("all-reduce", "data", 1048576.0)) == pytest.approx(4e-3)
    assert cost.duration_s(Message("all-reduce", "context", 1048576.0)) == 0.0
    import numpy as np

    found = cost.messages_s("all-gather", "tensor_x", np.array([4.0, 1048576.0]))
    assert found.tolist() == [pytest.approx(4e-4), pytest.approx(4e-3)]


def test_a_prediction_stands_on_the_calibration() -> None:
    model = load_model("tiny-llama")
    one = predict(model, MACHINE, Plan(global_batch=4, precision="fp32"), stack=STACK)
    four = predict(model, MACHINE, Plan(data=4, global_batch=4, precision="fp32"), stack=STACK)
    assert one.provenance[0].startswith("kernels and collectives: calibration bench, Test Processor, quick")
    # a quarter of the work at a quarter of the speed: four processes gain nothing on two cores here
    assert four.step_time_s > one.step_time_s
    assert one.peak_stage.parts["device context"] == 5 * 2.0**20
    assert sum(four.breakdown_s.values()) == pytest.approx(four.step_time_s)


def test_pipelines_that_wait_leave_cores_to_others() -> None:
    model = load_model("tiny-llama")
    plan = Plan(pipeline=4, global_batch=4, precision="fp32")
    found = predict(model, MACHINE, plan, stack=STACK)
    busy = CostModel(MACHINE, plan, STACK).duration_s(Matmul(64, 64, 64, "fp32", "forward"))
    full = CostModel(MACHINE, Plan(data=4, global_batch=4), STACK).duration_s(
        Matmul(64, 64, 64, "fp32", "forward")
    )
    assert busy == pytest.approx(full * (2 + 2 / 7) / 4)  # load 16/7, between 2 (factor 2) and 4 (factor 4)
    assert found.bound_s <= found.step_time_s * (1 + 1e-9)


def test_other_machines_keep_their_stack() -> None:
    from towtank.hardware_profiles.load import load_machine

    assert stack_on(load_machine("selene"), STACK) is STACK


@pytest.mark.slow
def test_a_search_on_a_calibrated_machine_is_proven() -> None:
    from towtank.autotune.space.constraint_text import read_constraints

    fixed = read_constraints(["precision=fp32", "recompute=none"], [], [], [])
    task = TuningTask(load_model("tiny-llama"), MACHINE, STACK, 4, 8, constraints=fixed)
    found = tune(task, top=3, workers=1)
    assert found.proven
    for each in found.plans:
        again = predict(task.model, MACHINE, each.plan, stack=STACK)
        assert again.step_time_s == pytest.approx(each.step_time_s, rel=1e-9)
        assert each.bound_s <= each.step_time_s * (1 + 1e-9)
