"""Weights that travel in the precision of the activations, and gradients that ZeRO 2 reduces once a step."""

from dataclasses import replace

import pytest

from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.lowering.weights import parameter_messages, stage_weights
from towtank.simulator.memory.stages import state_bytes
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

MODEL = load_model("tiny-llama")
EXECUTOR = load_stack("towtank-executor")


@pytest.mark.parametrize(("precision", "element"), [("fp32", 4), ("bf16", 2), ("fp16", 2)])
def test_gathered_parameters(precision: str, element: int) -> None:
    plan = Plan(data=2, zero_stage=1, global_batch=2, precision=precision)  # type: ignore[arg-type]
    sizes = local_sizes(MODEL, plan, EXECUTOR)
    weights = stage_weights(sizes, chunks_of(sizes)[0])
    (message,) = parameter_messages(sizes, weights)
    assert message.bytes == (weights.dense + weights.embedding) * element


def test_zero_2_holds_whole_gradients_over_several_micro_batches() -> None:
    one = Plan(data=2, zero_stage=2, global_batch=2)
    held = []
    for plan in (one, replace(one, global_batch=4), replace(one, zero_stage=1)):
        sizes = local_sizes(MODEL, plan, EXECUTOR)
        held.append(state_bytes(sizes, stage_weights(sizes, chunks_of(sizes)[0]))["gradients"])
    assert held[1] == held[2] == 2 * held[0]
