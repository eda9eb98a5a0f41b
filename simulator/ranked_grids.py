"""The fastest of the grids that AxoNN's own communication model ranks first (Singh et al., SC'24, section 5)."""

from dataclasses import dataclass, replace

from towtank.hardware_profiles.records import Machine
from towtank.simulator.axonn import Grid, Workload, minimum_tensor_product, rank_grids
from towtank.simulator.errors import PlanError
from towtank.simulator.models.count import parameters
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.stacks.records import Stack


@dataclass(frozen=True, slots=True)
class SimulatedGrid:
    """A grid of the ranking, its place there (from 1) and its simulated step."""

    rank: int
    grid: Grid
    prediction: Prediction


def simulate_ranked_grids(
    model: ModelSpec, machine: Machine, stack: Stack, devices: int, global_batch: int, *, top: int = 10
) -> list[SimulatedGrid]:
    """Simulate the `top` grids of the communication model, fastest step first.

    Each runs with full recomputation and the largest micro-batch that fits into memory; grids for which none
    fits are left out.

    Raises:
        PlanError: no grid fits, or the arguments allow none.
    """
    workload = Workload.gpt(
        num_layers=model.num_layers,
        hidden=model.hidden,
        sequences=global_batch,
        sequence_length=model.sequence,
    )
    smallest = minimum_tensor_product(parameters(model).total)
    heads = model.attention.heads
    ranking = rank_grids(workload, devices, machine, min_tensor=smallest, heads=heads, top=top)
    simulated = []
    for rank, ranked in enumerate(ranking.grids, start=1):
        prediction = _largest_fitting(model, machine, stack, ranked.grid, global_batch)
        if prediction is not None:
            simulated.append(SimulatedGrid(rank, ranked.grid, prediction))
    if not simulated:
        raise PlanError(
            [f"none of the {len(ranking.grids)} best grids for {model.name} fits {machine.name}"], "grids"
        )
    return sorted(simulated, key=lambda entry: entry.prediction.step_time_s)


def _largest_fitting(
    model: ModelSpec, machine: Machine, stack: Stack, grid: Grid, global_batch: int
) -> Prediction | None:
    per_device = global_batch // (grid.z * grid.data)
    plan = grid.apply_to(Plan(global_batch=global_batch, recompute="full", precision="bf16"))
    micro_batch = per_device
    while micro_batch >= 1:
        if per_device % micro_batch == 0:
            candidate = replace(plan, micro_batch=micro_batch)
            prediction = predict(model, machine, candidate, stack=stack)
            if prediction.fits:
                return prediction
        micro_batch //= 2
    return None
