"""What limits a step: knobs of the machine, sensitivities, critical path."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.autotune.errors import TuningError
from towtank.autotune.explanation.knobs import KNOBS, knob, turned
from towtank.autotune.explanation.sensitivities import sensitivities
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.critical_path import critical_path
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict

JOBS = [
    ("selene:nodes=4", "gpt-5b", Plan(tensor_x=8, data=4, global_batch=32, recompute="full")),
    (
        "selene:nodes=4",
        "gpt-5b",
        Plan(tensor_x=2, pipeline=4, data=4, global_batch=64, sequence_parallel=True),
    ),
    ("dgx-h100:nodes=2", "llama2-7b", Plan(data=16, zero_stage=3, global_batch=64, recompute="selective")),
    ("frontier", "gpt-5b", Plan(tensor_x=4, tensor_z=4, data=4, global_batch=64)),
]
STACKS = ["megatron-core", "megatron-core", "torchtitan", "axonn"]


@pytest.mark.parametrize(("job", "stack"), list(zip(JOBS, STACKS, strict=True)))
def test_the_critical_path_sums_to_the_step(job: tuple[str, str, Plan], stack: str) -> None:
    machine, model, plan = job
    prediction = predict(model, machine, plan, stack=stack)
    step = prediction.step
    path = critical_path(step, prediction.machine.device)
    assert sum(part.seconds for part in path) == pytest.approx(step.step_time_s, rel=1e-9)
    assert path[0].seconds == max(part.seconds for part in path)


@settings(max_examples=15)
@given(
    tensor=st.sampled_from([1, 2, 4]), pipeline=st.sampled_from([1, 2, 4]), data=st.sampled_from([1, 2]),
    virtual=st.sampled_from([1, 2]), recompute=st.sampled_from(["none", "full"]), zero=st.sampled_from([0, 1]),
)  # fmt: skip
def test_the_critical_path_sums_to_the_step_for_every_schedule(
    tensor: int, pipeline: int, data: int, virtual: int, recompute: str, zero: int
) -> None:
    plan = Plan(
        tensor_x=tensor, pipeline=pipeline, data=data, virtual_stages=virtual if pipeline > 1 else 1, zero_stage=zero,
        recompute=recompute, global_batch=8 * data,  # type: ignore[arg-type]
    )  # fmt: skip
    prediction = predict("gpt-5b", "selene:nodes=4", plan)
    path = critical_path(prediction.step, prediction.machine.device)
    assert sum(part.seconds for part in path) == pytest.approx(prediction.step_time_s, rel=1e-9)


def test_products_of_few_rows_are_limited_by_memory() -> None:
    # 16 rows: 16 FLOP a byte of the weights, of which an A100 needs 312 TFLOP/s over 2.039 TB/s, 153
    plan = Plan(tensor_x=8, sequence=16, global_batch=1)
    few = predict("gpt-5b", "selene:nodes=1", plan)
    resources = {part.kind: part.resource for part in critical_path(few.step, few.machine.device)}
    assert resources["matmul"] == "memory bandwidth"
    many = predict("gpt-5b", "selene:nodes=1", replace(plan, sequence=2048))
    resources = {part.kind: part.resource for part in critical_path(many.step, many.machine.device)}
    assert resources["matmul"] == "FLOP"


OTHERS = [
    (
        "dgx-h100:nodes=2",
        "mixtral-8x7b",
        Plan(tensor_x=2, pipeline=2, data=4, expert=4, sequence_parallel=True, global_batch=32),
    ),
    ("perlmutter:nodes=4", "llama3-8b", Plan(tensor_x=2, context=2, data=4, zero_stage=3, global_batch=4)),
    ("alps:nodes=4", "llama3-8b", Plan(tensor_x=2, pipeline=2, data=4, virtual_stages=4, global_batch=32)),
]


@pytest.mark.parametrize(("machine", "model", "plan"), [JOBS[3], *OTHERS])
def test_sensitivities_are_finite_differences(machine: str, model: str, plan: Plan) -> None:
    stack = "axonn" if plan.tensor_z > 1 else "any"
    base = predict(model, machine, plan, stack=stack)
    path = critical_path(base.step, base.machine.device)
    assert sum(part.seconds for part in path) == pytest.approx(base.step_time_s, rel=1e-9)
    for one in sensitivities(base):
        assert one.elasticity is not None
        below, above = (
            predict(model, one.knob.turn(base.machine, factor), plan, stack=stack).step_time_s
            / base.step_time_s
            for factor in (0.99, 1.01)
        )
        assert one.elasticity == pytest.approx((above - 1) / 0.01, rel=0.01, abs=1e-6), one.knob.name
        assert one.elasticity == pytest.approx((above - below) / 0.02, rel=0.01, abs=1e-6), one.knob.name


def test_faster_links_of_a_measured_node_shorten_tensor_collectives() -> None:
    machine, model, plan = JOBS[0]
    base = predict(model, machine, plan)
    found = {one.knob.name: one.elasticity for one in sensitivities(base)}
    assert found["node.bandwidth"] < -0.02
    assert found["node.latency"] > 0


def test_a_figure_can_be_set() -> None:
    machine = load_machine("dgx-h100:nodes=2")
    other = turned(machine, ["device.hbm=192GB", "network.bandwidth*=2", "network.latency/=4"])
    assert other.device.memory_capacity_bytes == pytest.approx(192e9)
    assert other.node.injection_bytes_per_s == 2 * machine.node.injection_bytes_per_s
    assert other.network.latency_s == machine.network.latency_s / 4
    assert turned(machine, []) is machine


@pytest.mark.parametrize("one", KNOBS, ids=lambda one: one.name)
def test_turning_a_knob_multiplies_its_figure(one) -> None:
    machine = load_machine("frontier")
    before = one.value(machine)
    assert before is not None
    assert one.value(one.turn(machine, 1.5)) == pytest.approx(1.5 * before)


def test_bus_bandwidths_belong_to_the_node_or_the_network() -> None:
    machine = load_machine("frontier")
    network = knob("network.bandwidth").turn(machine, 2.0).measured_bus_bandwidth_bytes_per_s
    node = knob("node.bandwidth").turn(machine, 2.0).measured_bus_bandwidth_bytes_per_s
    before = machine.measured_bus_bandwidth_bytes_per_s
    # eight GCDs fill a node, sixteen leave it
    assert (network[1, 8], network[1, 16]) == (before[1, 8], 2 * before[1, 16])
    assert (node[1, 8], node[1, 16]) == (2 * before[1, 8], before[1, 16])


def test_wrong_settings_are_told_together() -> None:
    with pytest.raises(TuningError) as caught:
        turned(load_machine("selene"), ["network.bandwith*=2", "device.hbm=192", "device.flop*=0", "x"])
    faults = caught.value.faults
    assert len(faults) == 4
    assert "did you mean 'network.bandwidth'" in faults[0]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("device.hbm=0 GB", "must be more than 0"), ("device.hbm=-2GB", "is negative"),
        ("network.latency=2GB/s", "is a quantity of bytes_per_s, but seconds is needed"),
        ("network.bandwidth=200", "has no unit"), ("device.flop=1 PFLOPS", "unknown unit 'PFLOPS'"),
        ("device.flop*=-1", "must be a number from"), ("device.flop*=nan", "must be a number from"),
        ("device.hbm+=2GB", "must be like"), ("", "must be like"),
        ("device.flop=1e-300 FLOP/s", "from 1e-06 to 1e+06 times is possible"),
    ],
)  # fmt: skip
def test_a_wrong_setting_says_what_is_wrong(setting: str, said: str) -> None:
    with pytest.raises(TuningError) as caught:
        turned(load_machine("selene"), [setting])
    assert len(caught.value.faults) == 1
    assert said in str(caught.value)


def test_factors_that_add_up_to_nonsense_are_refused() -> None:
    with pytest.raises(TuningError, match=r"makes device\.flop 1e\+12 times that of selene"):
        turned(load_machine("selene"), ["device.flop*=1e6", "device.flop*=1e6"])
    assert turned(load_machine("selene"), ["device.flop*=1e6", "device.flop/=1e6"]) is not None


def test_what_is_unknown_cannot_be_set() -> None:
    machine = load_machine("selene")
    unknown = replace(machine, device=replace(machine.device, memory_capacity_bytes=None))
    with pytest.raises(TuningError, match="unknown"):
        turned(unknown, ["device.hbm=192GB"])
    with pytest.raises(TuningError, match="unknown, so nothing can be multiplied"):
        turned(unknown, ["device.hbm*=2"])


def test_times_of_a_calibrated_machine_follow_no_property() -> None:
    # they were measured on it as it is
    measured = replace(load_machine("selene"), calibration=object())  # type: ignore[arg-type]
    with pytest.raises(TuningError, match="were measured on it as it is"):
        turned(measured, ["device.flop*=2"])
    assert turned(measured, ["device.hbm*=2"]).device.memory_capacity_bytes > 80 * 2**30
    assert [one.name for one in KNOBS if one.acts_on(measured)] == ["device.hbm"]


def test_a_factor_out_of_all_bounds_is_refused() -> None:
    with pytest.raises(TuningError, match="1e-320 must be a number from 1e-06 to 1e"):
        turned(load_machine("selene"), ["device.flop/=1e-320"])
