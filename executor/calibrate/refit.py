"""`towtank calibrate --from`: a calibration fitted to real steps, on top of its sweeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from towtank.executor.calibrate.fit import fit_kernels, levelled
from towtank.executor.calibrate.from_steps import (
    MeasuredRun,
    collective_samples,
    kernel_samples,
    with_waits,
)
from towtank.executor.calibrate.measurements import beside, read_measurements, write_measurements
from towtank.executor.calibrate.sweep import Swept
from towtank.executor.errors import RecordError
from towtank.executor.measured.run_record import RunRecord, read_run_record
from towtank.hardware_profiles.calibrated.machine import machine_of
from towtank.hardware_profiles.calibrated.read import path_of, read_calibration, write_calibration
from towtank.hardware_profiles.calibrated.records import Calibration, Residual, threads_of
from towtank.simulator.memory import stage_memories
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_from_mapping
from towtank.simulator.predict import predict
from towtank.simulator.program import lower
from towtank.simulator.stacks.load import load_stack

_NOTES = "Written by `towtank calibrate` and by nobody else."


def refit(name: str, records: Sequence[Path]) -> tuple[Calibration, Path]:
    """Fit the calibration of that name to records of runs as well, and write it.

    Raises:
        CalibrationError: there is no calibration yet. RecordError: a file is no record, or not of a run on this
        machine that can be fitted to. ProfileError: the calibration is wrong or cannot be written.
    """
    path = path_of(name)
    swept = read_measurements(beside(path))
    before = read_calibration(path)
    found_records = [(record, read_run_record(record)) for record in records]
    faults = [fault for file, record in found_records for fault in _faults(file, record, before)]
    if faults:
        raise RecordError("; ".join(faults))
    runs = [measured_run(file, record) for file, record in found_records]
    swept = with_steps(swept, runs)
    found = fitted(before, swept, runs, before.process_bytes)
    write_calibration(path, found, f"{_NOTES}\nFitted to {len(runs)} further steps (--from).")
    write_measurements(beside(path), swept)
    return found, path


def _faults(path: Path, record: RunRecord, calibration: Calibration) -> list[str]:
    """Why a record cannot be fitted to: times of something else than what the calibration predicts."""
    run, machine, hardware = record.run, record.machine, calibration.hardware
    if run is None or machine is None or record.plan is None or record.model is None or record.stack is None:
        return [f"{path}: names no model, plan and stack; only records of `towtank run` can be fitted to"]
    found = []
    names = machine.devices if hardware.device_type == "cuda" else (machine.processor,)
    if run.device_type != hardware.device_type or hardware.processor not in names:
        found.append(
            f"was measured on {', '.join(names) or 'a CPU'} ({run.device_type}), but {calibration.name} is of "
            f"{hardware.processor} ({hardware.device_type})"
        )
    if machine.nodes > 1:
        found.append(f"is of {machine.nodes} nodes, and a calibration of one")
    if run.devices not in calibration.process_counts:
        counts = ", ".join(map(str, calibration.process_counts))
        found.append(
            f"is of {run.devices} processes, but {calibration.name} was measured with {counts}; run "
            f"`towtank calibrate --out {calibration.name} --processes {run.devices}` first"
        )
    threads = threads_of(hardware.cores, run.devices)
    if hardware.device_type == "cpu" and run.threads != threads:
        found.append(
            f"has {run.threads} threads a process, but {run.devices} processes are predicted with {threads}; leave "
            f"--threads out"
        )
    precision = str(record.plan.get("precision", Plan().precision))
    if run.dtype != {"tf32": "fp32"}.get(precision, precision):
        found.append(
            f"was run with --dtype {run.dtype}, but its plan's precision is {precision}; leave it out"
        )
    return [f"{path}: {each}" for each in found]


def measured_run(path: Path, record: RunRecord) -> MeasuredRun:
    """The measured step of a record without faults, with its model, plan and stack.

    Raises:
        PlanError, ModelError or StackError: what it names cannot be loaded.
    """
    assert record.plan is not None and record.model is not None and record.stack is not None and record.run
    plan = plan_from_mapping(dict(record.plan), str(path))
    model, stack = load_model(record.model), load_stack(record.stack)
    # calls of a GPU are fitted under one thread: those of the host do not share its work
    threads = 1 if record.run.device_type == "cuda" else record.run.threads or 1
    return MeasuredRun(model, plan, stack, record.step, plan.precision, threads)


def with_steps(swept: Swept, runs: Sequence[MeasuredRun]) -> Swept:
    """The measurements with those of further steps."""
    kernels = [sample for run in runs for sample in kernel_samples(run)]
    waited = [sample for run in runs for sample in collective_samples(run)]
    return replace(swept, steps=(*swept.steps, *kernels), waited=(*swept.waited, *waited))


def fitted(
    calibration: Calibration, swept: Swept, runs: Sequence[MeasuredRun], process: float
) -> Calibration:
    """The calibration of sweeps and steps: kernels, and what groups wait for each other.

    `process`: bytes of a process besides tensors.
    """
    found = replace(
        calibration,
        kernels=fit_kernels(levelled(swept.samples, swept.steps)),
        collectives=with_waits(swept.collectives, swept.waited),
        process_bytes=process,
    )
    return replace(found, steps=judged(found, runs))


def process_bytes(runs: Sequence[MeasuredRun]) -> float:
    """Memory of a process besides tensors: median of measured less counted peak, not below 0."""
    from statistics import median

    late = [
        run.step.peak_memory_bytes - tensors_bytes(run)
        for run in runs
        if run.step.peak_memory_bytes is not None
    ]
    return max(0.0, median(late)) if late else 0.0


def tensors_bytes(run: MeasuredRun) -> float:
    """Predicted peak without context of the device."""
    stages = stage_memories(lower(run.model, run.plan, run.stack))
    return max(stage.peak_bytes - stage.parts["device context"] for stage in stages)


def judged(calibration: Calibration, runs: Sequence[MeasuredRun]) -> Residual | None:
    """How far predictions of the steps are from what was measured."""
    import numpy as np

    machine = machine_of(calibration)
    errors = [
        abs(predict(run.model, machine, run.plan, stack=run.stack).step_time_s / run.step.step_time_s - 1)
        for run in runs
    ]
    if not errors:
        return None
    return Residual(len(errors), float(np.median(errors)), float(np.quantile(errors, 0.9)))
