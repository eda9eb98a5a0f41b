"""How a plan stands among its neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from towtank.autotune.reasons.neighbours import Neighbour, neighbours
from towtank.autotune.task import TuningTask
from towtank.simulator.memory import stage_memories
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import Prediction, bound, predict
from towtank.simulator.program import lower

Progress = Callable[[int, int], None]
"""Called with neighbours judged and neighbours in all."""

_UNCHANGED = 1e-9
"""Steps and memories that differ by less, relatively, are those of the same plan under another name."""
_OUT_OF_REACH = 3
"""Neighbours that do not fit and are simulated, those with the lowest bounds: to know what memory would buy."""


@dataclass(frozen=True, slots=True, eq=False)
class JudgedNeighbour:
    """A neighbour and its predicted step."""

    change: str
    prediction: Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """The neighbours of a plan. Of those that fit only the `best` are certainly simulated: the others cannot be as
    fast, by their closed-form bounds."""

    neighbours: int
    legal: int
    fit: int
    simulated: int
    best: tuple[JudgedNeighbour, ...]
    """The fastest that fit, fastest first; without those that are the plan by another name."""
    out_of_reach: JudgedNeighbour | None
    """The fastest of those that do not fit, if it is faster than all that do."""


def survey(
    task: TuningTask,
    plan: Plan,
    prediction: Prediction | None,
    *,
    top: int = 5,
    progress: Progress | None = None,
) -> Survey:
    """Judge the legal neighbours of a plan on `task.devices`; `prediction` is its own, None where it is illegal.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a prediction needs.
    """
    every = neighbours(task.model, task.stack, plan)
    legal = [
        each for each in every if not faults_of(task.model, task.machine, each.plan, task.stack, task.devices)
    ]
    limit = task.memory_limit_bytes() if task.machine.device.memory_capacity_bytes is not None else None
    too_large = {id(each) for each in legal if limit is not None and _peak_bytes(task, each) > limit}
    fitting = [each for each in legal if id(each) not in too_large]
    tell = progress or (lambda done, total: None)
    best, simulated = _fastest(task, fitting, prediction, top, tell)
    within = [each.prediction for each in best[:1]]
    if prediction is not None and prediction.fits:
        within.append(prediction)
    fastest = min((each.step_time_s for each in within), default=float("inf"))
    beyond = fastest_too_large(task, [each for each in legal if id(each) in too_large], fastest)
    tell(len(fitting), len(fitting))
    return Survey(len(every), len(legal), len(fitting), simulated, tuple(best), beyond)


def _peak_bytes(task: TuningTask, neighbour: Neighbour) -> float:
    return max(stage.peak_bytes for stage in stage_memories(lower(task.model, neighbour.plan, task.stack)))


def _fastest(
    task: TuningTask, candidates: Sequence[Neighbour], center: Prediction | None, top: int, tell: Progress
) -> tuple[list[JudgedNeighbour], int]:
    """The `top` fastest and how many were simulated: the rest is slower than these by its bounds."""
    best: list[JudgedNeighbour] = []
    simulated = 0
    for number, (least_s, candidate) in enumerate(_by_bound(task, candidates)):
        if len(best) >= top and least_s >= best[-1].prediction.step_time_s:
            break
        found = _predicted(task, candidate)
        simulated += 1
        tell(number, len(candidates))
        known = [each.prediction for each in best] + ([] if center is None else [center])
        if not any(_same(found, each) for each in known):
            best.append(JudgedNeighbour(candidate.change, found))
            best.sort(key=lambda each: each.prediction.step_time_s)
            del best[top:]
    return best, simulated


def _by_bound(task: TuningTask, candidates: Sequence[Neighbour]) -> list[tuple[float, Neighbour]]:
    bounds = [
        (bound(task.model, task.machine, each.plan, task.stack, task.profile_dirs), each)
        for each in candidates
    ]
    return sorted(bounds, key=lambda pair: pair[0])


def _predicted(task: TuningTask, neighbour: Neighbour) -> Prediction:
    return predict(task.model, task.machine, neighbour.plan, stack=task.stack, profile_dirs=task.profile_dirs)


def _same(one: Prediction, other: Prediction) -> bool:
    return (
        abs(one.step_time_s / other.step_time_s - 1) < _UNCHANGED
        and abs(one.peak_memory_bytes / other.peak_memory_bytes - 1) < _UNCHANGED
    )


def fastest_too_large(
    task: TuningTask, candidates: Sequence[Neighbour], fastest_s: float
) -> JudgedNeighbour | None:
    """The fastest of the neighbours that need too much memory, where it is faster than `fastest_s` seconds.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a prediction needs.
    """
    found = [
        JudgedNeighbour(candidate.change, _predicted(task, candidate))
        for least_s, candidate in _by_bound(task, candidates)[:_OUT_OF_REACH]
        if least_s < fastest_s
    ]
    faster = [each for each in found if each.prediction.step_time_s < fastest_s]
    return min(faster, key=lambda each: each.prediction.step_time_s, default=None)
