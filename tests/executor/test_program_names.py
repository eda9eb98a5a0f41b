"""What a device does in a step goes by the names of the Program, and nothing that the Program names is missing."""

from dataclasses import replace
from typing import Any

import pytest
from tests.executor.tiny import alone, tiny_batches, tiny_model, tiny_settings

from towtank.executor.launching.local import run_processes
from towtank.executor.launching.request import RunRequest
from towtank.executor.measured import recorder
from towtank.executor.measured.recorder import Recorder
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

Named = set[tuple[str, str, str]]
"""Name, kind and phase."""

GPT: dict[str, Any] = {
    "norm": "layernorm",
    "norm_bias": True,
    "positions": "learned",
    "max_positions": 16,
    "tied_embeddings": True,
}


def gpt() -> ModelSpec:
    """Learned positions, layer norms, biases, tied tables, no gate."""
    model = tiny_model(num_layers=2, **GPT)
    return replace(
        model,
        mlp=replace(model.mlp, gated=False, bias=True),
        attention=replace(model.attention, qkv_bias=True, output_bias=True, kv_heads=4),
    )


def of_program(model: ModelSpec, plan: Plan) -> Named:
    """All operations of passes; joins are no work, and the exchange of a ring has a name for each turn."""
    program = lower(model, plan, load_stack("towtank-executor"))
    blocks = [block for passes in (program.forward, program.backward) for stage in passes for block in stage]
    return {
        (name, operation.kind, operation.phase.value)
        for block in blocks
        for name, operation in block.operations()
        if not name.endswith(".join")
    }


def in_passes(found: Named) -> Named:
    """Without the end of the step."""
    return {one for one in found if one[0].startswith(("layer.", "model.")) and " data" not in one[1]}


@pytest.mark.parametrize(
    ("model", "plan"),
    [
        (tiny_model(num_layers=2), Plan(global_batch=2)),
        (gpt(), Plan(global_batch=2)),
        (tiny_model(num_layers=2), Plan(global_batch=2, recompute="full")),
        (tiny_model(num_layers=2), Plan(global_batch=2, recompute="selective")),
        (tiny_model(num_layers=2, norms_per_layer=4), Plan(global_batch=2)),
    ],
    ids=["llama", "gpt", "full", "selective", "four norms"],
)
def test_one_process_does_what_the_program_says(model: ModelSpec, plan: Plan) -> None:
    trainer, noted = alone(plan, model=model), Recorder()
    with recorder.recording(noted):
        trainer.step(tiny_batches(trainer, 0))
    found = {(key.name, key.kind, key.phase.value) for key in noted.steps[0].operations}
    assert in_passes(found) == of_program(model, plan)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "plan"),
    [
        (gpt(), Plan(tensor_x=2, tensor_y=2, sequence_parallel=True, global_batch=2)),
        (
            tiny_model(num_layers=2),
            Plan(tensor_x=2, data=2, zero_stage=3, sequence_parallel=True, global_batch=2),
        ),
        (tiny_model(num_layers=2), Plan(pipeline=2, tensor_z=2, recompute="full", global_batch=4)),
        (tiny_model(num_layers=2), Plan(context=2, context_kind="all-to-all", tensor_x=2, global_batch=2)),
    ],
    ids=["x.y", "x.zero", "pipeline.z", "context.x"],
)
def test_processes_do_what_the_program_says(model: ModelSpec, plan: Plan) -> None:
    settings = tiny_settings(plan, "fp32", model=model, steps=2)
    request = RunRequest(
        settings, model.name, "towtank-executor", {}, records=True, warm_up=1, threads=1, quiet=True
    )
    record = run_processes(request).record
    assert record is not None
    found = {(one.name, one.kind, one.phase) for one in record.step.operations}
    assert in_passes(found) == of_program(model, plan)
