"""What `towtank run` prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.cli.failure import InputError

if TYPE_CHECKING:
    from towtank.cli.run_job import Loaded
    from towtank.executor.launching.request import RunOutcome, RunRequest

_SMALLEST = 0.001
_MIB = 2**20


def report(
    outcome: "RunOutcome", request: "RunRequest", job: "Loaded", record: Path | None, *, json: bool
) -> None:
    """Write the record, and print what came of a run."""
    from towtank.cli.text import emit, emit_json

    if record is not None and outcome.record is not None:
        from towtank.executor.measured.run_record import write_run_record

        try:
            write_run_record(outcome.record, record)
        except OSError as error:
            raise InputError(f"--record {record}: cannot be written: {error.strerror or error}") from error
    if json:
        emit_json(_mapping(outcome, request, job))
    else:
        emit(_text(outcome, request, job, record))


def _flop(request: "RunRequest", job: "Loaded") -> float:
    """Model FLOP of a step, attention counted in full, as MFU is published."""
    from towtank.simulator.models.flop import model_flop_per_token

    sequence = request.settings.sizes.sequence
    return job.plan.global_batch * sequence * model_flop_per_token(job.model, sequence, causal=False)


def _totals(outcome: "RunOutcome", request: "RunRequest", job: "Loaded") -> dict[str, Any]:
    """Figures of the median step; None where no step was done or something is not known."""
    step_s = outcome.median_step_s
    tokens = job.plan.global_batch * request.settings.sizes.sequence
    rate = None if not step_s else _flop(request, job) / step_s / job.plan.num_devices
    peak = request.peak_flop_per_s
    return {
        "step_time_s": step_s,
        "tokens_per_step": tokens,
        "tokens_per_s": None if not step_s else tokens / step_s,
        "flop_per_s_per_device": rate,
        "mfu": None if rate is None or peak is None else rate / peak,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "loss": outcome.steps[-1].loss if outcome.steps else None,
        "gradient_norm": outcome.steps[-1].gradient_norm if outcome.steps else None,
    }


def _mapping(outcome: "RunOutcome", request: "RunRequest", job: "Loaded") -> dict[str, Any]:
    from dataclasses import asdict

    settings = request.settings
    return {
        "schema": 1,
        "ended": outcome.ended,
        "model": job.model.name,
        "stack": job.stack.name,
        "plan": dict(request.plan),
        "devices": job.plan.num_devices,
        "device": settings.device,
        "dtype": settings.dtype,
        "threads": outcome.threads,
        "first_step": outcome.first_step,
        "warm_up": outcome.warm_up,
        **_totals(outcome, request, job),
        "breakdown_s": None if outcome.record is None else dict(outcome.record.step.breakdown_s),
        "checkpoint": None if outcome.saved is None else str(outcome.saved),
        "steps": [asdict(step) for step in outcome.steps],
    }


def _text(outcome: "RunOutcome", request: "RunRequest", job: "Loaded", record: Path | None) -> str:
    from towtank.cli.prediction_text import layout
    from towtank.cli.text import count, paragraph, plural

    settings = request.settings
    threads = f", {plural(outcome.threads, 'thread')} each" if settings.device == "cpu" else ""
    head = paragraph(
        f"{job.model.name} on {plural(job.plan.num_devices, 'device')} ({settings.device}, {settings.dtype}"
        f"{threads}) under {job.stack.name}, {layout(job.plan)}, {count(job.plan.global_batch)} sequences",
        indent=0,
    )
    if not outcome.steps:
        done = (
            f"nothing to do: the checkpoint is of step {outcome.first_step}, and --steps is {settings.steps}"
        )
        return f"{head}\n\n{done}"
    parts = [head, _totals_table(outcome, request, job)]
    if outcome.record is not None:
        parts.append(_breakdown(outcome))
    parts += _files(outcome, request, record)
    return "\n\n".join(parts)


def _totals_table(outcome: "RunOutcome", request: "RunRequest", job: "Loaded") -> str:
    from towtank.cli.text import gibibytes, percent, plural, seconds, significant, table

    found, steps = _totals(outcome, request, job), outcome.steps
    measured = len(steps) - outcome.warm_up
    memory = found["peak_memory_bytes"]
    size = (
        "unknown" if memory is None else gibibytes(memory) if memory >= 2**30 else f"{memory / _MIB:,.1f} MiB"
    )
    above = "RSS above the empty process" if request.settings.device == "cpu" else "allocated"
    mfu = "unknown (name the machine with --machine)" if found["mfu"] is None else percent(found["mfu"])
    rows = [
        ("steps", f"{steps[0].number} to {steps[-1].number}" + _ending(outcome, request)),
        (
            "step time",
            f"{seconds(found['step_time_s'])} (median of {plural(measured, 'step')} after warm-up)",
        ),
        ("tokens/s", significant(found["tokens_per_s"])),
        ("TFLOP/s a device", significant(found["flop_per_s_per_device"] / 1e12)),
        ("MFU", mfu),
        ("memory at the peak", f"{size} ({above}, fullest rank)"),
        ("loss", f"{steps[0].loss:.4f} -> {steps[-1].loss:.4f}"),
    ]
    return table(rows)


def _ending(outcome: "RunOutcome", request: "RunRequest") -> str:
    if outcome.ended == "finished":
        return ""
    return f" of {request.settings.steps}: ended early by SIGTERM"


def _breakdown(outcome: "RunOutcome") -> str:
    from towtank.cli.text import percent, seconds, table

    assert outcome.record is not None
    step = outcome.record.step
    rows = [
        (row, seconds(value) if value > 0 else "0 s", percent(value / step.step_time_s))
        for row, value in step.breakdown_s.items()
        if value >= _SMALLEST * step.step_time_s
    ]
    return "Where the step goes (mean over devices)\n" + table(rows, right=(1, 2))


def _files(outcome: "RunOutcome", request: "RunRequest", record: Path | None) -> list[str]:
    lines = []
    if outcome.saved is not None:
        lines.append(f"checkpoint: {outcome.saved}")
    if record is not None:
        lines.append(f"record: {record} (towtank diff PLAN --record {record})")
    if request.trace is not None:
        lines.append(f"trace: {request.trace} (open it in Perfetto, ui.perfetto.dev)")
    return ["\n".join(lines)] if lines else []
