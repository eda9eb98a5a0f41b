"""One micro-batch as one device sees it."""

from dataclasses import dataclass

import torch

from towtank.executor.distributed.mesh import Mesh
from towtank.simulator.plan import Plan


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tokens of one micro-batch on one device. T tokens: sequence after sequence, each in the order of
    `positions`."""

    tokens: torch.Tensor
    """[T], int64."""
    targets: torch.Tensor
    """[T], int64; IGNORED where a token does not count."""
    positions: torch.Tensor
    """[T / sequences]: global positions of the tokens of one sequence on this device."""
    rows: torch.Tensor
    """[T]: numbers of the tokens in the global batch (sequence x length + position), the same in every plan."""
    sequences: int
    step: int

    @property
    def local_sequence(self) -> int:
        """Tokens of one sequence on this device."""
        return self.positions.shape[0]


def sequence_numbers(plan: Plan, mesh: Mesh, micro_batch: int) -> range:
    """Sequences of the global batch in one micro-batch of this device, counted from 0."""
    place = mesh.coordinate("data") * plan.tensor_z + mesh.coordinate("tensor_z")
    first = (place * plan.num_micro_batches + micro_batch) * plan.micro_batch
    return range(first, first + plan.micro_batch)


def cut(
    tokens: torch.Tensor, targets: torch.Tensor, first: int, positions: torch.Tensor, step: int
) -> MicroBatch:
    """This device's tokens of whole sequences [sequences, length], of which the first has number `first`."""
    sequences, length = tokens.shape
    whole = positions.shape[0] == length
    numbers = torch.arange(first, first + sequences, device=tokens.device)
    rows = numbers[:, None] * length + positions
    return MicroBatch(
        (tokens if whole else tokens[:, positions]).reshape(-1),
        (targets if whole else targets[:, positions]).reshape(-1),
        positions,
        rows.reshape(-1),
        sequences,
        step,
    )
