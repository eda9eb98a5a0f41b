"""Seconds of many messages at once are those of each."""

import numpy as np
import pytest

from towtank import Plan, load_machine, load_stack
from towtank.simulator.cost.model import CostModel
from towtank.simulator.operations import Message

CASES = [
    ("all-reduce", "data", 0),
    ("reduce-scatter", "weight_shard", 0),
    ("all-gather", "tensor_x", 0),
    ("all-to-all", "expert", 0),
    ("all-to-all", "expert", 8),
    ("send", "pipeline", 0),
    ("all-reduce", "tensor_y", 0),
]


@pytest.mark.parametrize(("collective", "group", "fan_out"), CASES)
@pytest.mark.parametrize("machine", ["selene", "perlmutter", "dgx-h100:nodes=64"])
def test_messages_take_together_what_each_takes_alone(machine, collective, group, fan_out):
    plan = Plan(
        tensor_x=4, tensor_z=2, data=4, pipeline=4, expert=8, zero_stage=3, sequence_parallel=True,
        global_batch=32,
    )  # fmt: skip
    cost = CostModel(load_machine(machine), plan, load_stack("axonn"))
    sizes = np.array([1e3, 5e8, 1e6, 1e3, 3e4])
    alone = [cost.duration_s(Message(collective, group, size, fan_out)) for size in sizes]
    np.testing.assert_allclose(cost.messages_s(collective, group, sizes, fan_out), alone, rtol=1e-12)
