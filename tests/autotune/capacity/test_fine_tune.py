"""AxoNN's fine-tune of Llama 3.1 405B on Frontier: whether a plan fits, and how much memory it takes."""

import pytest

from towtank.autotune.capacity.request import Operation, Uncertainty
from towtank.autotune.capacity.study import CapacityPlan, Request, plan_capacity
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.count import parameters
from towtank.simulator.models.load import load_model
from towtank.simulator.stacks.load import load_stack


@pytest.mark.slow
def test_a_plan_for_405_billion_parameters_fits_1024_devices_of_frontier() -> None:
    model, machine = load_model("llama3.1-405b"), load_machine("frontier")
    request = Request(
        model, 1e9, 128, load_stack("axonn"), sequence=2048, search_budget_s=20.0,
        operation=Operation(failures_per_node_day=0.0), uncertainty=Uncertainty(runs=5),
    )  # fmt: skip
    (found,) = plan_capacity(request, [(machine, 1024)], jobs=1)
    assert isinstance(found, CapacityPlan)
    states = 16 * parameters(model).total / (found.plan.tensor_x * found.plan.tensor_y * found.plan.tensor_z)
    # more than the states of mixed-precision AdamW in its shards, and within the device
    assert states < found.peak_memory_bytes < machine.device.memory_capacity_bytes
    assert found.nodes == 128 and found.job.steps == -int(-1e9 // (128 * 2048))
