"""The fastest of the grids that AxoNN's own communication model ranks first (Singh et al., SC'24, section 5)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from towtank.hardware_profiles.records import Machine
from towtank.simulator.axonn import Grid, Workload, minimum_tensor_product, rank_grids
from towtank.simulator.errors import PlanError
from towtank.simulator.memory import stage_memories
from towtank.simulator.models.count import parameters
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, bound, predict
from towtank.simulator.program import lower
from towtank.simulator.stacks.records import Stack


@dataclass(frozen=True, slots=True)
class SimulatedGrid:
    """A grid of the ranking, its place there (from 1) and its simulated step."""

    rank: int
    grid: Grid
    prediction: Prediction


def simulate_ranked_grids(
    model: ModelSpec, machine: Machine, stack: Stack, devices: int, global_batch: int, *, top: int = 100
) -> list[SimulatedGrid]:
    """Simulate the `top` grids of the communication model as far as they may be the fastest; fastest step first.

    Each runs with full recomputation, a micro-batch that fits into memory and as many layers with cached weights as
    fit beside it. Grids are taken in the order of their closed-form bounds, until the next bound is above the
    fastest step.

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
    candidates = sorted(
        (bound(model, machine, plan, stack), rank, -plan.micro_batch, plan)
        for rank, ranked in enumerate(ranking.grids, start=1)
        for plan in plans_of_grid(model, ranked.grid, global_batch)
    )
    best: dict[int, Prediction] = {}
    fastest = float("inf")
    for least_s, rank, _, plan in candidates:
        if least_s >= fastest:
            break
        chosen = with_cache(model, machine, stack, plan)
        if chosen is None:
            continue
        prediction = predict(model, machine, chosen, stack=stack)
        fastest = min(fastest, prediction.step_time_s)
        if rank not in best or prediction.step_time_s < best[rank].step_time_s:
            best[rank] = prediction
    if not best:
        raise PlanError(
            [f"none of the {len(ranking.grids)} best grids for {model.name} fits {machine.name}"], "grids"
        )
    simulated = [SimulatedGrid(rank, Grid.from_plan(each.plan), each) for rank, each in best.items()]
    return sorted(simulated, key=lambda entry: entry.prediction.step_time_s)


def plans_of_grid(model: ModelSpec, grid: Grid, global_batch: int) -> Iterator[Plan]:
    """Plans of a grid by micro-batch, the weights of all layers cached: none with fewer is faster."""
    per_device = global_batch // (grid.z * grid.data)
    plan = grid.apply_to(Plan(global_batch=global_batch, recompute="full", precision="bf16"))
    micro_batch = per_device
    while micro_batch >= 1:
        if per_device % micro_batch == 0:
            yield replace(plan, micro_batch=micro_batch, cached_layers=_all_layers(model, plan))
        micro_batch //= 2


def _all_layers(model: ModelSpec, plan: Plan) -> int:
    """Layers whose weights can be cached: none where they are not sharded."""
    return model.num_layers if plan.tensor_z > 1 else 0


def with_cache(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan | None:
    """The plan with the gathered weights of as many layers kept as memory has room for; None where it never fits.

    Peak memory is a straight line in their number from the second on: the first may hide behind the table of the
    embedding.
    """
    layers, capacity = plan.cached_layers, machine.device.memory_capacity_bytes
    if capacity is None:
        return plan

    def peak(cached: int) -> float:
        cached_plan = replace(plan, cached_layers=cached)
        return max(stage.peak_bytes for stage in stage_memories(lower(model, cached_plan, stack)))

    whole = peak(layers)
    if whole <= capacity:
        return plan
    if layers < 2 or (some := peak(1)) > capacity:
        return replace(plan, cached_layers=0) if layers and peak(0) <= capacity else None
    each = (whole - some) / (layers - 1)
    return replace(plan, cached_layers=1 + int((capacity - some) / each))
