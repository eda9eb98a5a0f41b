"""Predict rows of a table of runs, in parallel; a row that fails says why and stops no other."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from towtank.simulator.cost.compute import peak
from towtank.simulator.predict import Prediction, predict
from towtank.validation.express import Expressed, Inexpressible, express
from towtank.validation.features import Features, features_of
from towtank.validation.mapping.memory import comparable_bytes
from towtank.validation.parallel import Progress, in_parallel
from towtank.validation.rows import Run


@dataclass(frozen=True, slots=True)
class Result:
    """One row and what was predicted for it; None where nothing was, or the row prints nothing."""

    run: Run
    status: Literal["ok", "inexpressible"]
    reason: str | None = None
    assumptions: tuple[str, ...] = ()
    stack: str = ""
    machine: str = ""
    device: str = ""
    num_devices: int = 0
    precision: str = ""
    moe: bool = False
    predicted_step_time_s: float | None = None
    predicted_peak_memory_bytes: float | None = None
    """Whole need of the fullest stage: what decides whether the plan fits."""
    comparable_memory_bytes: float | None = None
    """The part of it that the source's figure holds (tensors, allocator's blocks, or all)."""
    measured_peak_memory_bytes: float | None = None
    capacity_bytes: float | None = None
    fits: bool | None = None
    model_flop: float = 0.0
    peak_flop_per_s: float = 0.0
    """Dense peak of one device in the row's precision."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Part of the predicted step by what it is spent on."""
    features: Features | None = None
    """What intervals go by."""

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured step time, signed; None where either is missing."""
        if self.predicted_step_time_s is None or self.run.step_time_s is None:
            return None
        return self.predicted_step_time_s / self.run.step_time_s - 1

    @property
    def memory_error(self) -> float | None:
        """(predicted - measured) / measured peak memory, signed."""
        if self.comparable_memory_bytes is None or self.measured_peak_memory_bytes is None:
            return None
        return self.comparable_memory_bytes / self.measured_peak_memory_bytes - 1


def evaluate_run(run: Run) -> Result:
    """Predict one row. Never raises: a fault of ours is the reason of a row that counts as not expressed."""
    try:
        expressed = express(run)
        if isinstance(expressed, Inexpressible):
            return Result(run, "inexpressible", expressed.reason)
        prediction = predict(expressed.model, expressed.machine, expressed.plan, stack=expressed.stack)
        return _result(run, expressed, prediction)
    except Exception as error:
        return Result(run, "inexpressible", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _result(run: Run, expressed: Expressed, prediction: Prediction) -> Result:
    measured = run.peak_mem_gib * 2**30 if run.peak_mem_gib else None
    return Result(
        run=run,
        status="ok",
        assumptions=expressed.assumptions,
        stack=expressed.stack.name,
        machine=expressed.machine.name,
        device=expressed.machine.device.name,
        num_devices=expressed.plan.num_devices,
        precision=expressed.plan.precision,
        moe=expressed.model.experts is not None,
        predicted_step_time_s=prediction.step_time_s * expressed.step_share,
        predicted_peak_memory_bytes=prediction.peak_memory_bytes,
        comparable_memory_bytes=comparable_bytes(run, prediction.memory),
        measured_peak_memory_bytes=measured,
        capacity_bytes=prediction.memory_capacity_bytes,
        fits=prediction.fits,
        model_flop=prediction.model_flop,
        peak_flop_per_s=peak(expressed.machine.device, expressed.plan.precision),
        features=features_of(prediction),
        shares={name: part / prediction.step_time_s for name, part in prediction.breakdown_s.items()},
    )


def evaluate(runs: Sequence[Run], jobs: int | None = None, progress: Progress | None = None) -> list[Result]:
    """Predict every row; the results are in the order of the rows. Arguments as of `in_parallel`."""
    return in_parallel(evaluate_run, runs, likeness, jobs, progress)


def likeness(run: Run) -> tuple[str, ...]:
    """Rows that sort together share machines, shapes and schedules, which a worker keeps."""
    return (run.device, run.framework, run.model, str(run.tp), str(run.pp), str(run.micro_batch))


def progress_bar(done: int, total: int) -> None:
    """A bar on the standard error stream, if a person watches it."""
    if not sys.stderr.isatty():
        return
    width = 40
    filled = width * done // total
    end = "\n" if done == total else ""
    sys.stderr.write(f"\r  [{'#' * filled}{'.' * (width - filled)}] {done} of {total} runs{end}")
    sys.stderr.flush()
