"""Rank all grids of a number of devices by AxoNN's communication model."""

from dataclasses import dataclass

from towtank.hardware_profiles.records import Machine
from towtank.simulator.axonn.bandwidth import (
    THEORETICAL_ASSUMPTIONS,
    AxisBandwidths,
    Basis,
    BasisUsed,
    axis_bandwidths,
    basis_used,
)
from towtank.simulator.axonn.grid import Grid, feasible_grids
from towtank.simulator.axonn.traffic import CommunicationTimes, Workload, layer_times
from towtank.simulator.errors import PlanError


@dataclass(frozen=True, slots=True)
class RankedGrid:
    """One grid and the communication seconds of one step of the whole network."""

    grid: Grid
    times: CommunicationTimes


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best grids, fastest first."""

    grids: tuple[RankedGrid, ...]
    num_feasible: int
    """Grids that were compared."""
    bandwidths: BasisUsed
    """Where the bandwidths of the compared grids come from."""
    assumptions: tuple[str, ...]
    """What theoretical bandwidths take for granted; empty where all are measured."""


def workload_times(
    workload: Workload, grid: Grid, bandwidths: AxisBandwidths, *, compat: bool = False
) -> CommunicationTimes:
    """Communication seconds of one step of the whole network on a grid (linear layers of the blocks only)."""
    block = CommunicationTimes(0.0, 0.0, 0.0, 0.0)
    for layer in workload.block:
        block += layer_times(layer, grid, workload, bandwidths, compat=compat)
    return block.scaled(workload.num_layers)


def rank_grids(
    workload: Workload,
    devices: int,
    machine: Machine,
    *,
    min_tensor: int = 1,
    heads: int | None = None,
    top: int = 10,
    compat: bool = False,
    bandwidths: Basis | None = None,
) -> Ranking:
    """Compare the grids of `feasible_grids` by communication time and return the `top` fastest.

    `min_tensor` is the smallest x·y·z that fits in memory (`minimum_tensor_product`). With `heads`, grids
    that AxoNN could not run are left out (attention heads not divisible by x, features not divisible by x
    or y); the authors' script does not look at them. `bandwidths` None: each measured where the profile
    has it, else theoretical; the result says which. Equal times keep the order of enumeration. Raises
    PlanError for impossible arguments or no feasible grid, UnknownFigure for a missing bandwidth.
    """
    _check_arguments(workload, devices, machine, min_tensor, top, heads)
    grids = [
        grid
        for grid in feasible_grids(devices, workload.sequences // workload.num_micro_batches, min_tensor)
        if heads is None or _runs(grid, workload, heads)
    ]
    if not grids:
        raise PlanError([_nothing_feasible(workload, devices, min_tensor, heads)], "grids")
    ranked = [
        RankedGrid(
            grid, workload_times(workload, grid, axis_bandwidths(machine, grid, bandwidths), compat=compat)
        )
        for grid in grids
    ]
    ranked.sort(key=lambda entry: entry.times.total_s)
    used = basis_used(machine, grids, bandwidths)
    return Ranking(
        grids=tuple(ranked[:top]),
        num_feasible=len(ranked),
        bandwidths=used,
        assumptions=() if used == "measured" else THEORETICAL_ASSUMPTIONS,
    )


def _runs(grid: Grid, workload: Workload, heads: int) -> bool:
    """Whether heads, features and weight shards split evenly (axonn-ai/axonn:axonn/intra_layer)."""
    return heads % grid.x == 0 and all(
        layer.inputs % (grid.x if layer.transposed else grid.y) == 0
        and layer.outputs % (grid.y if layer.transposed else grid.x) == 0
        and layer.inputs * layer.outputs % grid.tensor == 0
        for layer in workload.block
    )


def _check_arguments(
    workload: Workload, devices: int, machine: Machine, min_tensor: int, top: int, heads: int | None
) -> None:
    faults = [
        f"{name} must be at least 1, but is {value}"
        for name, value in (
            ("devices", devices),
            ("min_tensor", min_tensor),
            ("top", top),
            ("heads", 1 if heads is None else heads),
            ("num_layers", workload.num_layers),
            ("sequences", workload.sequences),
            ("sequence_length", workload.sequence_length),
            ("num_micro_batches", workload.num_micro_batches),
        )
        if value < 1
    ]
    if not faults and workload.sequences % workload.num_micro_batches:
        faults.append(
            f"sequences {workload.sequences} must be a multiple of num_micro_batches "
            f"{workload.num_micro_batches}; change one of them"
        )
    if machine.num_devices is not None and devices > machine.num_devices:
        faults.append(f"{machine.name} has {machine.num_devices} devices, but {devices} were asked for")
    if faults:
        raise PlanError(faults, "ranking of grids")


def _nothing_feasible(workload: Workload, devices: int, min_tensor: int, heads: int | None) -> str:
    if min_tensor > devices:
        return f"min_tensor {min_tensor} exceeds devices {devices}; take at least {min_tensor} devices"
    extra = "" if heads is None else f", {heads} heads and all features must divide evenly"
    return (
        f"no grid fits: x, y, z must be powers of two, x·y·z at least {min_tensor} and a divisor of "
        f"{devices} devices, and data·z must divide the {workload.sequences // workload.num_micro_batches} "
        f"sequences of a micro-batch{extra}; take a power of two of devices or more sequences"
    )
