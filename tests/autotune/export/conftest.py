from collections.abc import Callable

import pytest

from towtank.autotune.export.records import Job
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

MakeJob = Callable[..., Job]


def make_job(
    model: str = "llama3-8b",
    machine: str = "dgx-h100:nodes=1024",
    stack: str = "megatron-core",
    **fields: object,
) -> Job:
    """A job; fields are those of the plan."""
    return Job(load_model(model), load_machine(machine), Plan(**fields), load_stack(stack), machine)  # type: ignore[arg-type]


@pytest.fixture
def job() -> MakeJob:
    return make_job
