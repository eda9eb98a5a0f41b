"""Real training steps of the executor in the processes of a calibration, timed operation by operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from towtank.executor.distributed.mesh import Mesh
    from towtank.executor.layers.batch import MicroBatch
    from towtank.executor.measured.gather import Gathered
    from towtank.executor.settings import RunSettings


@dataclass(frozen=True, slots=True)
class Steps:
    """Train some steps with one process for each device of the plan."""

    settings: RunSettings
    threads: int
    steps: int
    """Measured ones."""
    warm_up: int
    port: int
    """Where the processes meet."""


def train(order: Steps, device: torch.device) -> Gathered | None:
    """Train under the process group that is in force; rank 0 gets what all measured."""
    import gc

    from towtank.executor.distributed.mesh import Mesh
    from towtank.executor.measured import recorder
    from towtank.executor.measured.clocks import clock_of
    from towtank.executor.measured.gather import gather
    from towtank.executor.measured.host_memory import give_back_memory
    from towtank.executor.measured.memory import PeakMemory
    from towtank.executor.measured.recorder import Recorder
    from towtank.executor.step.trainer import Trainer

    mesh = Mesh(order.settings.plan, device)
    memory = PeakMemory(device.type)
    trainer = Trainer(order.settings, mesh)
    noted = Recorder(clock_of(device.type))
    gc.collect()
    give_back_memory()
    memory.forget()
    tokens = order.settings.plan.global_batch * order.settings.sizes.sequence  # all count
    with recorder.recording(noted):
        for number in range(order.warm_up + order.steps):
            trainer.step(batches(order.settings, mesh, trainer.positions, number), tokens)
    found = gather(noted.steps, order.warm_up, memory.peak_bytes())
    del trainer
    gc.collect()
    return found


def batches(settings: RunSettings, mesh: Mesh, positions: torch.Tensor, step: int) -> list[MicroBatch]:
    """This device's micro-batches of random tokens."""
    import torch

    from towtank.executor.layers.batch import cut, sequence_numbers

    plan, length = settings.plan, settings.sizes.sequence
    found = []
    for number in range(plan.num_micro_batches):
        first = sequence_numbers(plan, mesh, number).start
        generator = torch.Generator().manual_seed(1000 * step + first)
        shape = (plan.micro_batch, length + 1)
        tokens = torch.randint(0, settings.model.vocab, shape, generator=generator).to(mesh.device)
        found.append(cut(tokens[:, :-1], tokens[:, 1:], first, positions, step))
    return found
