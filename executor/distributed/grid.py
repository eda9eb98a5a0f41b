"""What the layers of a device share: its groups of the tensor grid, and which communication overlaps."""

from dataclasses import dataclass
from typing import Any

import torch

from towtank.executor.distributed.mesh import Group, Mesh
from towtank.executor.settings import RunSettings


@dataclass(frozen=True, slots=True)
class Grid:
    """Groups of AxoNN's grid, and switches."""

    x: Group
    y: Group
    xy: Group
    split: bool
    """Whether sequence parallelism splits tokens over x between multiplies."""
    overlap_reduce: bool
    """OAR: input gradients are reduced beside the weight-gradient multiply."""
    overlap_gather: bool
    """OAG: weights are gathered one linear layer ahead."""


def grid_of(settings: RunSettings, mesh: Mesh) -> Grid:
    """The grid of this process."""
    sizes = settings.sizes
    return Grid(
        mesh.group("tensor_x"),
        mesh.group("tensor_y"),
        mesh.group("tensor_xy"),
        sizes.sequence_split,
        bool(sizes.overlap.backward_all_reduce),
        bool(sizes.overlap.all_gather),
    )


def apply(function: Any, *arguments: Any) -> Any:
    """Call a `torch.autograd.Function` past its own `apply`, which has no types and first looks for functorch."""
    return super(torch.autograd.Function, function).apply(*arguments)
