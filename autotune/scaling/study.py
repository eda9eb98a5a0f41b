"""Search the best plan of every job of a study, several at once."""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path

from towtank.autotune.constraints import Constraints
from towtank.autotune.errors import TuningError
from towtank.autotune.scaling.series import ScalePoint
from towtank.autotune.search.records import SearchResult
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.records import Machine
from towtank.simulator.errors import PlanError, StackError
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict
from towtank.simulator.stacks.records import Stack

INTERRUPTED = "interrupted"
"""Why there is no plan where the user stopped the study before."""
DIED = "the process that searched it was ended from outside; perhaps the host ran out of memory: try fewer --jobs"
"""Why there is no plan where the operating system ended the search."""
Progress = Callable[[int, int], None]
"""Called with points done and points in all."""
Search = Callable[[TuningTask, float | None], SearchResult]
"""The best plan of a task within so many seconds."""


@dataclass(frozen=True, slots=True)
class Study:
    """What all jobs of a study share."""

    machine: Machine
    stack: Stack
    sequence: int | None = None
    """Tokens of one sequence. None: the model's."""
    constraints: Constraints = field(default_factory=Constraints)
    profile_dirs: tuple[Path, ...] = ()
    budget_s: float | None = None
    """Seconds for the search of one point; None: until the best plan is proven."""
    memory_margin: float = 0.0
    """See `TuningTask`."""

    def task(self, point: ScalePoint) -> TuningTask:
        """The search of one point."""
        return TuningTask(
            model=point.model,
            machine=self.machine,
            stack=self.stack,
            devices=point.devices,
            global_batch=point.global_batch,
            sequence=self.sequence,
            constraints=self.constraints,
            profile_dirs=self.profile_dirs,
            memory_margin=self.memory_margin,
        )


@dataclass(frozen=True, slots=True)
class TunedStep:
    """The best plan of a point and its step."""

    plan: Plan
    step_time_s: float
    tokens_per_s: float
    flop_per_s_per_device: float
    """Model FLOP/s of one device."""
    mfu: float
    peak_memory_bytes: float
    legal: int
    """Plans that were considered."""
    proven: bool
    """Whether no legal plan is faster."""
    gap: float
    """What the plan can be behind the best at most, as a fraction; 0 where it is proven."""


@dataclass(frozen=True, slots=True)
class TunedPoint:
    """A point and what was found for it."""

    point: ScalePoint
    found: TunedStep | None
    why_not: str = ""
    """Why there is no plan."""


def tune_within(task: TuningTask, budget_s: float | None) -> SearchResult:
    """The exact search in this process alone."""
    from towtank.autotune.search.exact import tune

    return tune(task, top=1, budget_s=budget_s, workers=1)


def tune_points(
    study: Study,
    points: Sequence[ScalePoint],
    *,
    search: Search = tune_within,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[TunedPoint]:
    """The best plan of every point, in the order of the points; `jobs` processes share them (None: one a core).

    A point without a plan says why and stops no other. Ctrl-C keeps what is done. `search` must be a function of a
    module where there are several processes.
    """
    tell = progress or (lambda done, total: None)
    jobs = min(jobs or cpu_count() or 1, len(points))
    if jobs <= 1:
        return _one_by_one(study, points, search, tell)
    found: dict[int, TunedPoint] = {}

    def note(place: int, point: TunedPoint) -> None:
        found[place] = point
        tell(len(found), len(points))

    # the largest take longest: they go first
    left = sorted(range(len(points)), key=lambda place: -points[place].devices)
    try:
        _in_processes(study, points, left, search, jobs, note)
        # what a process that died has taken along goes on alone: so it shows which search ends its process
        while left := [place for place in left if place not in found]:
            _in_processes(study, points, left, search, 1, note)
            if first := [place for place in left if place not in found][:1]:
                note(first[0], TunedPoint(points[first[0]], None, DIED))
    except KeyboardInterrupt:
        pass
    return [found.get(place, _interrupted(point)) for place, point in enumerate(points)]


def _in_processes(
    study: Study,
    points: Sequence[ScalePoint],
    places: Sequence[int],
    search: Search,
    jobs: int,
    note: Callable[[int, TunedPoint], None],
) -> None:
    """Search the points of some places, in this order, and note each; one that a dying process takes along is not."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_ignore_interrupt) as pool:
        tasks: dict[Future[TunedPoint], int] = {}
        try:
            with suppress(BrokenProcessPool):
                for place in places:
                    tasks[pool.submit(tune_point, study, points[place], search)] = place
            for done in as_completed(tasks):
                with suppress(BrokenProcessPool):
                    note(tasks[done], done.result())
        except KeyboardInterrupt:
            _end(pool)
            raise


def _one_by_one(
    study: Study, points: Sequence[ScalePoint], search: Search, tell: Progress
) -> list[TunedPoint]:
    found: list[TunedPoint] = []
    try:
        for point in points:
            found.append(tune_point(study, point, search))
            tell(len(found), len(points))
    except KeyboardInterrupt:
        pass
    return found + [_interrupted(point) for point in points[len(found) :]]


def _interrupted(point: ScalePoint) -> TunedPoint:
    return TunedPoint(point, None, INTERRUPTED)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of a terminal; the one that reports handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(pool: ProcessPoolExecutor) -> None:
    """End workers in the middle of a search: nobody waits for their answers."""
    processes = list(
        (getattr(pool, "_processes", None) or {}).values()
    )  # the pool forgets them at its shutdown
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def tune_point(study: Study, point: ScalePoint, search: Search = tune_within) -> TunedPoint:
    """The best plan of one point, or why there is none."""
    available = study.machine.num_devices
    if available is not None and point.devices > available:
        return TunedPoint(point, None, f"{study.machine.name} has {available:,} devices")
    try:
        result = search(study.task(point), study.budget_s)
        return _tuned(study, point, result)
    except (TuningError, PlanError, StackError, ProfileError) as error:
        faults = error.faults if isinstance(error, TuningError | PlanError) else (str(error),)
        return TunedPoint(point, None, "; ".join(_in_short(fault) for fault in faults))


def _in_short(text: str) -> str:
    """What an error says without its details: the first line up to its first semicolon, and the last one."""
    first, *rest = text.split("\n")
    head = first.partition(";")[0] if rest else first
    return "; ".join([head.strip(), *(line.strip() for line in rest[-1:])])


def _tuned(study: Study, point: ScalePoint, result: SearchResult) -> TunedPoint:
    if not result.plans:
        return TunedPoint(point, None, _why_none(result))
    best = result.plans[0]
    prediction = predict(
        point.model, study.machine, best.plan, stack=study.stack, profile_dirs=study.profile_dirs
    )
    found = TunedStep(
        plan=best.plan,
        step_time_s=prediction.step_time_s,
        tokens_per_s=prediction.tokens_per_s,
        flop_per_s_per_device=prediction.flop_per_s_per_device,
        mfu=prediction.mfu,
        peak_memory_bytes=prediction.peak_memory_bytes,
        legal=result.counts.legal,
        proven=result.proven,
        gap=result.gap,
    )
    return TunedPoint(point, found)


def _why_none(result: SearchResult) -> str:
    if not result.counts.legal:
        return "no plan is legal for these devices and this batch"
    margin = result.task.memory_margin
    spare = f" with {margin * 100:.3g} % to spare" if margin else ""
    text = f"none of {result.counts.legal:,} legal plans fits{spare}"
    if result.closest_peak_bytes is None:
        return text
    missing = result.closest_peak_bytes - result.memory_limit_bytes
    return f"{text}; the nearest lacks {missing / 2**30:,.1f} GiB a device"


def efficiencies(points: Sequence[TunedPoint]) -> list[float | None]:
    """Model FLOP/s of a device relative to that of the first point that has a plan; None where there is none.

    For one model this is the ratio of tokens a second and device; where the model grows it counts its work.
    """
    rates = [None if each.found is None else each.found.flop_per_s_per_device for each in points]
    first = next((rate for rate in rates if rate is not None), None)
    return [None if rate is None or first is None else rate / first for rate in rates]
