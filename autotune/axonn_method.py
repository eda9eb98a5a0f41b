"""AxoNN's own way to choose a grid, beside the simulator's (Singh et al., SC'24, section 5).

AxoNN ranks the grids of a number of devices by the time of their collectives, and its users run the first few. Here
each of these gets the step that the simulator predicts, and the simulator chooses among all grids that the ranking
considers, so that one sees where latency, overlap, compute and memory change the choice. As AxoNN runs them, all
plans recompute every layer; micro-batch and the number of layers with cached weights are those with the fastest step
that fits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from towtank.autotune.constraints import Constraints
from towtank.autotune.reasons import reason_between
from towtank.autotune.reasons.constraints import broken_constraints
from towtank.autotune.task import TuningTask
from towtank.simulator.axonn import (
    CommunicationTimes,
    Grid,
    Ranking,
    Workload,
    minimum_tensor_product,
    model_block,
    rank_grids,
)
from towtank.simulator.axonn.rank import RankedGrid
from towtank.simulator.errors import PlanError
from towtank.simulator.models.count import parameters
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_to_mapping
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import Prediction, bound, predict
from towtank.simulator.ranked_grids import plans_of_grid, with_cache
from towtank.simulator.stacks.records import Stack

Progress = Callable[[int, int], None]
"""Called with grids judged and grids in all."""
_ALL = 1_000_000
_DECIDED = frozenset(
    {"tensor_x", "tensor_y", "tensor_z", "data", "data_shard", "micro_batch", "cached_layers"}
)
"""Fields of a plan that grid, batch and memory decide."""
NO_ROOM = "does not fit into memory with any micro-batch"
"""Why a legal grid has no plan."""


@dataclass(frozen=True, slots=True, eq=False)
class GridRow:
    """One grid of AxoNN's ranking."""

    rank: int
    """Place in AxoNN's ranking, from 1."""
    grid: Grid
    communication: CommunicationTimes
    """Seconds of a step by AxoNN's model."""
    prediction: Prediction | None
    """The simulator's fastest plan of the grid; None where none is legal and fits."""
    why_not: str = ""
    """Why there is none."""

    @property
    def step_time_s(self) -> float:
        """Predicted step in seconds; infinite where no plan of the grid runs."""
        return float("inf") if self.prediction is None else self.prediction.step_time_s


@dataclass(frozen=True, slots=True, eq=False)
class AxonnRanking:
    """AxoNN's ranking and the simulator's view of it."""

    rows: tuple[GridRow, ...]
    """AxoNN's first grids in its order."""
    chosen: GridRow
    """The grid with the fastest step of all that AxoNN considers."""
    baseline: GridRow | None
    """Tensor parallelism over x in the node, the fastest split of the rest into z and data (HSDP); None where no such
    grid is feasible and fits."""
    num_feasible: int
    min_tensor: int
    """Smallest x·y·z that AxoNN's rule of memory allows."""
    bandwidths: str
    """measured, theoretical or both: where AxoNN's model has its bandwidths from."""
    assumptions: tuple[str, ...]

    @property
    def gain(self) -> float | None:
        """Throughput of the chosen grid over that of the baseline, less 1."""
        if self.baseline is None:
            return None
        return self.baseline.step_time_s / self.chosen.step_time_s - 1


def axonn_ranking(task: TuningTask, top: int = 10, progress: Progress | None = None) -> AxonnRanking:
    """Rank the grids of a task by AxoNN's communication model and simulate them.

    The `top` first are simulated whatever they take; of the others those that may be the fastest by their bounds.
    Constraints of the task limit what is simulated; the ranking is AxoNN's.

    Raises:
        PlanError: no grid is feasible or fits, or the model is none that AxoNN's model knows (experts, latent
            attention); UnknownFigure: a bandwidth or another figure of the machine is missing.
    """
    ranking, smallest = _ranking(task)
    tell = progress or (lambda done, total: None)
    every = list(enumerate(ranking.grids, start=1))
    rows = []
    for rank, ranked in every[:top]:
        rows.append(_judged(task, rank, ranked))
        tell(rank, len(every))
    fastest = min((row.step_time_s for row in rows), default=float("inf"))
    others = _may_be_faster(task, every[top:], fastest)
    candidates = [*rows, *others]
    chosen = min(candidates, key=lambda row: row.step_time_s)
    if chosen.prediction is None:
        raise PlanError(
            [
                f"none of the {len(every)} grids that AxoNN ranks for {task.model.name} on {task.devices} devices of "
                f"{task.machine.name} runs: {rows[0].why_not}"
            ],
            "AxoNN's method",
        )
    baseline = _baseline(task, every, candidates)
    tell(len(every), len(every))
    return AxonnRanking(
        rows=tuple(rows),
        chosen=chosen,
        baseline=baseline,
        num_feasible=len(every),
        min_tensor=smallest,
        bandwidths=ranking.bandwidths,
        assumptions=ranking.assumptions,
    )


def _ranking(task: TuningTask) -> tuple[Ranking, int]:
    """AxoNN's ranking of all feasible grids, and the smallest product of x, y and z."""
    model = task.model
    workload = Workload(
        block=model_block(model),
        num_layers=model.num_layers,
        sequences=task.global_batch,
        sequence_length=task.sequence or model.sequence,
    )
    smallest = minimum_tensor_product(parameters(model).total)
    # AxoNN's script does not ask whether heads divide: such grids have their place, and do not run
    ranking = rank_grids(workload, task.devices, task.machine, min_tensor=smallest, top=_ALL)
    return ranking, smallest


def _plans(task: TuningTask, grid: Grid) -> tuple[list[Plan], str]:
    """Legal plans of a grid with the weights of all layers cached where the stack can, and else why there is none."""
    legal, faults = [], [""]
    for plan in plans_of_grid(task.model, grid, task.global_batch):
        wanted = replace(_as_the_stack_names_it(plan, task.stack), sequence=task.sequence)
        wanted = with_fixed(wanted, task.constraints)
        found = [
            *faults_of(task.model, task.machine, wanted, task.stack, task.devices),
            *broken_constraints(wanted, task),
        ]
        if found:
            faults = found
        else:
            legal.append(wanted)
    return legal, "" if legal else faults[0]


def _as_the_stack_names_it(plan: Plan, stack: Stack) -> Plan:
    """The plan under a stack that has no z but shards weights over data (FSDP, HSDP), or keeps no gathered weights.

    A shard over z and one over data do the same: each member has a part of the batch and of the weights.
    """
    if stack.communication.shard_unit != "linear":
        plan = replace(plan, cached_layers=0)
    if plan.tensor_z > 1 and not stack.supports.tensor_z and 3 in stack.supports.zero_stages:
        shards = plan.tensor_z
        plan = replace(plan, tensor_z=1, data=shards * plan.data, data_shard=shards, zero_stage=3)
    return plan


def with_fixed(plan: Plan, constraints: Constraints) -> Plan:
    """The plan with the fields that are fixed to one value and that neither grid nor batch decide, and no more layers
    with cached weights than allowed."""
    switches = {
        name.removeprefix("overlap."): values[0]
        for name, values in constraints.fixed.items()
        if name.startswith("overlap.") and len(values) == 1
    }
    others = {
        name: values[0]
        for name, values in constraints.fixed.items()
        if name not in _DECIDED and not name.startswith("overlap.") and len(values) == 1
    }
    plan = replace(plan, overlap=replace(plan.overlap, **switches), **others)
    return replace(plan, cached_layers=_most_cached(plan, constraints))


def _most_cached(plan: Plan, constraints: Constraints) -> int:
    """Layers of a plan with cached weights at most: none are cached but for recomputation."""
    cached = plan.cached_layers if plan.recompute == "full" else 0
    wanted: tuple[int, ...] = constraints.fixed.get("cached_layers", (cached,))
    return min(cached, max(wanted), constraints.most.get("cached_layers", cached))


def _bounded(task: TuningTask, grid: Grid) -> tuple[list[tuple[float, Plan]], str]:
    """Plans of a grid with their closed-form bounds in seconds, the lowest first."""
    plans, why_not = _plans(task, grid)
    bounds = [(bound(task.model, task.machine, plan, task.stack, task.profile_dirs), plan) for plan in plans]
    return sorted(bounds, key=lambda pair: pair[0]), why_not


def _judged(task: TuningTask, rank: int, ranked: RankedGrid) -> GridRow:
    """A grid with its fastest plan that fits."""
    plans, why_not = _bounded(task, ranked.grid)
    best = _fastest(task, plans, float("inf"))
    if best is None and not why_not:
        why_not = NO_ROOM
    return GridRow(rank, ranked.grid, ranked.times, best, why_not)


def _fastest(task: TuningTask, plans: Sequence[tuple[float, Plan]], below_s: float) -> Prediction | None:
    """The fastest of plans in the order of their bounds that takes less than `below_s` and fits."""
    best: Prediction | None = None
    for least_s, plan in plans:
        if least_s >= below_s:
            break
        fitting = with_cache(task.model, task.machine, task.stack, plan)
        if fitting is None or broken_constraints(fitting, task):
            continue
        found = predict(task.model, task.machine, fitting, stack=task.stack, profile_dirs=task.profile_dirs)
        if found.step_time_s < below_s:
            best, below_s = found, found.step_time_s
    return best


def _may_be_faster(
    task: TuningTask, ranked: Sequence[tuple[int, RankedGrid]], fastest_s: float
) -> Iterator[GridRow]:
    """Grids with a step below `fastest_s`, and below those found before."""
    bounded = [(rank, each, _bounded(task, each.grid)[0]) for rank, each in ranked]
    able = [entry for entry in bounded if entry[2]]
    for rank, each, plans in sorted(able, key=lambda entry: entry[2][0][0]):
        found = _fastest(task, plans, fastest_s)
        if found is not None:
            fastest_s = found.step_time_s
            yield GridRow(rank, each.grid, each.times, found)


def _baseline(
    task: TuningTask, ranked: Sequence[tuple[int, RankedGrid]], known: Sequence[GridRow]
) -> GridRow | None:
    """The fastest grid with tensor parallelism over x in the node and the rest over z and data."""
    node = task.machine.node.devices
    judged = {row.grid: row for row in known}
    rows = [
        judged.get(each.grid) or _judged(task, rank, each)
        for rank, each in ranked
        if (each.grid.x, each.grid.y) == (node, 1)
    ]
    best = min(rows, key=lambda row: row.step_time_s, default=None)
    return None if best is None or best.prediction is None else best


def difference_in_choice(ranking: AxonnRanking) -> str:
    """Where AxoNN and the simulator differ, as one sentence."""
    first, chosen = ranking.rows[0], ranking.chosen
    if first.grid == chosen.grid:
        return "AxoNN's model and the simulator choose the same grid"
    assert chosen.prediction is not None
    where = f"the simulator chooses number {chosen.rank} of AxoNN's ranking"
    if first.prediction is None:
        return f"{where}: AxoNN's first does not run ({first.why_not})"
    return f"{where}; AxoNN's first is {reason_between(first.prediction, chosen.prediction).text}"


def axonn_to_mapping(ranking: AxonnRanking) -> dict[str, Any]:
    """A ranking as plain data, in SI units."""
    return {
        "schema": 1,
        "method": "axonn",
        "counts": {"feasible": ranking.num_feasible, "shown": len(ranking.rows)},
        "min_tensor": ranking.min_tensor,
        "bandwidths": ranking.bandwidths,
        "assumptions": list(ranking.assumptions),
        "grids": [_row_to_mapping(row) for row in ranking.rows],
        "chosen": _row_to_mapping(ranking.chosen),
        "difference": difference_in_choice(ranking),
        "baseline": None if ranking.baseline is None else _row_to_mapping(ranking.baseline),
        "gain_over_baseline": ranking.gain,
    }


def _row_to_mapping(row: GridRow) -> dict[str, Any]:
    document: dict[str, Any] = {
        "rank": row.rank,
        "grid": asdict(row.grid),
        "communication_s": asdict(row.communication) | {"total_s": row.communication.total_s},
    }
    if row.prediction is None:
        return document | {"step_time_s": None, "why_not": row.why_not}
    return document | {
        "plan": plan_to_mapping(row.prediction.plan),
        "step_time_s": row.prediction.step_time_s,
        "peak_memory_bytes": row.prediction.peak_memory_bytes,
    }
