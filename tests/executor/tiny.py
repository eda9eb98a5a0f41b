"""A model and batches that are small enough for tests in one process."""

from dataclasses import replace
from typing import Any

import torch

from towtank.executor.distributed.mesh import Mesh
from towtank.executor.layers.batch import MicroBatch, cut, sequence_numbers
from towtank.executor.settings import RunSettings
from towtank.executor.step.trainer import Trainer
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention, ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

SEQUENCE, VOCABULARY = 16, 61


def tiny_model(**changes: Any) -> ModelSpec:
    """Four layers of Llama, 32 wide."""
    model = load_model("tiny-llama")
    assert isinstance(model.attention, Attention)
    small = {
        "num_layers": 4,
        "hidden": 32,
        "vocab": VOCABULARY,
        "sequence": SEQUENCE,
        "attention": replace(model.attention, heads=4, kv_heads=2, head_dim=8),
        "mlp": replace(model.mlp, hidden=48),
    }
    return replace(model, **{**small, **changes})


def tiny_settings(plan: Plan, dtype: Any = "float64", **changes: Any) -> RunSettings:
    """Settings of a run of some steps."""
    stack, model = load_stack("towtank-executor"), changes.pop("model", tiny_model())
    return RunSettings(model, plan, stack, dtype, **{"seed": 3, "learning_rate": 1e-2, **changes})


def tiny_batches(trainer: Trainer, first: int) -> list[MicroBatch]:
    """Micro-batches of sequences that begin with number `first`, of which some tokens do not count."""
    plan, found = trainer.settings.plan, []
    for number in range(plan.num_micro_batches):
        numbers = sequence_numbers(plan, trainer.mesh, number)
        rows = torch.stack([_sequence(first + one) for one in numbers])
        targets = rows[:, 1:].clone()
        targets[:, 3] = -100
        for row, one in enumerate(numbers):
            targets[row, 5 : 5 + one % 4] = -100
        found.append(cut(rows[:, :-1], targets, numbers.start, trainer.positions, trainer.done))
    return found


def _sequence(number: int) -> torch.Tensor:
    return torch.randint(
        0, VOCABULARY, (SEQUENCE + 1,), generator=torch.Generator().manual_seed(1000 + number)
    )


def alone(plan: Plan, dtype: Any = "float64", **changes: Any) -> Trainer:
    """A trainer in this process."""
    return Trainer(tiny_settings(plan, dtype, **changes), Mesh(plan))


def run_steps(trainer: Trainer, until: int) -> list[tuple[float, float]]:
    """Losses and gradient norms of the steps up to number `until`."""
    found = []
    while trainer.done < until:
        result = trainer.step(tiny_batches(trainer, trainer.done * trainer.settings.plan.global_batch))
        found.append((result.loss, result.gradient_norm))
    return found
