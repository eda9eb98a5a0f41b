"""The training loop: batches of a step, one step after the other, until they are done or somebody stops it."""

from collections.abc import Callable, Iterator

import torch

from towtank.executor.data import Data
from towtank.executor.distributed.mesh import Mesh
from towtank.executor.layers.batch import MicroBatch, cut, sequence_numbers
from towtank.executor.settings import RunSettings
from towtank.executor.step.trainer import StepResult, Trainer


def batches_of(
    settings: RunSettings, mesh: Mesh, positions: torch.Tensor, data: Data, step: int, first: int
) -> list[MicroBatch]:
    """This device's micro-batches of step `step` (from 0).

    Args:
        settings: of the run.
        mesh: place of this device.
        positions: of a sequence's tokens on this device (`Trainer.positions`).
        data: where sequences come from.
        step: number of the step.
        first: number of the global batch's first sequence; the others follow it, the same under every plan.
    """
    found = []
    for number in range(settings.plan.num_micro_batches):
        numbers = sequence_numbers(settings.plan, mesh, number)
        tokens, targets = (
            torch.from_numpy(array).to(mesh.device)
            for array in data.batch([first + each for each in numbers])
        )
        found.append(cut(tokens, targets, numbers.start, positions, step))
    return found


def train(
    settings: RunSettings,
    mesh: Mesh,
    data: Data,
    *,
    trainer: Trainer | None = None,
    go_on: Callable[[StepResult], bool] = lambda result: True,
) -> Iterator[StepResult]:
    """Train until `settings.steps` steps are done, counted from the beginning of the training.

    Step s trains on sequences s x global_batch and the following ones.

    Args:
        settings: of the run; its plan and the model have passed their rules.
        mesh: made for the plan.
        data: where sequences come from.
        trainer: model and states; None: begin anew. One that was read from a checkpoint goes on from there.
        go_on: asked after each step, on every device; where it says no, training ends.

    Yields:
        What each step did.
    """
    trainer = trainer or Trainer(settings, mesh)
    while trainer.done < settings.steps:
        first = trainer.done * settings.plan.global_batch
        result = trainer.step(batches_of(settings, mesh, trainer.positions, data, trainer.done, first))
        yield result
        if not go_on(result):
            return
