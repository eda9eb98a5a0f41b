"""A calibration from measurements: `towtank calibrate`."""

import datetime
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from towtank.executor.calibrate.fit import Sample
from towtank.executor.calibrate.from_steps import MeasuredRun
from towtank.executor.calibrate.journal import Journal
from towtank.executor.calibrate.measurements import beside, write_measurements
from towtank.executor.calibrate.pairs import Pair, load_pairs
from towtank.executor.calibrate.points import Mode
from towtank.executor.calibrate.pool import CalibrationError, Pool
from towtank.executor.calibrate.refit import fitted, process_bytes, with_steps
from towtank.executor.calibrate.sweep import Progress, Swept, sweep
from towtank.hardware_profiles.calibrated.here import Here, here
from towtank.hardware_profiles.calibrated.read import path_of, write_calibration
from towtank.hardware_profiles.calibrated.records import Calibration, Hardware, threads_of
from towtank.hardware_profiles.load import list_machines

_STEPS: dict[Mode, tuple[int, int]] = {"quick": (3, 1), "full": (12, 3)}
"""Steps of a probe that are measured, and those before."""
MOST_ON_CPU = 4
"""Processes of a CPU machine that are measured at once unless the user asks for more."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to calibrate."""

    name: str
    mode: Mode
    device_type: str
    process_counts: tuple[int, ...]
    precisions: tuple[str, ...]
    cores: int | None
    """That processes may use; of a CPU."""


def request_for(name: str, mode: Mode, processes: int | None, found: Here) -> Request:
    """The request for this machine: 1, 2, 4, ... processes up to `processes` (by default 4 on a CPU, else all GPUs).

    Raises:
        CalibrationError: a name that a profile has, or that is no name; more processes than can be.
    """
    faults = _name_faults(name)
    device_type = "cuda" if found.gpus and _torch_has_gpus() else "cpu"
    usual = len(found.gpus) if device_type == "cuda" else MOST_ON_CPU
    most = usual if processes is None else processes
    if most < 1:
        faults.append(f"--processes {most}: a number from 1 is needed")
    if device_type == "cuda" and most > len(found.gpus):
        faults.append(f"--processes {most}: this machine has {len(found.gpus)} GPUs; take at most as many")
    if device_type == "cpu" and most > 8 * found.cores:
        faults.append(
            f"--processes {most}: this machine has {found.cores} cores; take at most {8 * found.cores}"
        )
    if faults:
        raise CalibrationError("; ".join(faults))
    counts = tuple(2**power for power in range(most.bit_length()) if 2**power <= most)
    counts = counts if counts[-1] == most else (*counts, most)
    cores = found.cores if device_type == "cpu" else None
    return Request(name, mode, device_type, counts, ("fp32", "bf16"), cores)


def _name_faults(name: str) -> list[str]:
    import re

    from towtank.hardware_profiles.parse import PROFILE_NAME

    if not re.fullmatch(PROFILE_NAME, name):
        return [f"--out {name}: a name is lower-case letters, digits, dots and dashes"]
    if name in list_machines():
        return [f"--out {name}: a machine of that name is known already; take another name"]
    return []


def _torch_has_gpus() -> bool:
    import torch

    return torch.cuda.is_available()


def calibrate(request: Request, progress: Progress) -> tuple[Calibration, Path]:
    """Measure, fit and write; returns the calibration and its file.

    Raises:
        CalibrationError: a worker failed. ProfileError: the file cannot be written.
    """
    path = path_of(request.name)
    journal = Journal(path.with_suffix(".journal"), _identity(request))
    probes = [pair for pair in load_pairs("probes") if pair.plan.num_devices in request.process_counts]
    with Pool(request.process_counts, request.device_type) as pool:
        # the first steps are trained before the sweeps: their memory is that of a process that has done nothing else
        largest = max(probes, key=lambda pair: pair.plan.num_devices)
        clean = _run(largest, request, pool)
        swept = sweep(
            request.device_type,
            request.mode,
            request.process_counts,
            request.precisions,
            request.cores,
            journal,
            progress,
            pool,
        )
        runs = [_run(pair, request, pool) for pair in sorted(probes, key=lambda pair: -pair.plan.num_devices)]
    swept = with_steps(swept, runs)
    calibration = fitted(assemble(request, here(), swept), swept, runs, process_bytes([clean]))
    write_calibration(path, calibration, notes(request))
    write_measurements(beside(path), swept)
    journal.remove()
    return calibration, path


def _run(pair: Pair, request: Request, pool: Pool) -> MeasuredRun:
    """Train a few steps of a pair."""
    threads = threads_of(request.cores, pair.plan.num_devices)
    settings = replace(pair.settings(), device="cpu" if request.device_type == "cpu" else "cuda")
    found = pool.train(settings, threads, *_STEPS[request.mode])
    return MeasuredRun(pair.model, pair.plan, pair.stack, found.step, pair.plan.precision, threads)


def notes(request: Request) -> str:
    """First lines of a calibration file."""
    return (
        f"Written by `towtank calibrate --{request.mode} --out {request.name}` and by nobody else.\n"
        "Terms are seconds for one of each feature (towtank.simulator.cost.calibrated)."
    )


def assemble(request: Request, found: Here, swept: Swept) -> Calibration:
    """The calibration of what was swept, before its kernels are fitted."""
    on_cpu = request.device_type == "cpu"
    memory = found.memory_bytes if on_cpu else float(found.gpu_memory_bytes or 0.0)
    hardware = Hardware(
        request.device_type,
        found.processor if on_cpu else found.gpus[0],
        request.cores,
        memory,
        found.cache_bytes if on_cpu else None,
    )
    return Calibration(
        name=request.name,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        mode=request.mode,
        software=software(request.device_type),
        hardware=hardware,
        process_counts=request.process_counts,
        memory_bandwidth_bytes_per_s=_bandwidth(swept.samples),
        process_bytes=0.0,
        kernels=(),
        collectives=swept.collectives,
    )


def _bandwidth(samples: Sequence[Sample]) -> float:
    """Bytes per second of the largest copy of one process alone."""
    copies = [s for s in samples if s.kernel == "elementwise" and s.processes == 1]
    most = max(sample.features["bytes"] for sample in copies)
    largest = min((s for s in copies if s.features["bytes"] == most), key=lambda s: s.seconds)
    return largest.features["bytes"] / largest.seconds


def software(device_type: str) -> str:
    """Versions that decide what runs."""
    import torch

    library = "gloo" if device_type == "cpu" else f"cuda {torch.version.cuda}"
    return f"torch {torch.__version__.split('+')[0]}, {library}"


def _identity(request: Request) -> dict[str, Any]:
    """What a journal must agree in to be gone on with."""
    plain = asdict(request)
    return {
        **{key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()},
        "of": _hardware(),
        "with": software(request.device_type),
    }


def _hardware() -> str:
    """The machine, so that a journal from elsewhere is not taken for ours."""
    found = here()
    return f"{found.processor} {found.cores} {' '.join(found.gpus)} {os.sysconf('SC_PHYS_PAGES')}"
