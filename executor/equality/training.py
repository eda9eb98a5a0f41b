"""Ten steps of a case on this process, and what they leave."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from towtank.executor.data import IGNORED
from towtank.executor.distributed.mesh import Mesh
from towtank.executor.equality.cases import Case
from towtank.executor.layers.batch import MicroBatch, cut, sequence_numbers
from towtank.executor.settings import RunSettings
from towtank.executor.step.trainer import Trainer


@dataclass(slots=True)
class Outcome:
    """What a run gives."""

    losses: list[float]
    gradient_norms: list[float]
    weights: dict[str, NDArray[np.float64]]
    """Full tensors by name."""
    copies_differ: float = 0.0
    """Largest difference between two devices' copies of an element."""


def tokens_of(settings: RunSettings, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets [global batch, sequence] of a step; one in ten targets does not count."""
    generator = torch.Generator().manual_seed(1000 * settings.seed + step)
    shape = (settings.plan.global_batch, settings.sizes.sequence + 1)
    text = torch.randint(0, settings.model.vocab, shape, generator=generator)
    targets = text[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < 0.1] = IGNORED
    return text[:, :-1], targets


def micro_batches(settings: RunSettings, mesh: Mesh, positions: torch.Tensor, step: int) -> list[MicroBatch]:
    """This device's part of a step."""
    tokens, targets = tokens_of(settings, step)
    found = []
    for number in range(settings.plan.num_micro_batches):
        rows = sequence_numbers(settings.plan, mesh, number)
        part = slice(rows.start, rows.stop)
        found.append(cut(tokens[part], targets[part], rows.start, positions, step))
    return found


def run(case: Case) -> Outcome:
    """Train; all processes call this together. Only rank 0 has the weights afterwards."""
    settings = case.settings
    mesh = Mesh(settings.plan)
    trainer = Trainer(settings, mesh)
    losses, norms = [], []
    for step in range(settings.steps):
        result = trainer.step(micro_batches(settings, mesh, trainer.positions, step))
        losses.append(result.loss)
        norms.append(result.gradient_norm)
    trainer.settle()
    weights, differ = full_weights(trainer)
    return Outcome(losses, norms, weights, differ)


def full_weights(trainer: Trainer) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Full weights from the parts of all devices, and how much copies differ."""
    mine = [
        (part.box, weight.value[part.first : part.first + part.box.size[0]].double())
        for weight in trainer.weights
        for part in weight.parts
    ]
    everyones = [mine]
    if trainer.mesh.plan.num_devices > 1:
        gathered: list[list[tuple[object, torch.Tensor]] | None] = [None] * trainer.mesh.plan.num_devices
        dist.gather_object(mine, gathered if trainer.mesh.rank == 0 else None)
        everyones = gathered if trainer.mesh.rank == 0 else []  # type: ignore[assignment]
    full: dict[str, torch.Tensor] = {}
    differ = 0.0
    for box, value in (one for parts in everyones for one in parts):
        whole = full.setdefault(box.name, torch.full(box.full_shape, torch.nan, dtype=torch.float64))
        known = ~whole[box.slices].isnan()
        if bool(known.any()):
            differ = max(differ, float((whole[box.slices] - value)[known].abs().max()))
        whole[box.slices] = value
    return {name: whole.numpy() for name, whole in full.items()}, differ
