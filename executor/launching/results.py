"""What came of a run: its outcome and, where it was timed, its record and trace."""

from collections.abc import Sequence
from pathlib import Path

from towtank import __version__
from towtank.executor.errors import RecordError
from towtank.executor.launching.request import RunOutcome, RunRequest
from towtank.executor.measured.gather import Gathered, gather, gather_traces, peak_of_all, warm_up_of
from towtank.executor.measured.machine_facts import versions
from towtank.executor.measured.recorder import Recorder
from towtank.executor.measured.run_record import SCHEMA, MeasuredStep, RunFacts, RunRecord
from towtank.executor.measured.trace import write_measured_trace


def outcome_of(
    request: RunRequest,
    *,
    terminated: bool,
    first: int,
    steps: Sequence[MeasuredStep],
    recorder: Recorder | None,
    saved: Path | None,
    peak_memory_bytes: float | None,
    threads: int,
) -> RunOutcome | None:
    """Bring all ranks' measurements together; every rank calls it, rank 0 gets the outcome.

    Steps that were timed under a recorder have the mean time over devices, others that of rank 0.

    Raises:
        RecordError: the trace cannot be written.
    """
    record = None
    warm_up = min(
        warm_up_of(len(steps)) if request.warm_up is None else request.warm_up, max(0, len(steps) - 1)
    )
    rank_zero = True
    if recorder is not None and steps:
        gathered = gather(recorder.steps, warm_up, peak_memory_bytes)
        _write_trace(request, recorder)
        rank_zero = gathered is not None
        if gathered is not None:
            measured = _measured(steps[warm_up:], gathered)
            record = _record(request, gathered, measured, warm_up, threads)
            steps = [*steps[:warm_up], *measured]
    peak, is_zero = peak_of_all(peak_memory_bytes)
    if not (rank_zero and is_zero):
        return None
    return RunOutcome(
        "terminated" if terminated else "finished",
        first,
        tuple(steps),
        threads,
        record,
        saved,
        peak,
        warm_up,
    )


def _measured(steps: Sequence[MeasuredStep], gathered: Gathered) -> tuple[MeasuredStep, ...]:
    return tuple(
        MeasuredStep(one.number, seconds, one.loss, one.gradient_norm)
        for one, seconds in zip(steps, gathered.step_s, strict=True)
    )


def _record(
    request: RunRequest, gathered: Gathered, steps: tuple[MeasuredStep, ...], warm_up: int, threads: int
) -> RunRecord:
    settings = request.settings
    plan = settings.plan
    return RunRecord(
        schema=SCHEMA,
        towtank=__version__,
        source="towtank",
        step=gathered.step,
        model=request.model,
        stack=request.stack,
        plan=request.plan,
        run=RunFacts(
            devices=plan.num_devices,
            device_type=settings.device,
            dtype=settings.dtype,
            threads=threads,
            seed=settings.seed,
            steps=len(steps),
            warm_up=warm_up,
            tokens_per_step=plan.global_batch * settings.sizes.sequence,
        ),
        machine=gathered.machine,
        versions=versions(),
        steps=steps,
        ranks=gathered.ranks,
        notes=gathered.notes,
    )


def _write_trace(request: RunRequest, recorder: Recorder) -> None:
    """Write the timeline of the last step of all ranks."""
    if request.trace is None:
        return
    traces = gather_traces(recorder.steps[-1])
    if traces:
        about = {"model": request.model, "stack": request.stack, "towtank": __version__}
        try:
            write_measured_trace(traces, request.trace, about)
        except OSError as error:
            raise RecordError(f"--trace {request.trace}: cannot be written: {error.strerror}") from error
