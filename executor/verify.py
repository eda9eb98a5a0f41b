"""The loop closed: the plans that a search predicts to be best run for a few steps each, and are ranked anew."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from towtank.autotune.search.records import RankedPlan, SearchResult
from towtank.autotune.task import TuningTask
from towtank.executor import supported
from towtank.executor.calibrate.pool import Pool
from towtank.executor.errors import ExecutorError
from towtank.executor.settings import RunSettings, default_dtype
from towtank.hardware_profiles.calibrated.records import threads_of
from towtank.hardware_profiles.records import Machine
from towtank.simulator.plan import Overlap, Plan

CANDIDATES = 12
"""Plans that a search lists for each that runs: the others differ from one of these in switches alone."""
WARM_UP = 2
"""Steps before those that are measured."""

Progress = Callable[[int, int], None]


class VerifyError(ExecutorError):
    """Plans cannot be verified; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One plan, predicted and measured."""

    predicted_rank: int
    """Among the plans of the search, from 1."""
    measured_rank: int
    """Among those that ran, from 1."""
    plan: Plan
    predicted_s: float
    measured_s: float
    """Median over rounds."""
    rounds_s: tuple[float, ...]
    predicted_bytes: float
    measured_bytes: float | None

    @property
    def error(self) -> float:
        """Relative error of the step time."""
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class Verification:
    """Plans by measured time, the fastest first."""

    plans: tuple[Verified, ...]
    left_out: tuple[str, ...]
    """Why plans of the search did not run."""

    @property
    def regret(self) -> float:
        """Measured time of the plan that was predicted best, over that of the best that ran, less 1."""
        chosen = min(self.plans, key=lambda each: each.predicted_rank)
        return chosen.measured_s / self.plans[0].measured_s - 1

    @property
    def median_error(self) -> float:
        """Median of the absolute relative errors of the step times."""
        return median(abs(each.error) for each in self.plans)


def check_machine(machine: Machine) -> None:
    """Raise `VerifyError` for a machine that this process does not run on."""
    from towtank.hardware_profiles.calibrated.here import here
    from towtank.hardware_profiles.calibrated.local import LOCAL, check_same
    from towtank.hardware_profiles.calibrated.read import path_of

    if machine.calibration is None and machine.name != LOCAL:
        raise VerifyError(
            f"{machine.name}: plans run on this machine; take --machine local, or a calibration that was made here"
        )
    if machine.calibration is not None:
        check_same(machine.calibration, here(), path_of(machine.name))


def chosen(
    task: TuningTask, result: SearchResult, top: int
) -> tuple[list[tuple[RankedPlan, RunSettings]], list[str]]:
    """The best plans that the executor runs and that differ in more than switches of overlap; why others do not."""
    found: list[tuple[RankedPlan, RunSettings]] = []
    left_out: list[str] = []
    seen: set[Plan] = set()
    for ranked in result.plans:
        plain = replace(ranked.plan, overlap=Overlap())
        if len(found) == top or plain in seen:
            continue
        try:
            settings = settings_of(task, ranked.plan)
        except KeyError:
            left_out.append(f"plan {ranked.rank}: the executor has no precision {ranked.plan.precision}")
            continue
        faults = supported.faults(settings)
        if faults:
            left_out.append(f"plan {ranked.rank}: {'; '.join(faults)}")
            continue
        seen.add(plain)
        found.append((ranked, settings))
    return found, left_out


def settings_of(task: TuningTask, plan: Plan) -> RunSettings:
    """How a plan of a task runs on the machine that the task is about."""
    calibration = task.machine.calibration
    on_cpu = calibration is not None and calibration.hardware.device_type == "cpu"
    return RunSettings(task.model, plan, task.stack, default_dtype(plan), device="cpu" if on_cpu else "cuda")


def threads_for(task: TuningTask) -> int:
    """Threads of each process of a run, as a calibration with as many processes has them."""
    calibration = task.machine.calibration
    return threads_of(None if calibration is None else calibration.hardware.cores, task.devices)


def verify(
    task: TuningTask, result: SearchResult, *, top: int, rounds: int, steps: int, progress: Progress
) -> Verification:
    """Run the best plans, `steps` steps in each of `rounds` rounds in which they take turns.

    Raises:
        VerifyError: none of the plans can run. CalibrationError: a process failed.
    """
    plans, left_out = chosen(task, result, top)
    if not plans:
        raise VerifyError("; ".join(["none of the plans can run", *left_out]))
    threads = threads_for(task)
    seconds: list[list[float]] = [[] for _ in plans]
    memory: list[float | None] = [None for _ in plans]
    with Pool((task.devices,), plans[0][1].device) as pool:
        for number in range(rounds):
            for place, (_, settings) in enumerate(plans):
                progress(number * len(plans) + place, rounds * len(plans))
                found = pool.train(settings, threads, steps, WARM_UP)
                seconds[place].append(found.step.step_time_s)
                memory[place] = memory[place] or found.step.peak_memory_bytes
    progress(rounds * len(plans), rounds * len(plans))
    return Verification(_ranked([each for each, _ in plans], seconds, memory), tuple(left_out))


def _ranked(
    plans: Sequence[RankedPlan], seconds: Sequence[Sequence[float]], memory: Sequence[float | None]
) -> tuple[Verified, ...]:
    """Plans by the median of what was measured."""
    order = sorted(range(len(plans)), key=lambda place: median(seconds[place]))
    return tuple(
        Verified(
            plans[place].rank,
            rank,
            plans[place].plan,
            plans[place].step_time_s,
            median(seconds[place]),
            tuple(seconds[place]),
            plans[place].peak_memory_bytes,
            memory[place],
        )
        for rank, place in enumerate(order, 1)
    )
