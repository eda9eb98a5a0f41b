"""Rows of the space in a second."""

import pytest

from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.stacks.load import load_stack

pytestmark = pytest.mark.benchmark

_PROBLEMS = {
    "megatron-1t on 3,072 A100": ("megatron-1t", "selene", 3072, 3072, None),
    "megatron-530b on 2,240 A100": ("megatron-530b", "selene", 2240, 2240, None),
    "llama3-405b on 8,192 H100, 8k": ("llama3-405b", "dgx-h100:nodes=1024", 8192, 2048, None),
    "llama3-405b on 8,192 H100, 128k": ("llama3-405b", "dgx-h100:nodes=1024", 8192, 128, 131_072),
    "mixtral-8x22b on 1,024 H100": ("mixtral-8x22b", "dgx-h100:nodes=128", 1024, 1024, None),
    "deepseek-v3 on 2,048 H100": ("deepseek-v3", "dgx-h100:nodes=256", 2048, 4096, None),
}


@pytest.mark.parametrize("problem", _PROBLEMS)
def test_legal_plans(benchmark, problem: str) -> None:
    model, machine, devices, batch, sequence = _PROBLEMS[problem]
    task = TuningTask(load_model(model), load_machine(machine), load_stack("any"), devices, batch, sequence)
    table = benchmark.pedantic(legal_plans, (task,), rounds=3)
    benchmark.extra_info["rows"] = table.num_rows
    benchmark.extra_info["rows a second"] = round(table.num_rows / benchmark.stats.stats.min)
    assert table.num_rows > 100_000
