"""Reading and writing calibration files, and where they lie."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from towtank.hardware_profiles.calibrated.records import (
    Calibration,
    CollectiveTimes,
    Hardware,
    KernelFit,
    Residual,
)
from towtank.hardware_profiles.errors import InvalidProfile, ProfileError
from towtank.hardware_profiles.files import read
from towtank.hardware_profiles.units import parse_quantity

ENVIRONMENT: Final = "TOWTANK_CALIBRATIONS"
"""Folder of calibrations; without it they lie in `calibrations` of the working folder."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Residual(_Strict):
    samples: int = Field(ge=1)
    median: float = Field(ge=0)
    p90: float = Field(ge=0)


class _Kernel(_Strict):
    kernel: str
    precision: str
    threads: int = Field(ge=1)
    processes: int = Field(ge=1)
    terms: dict[str, float]
    intervals_90: dict[str, tuple[float, float]]
    residual: _Residual


class _Collective(_Strict):
    collective: str
    size: int = Field(ge=2)
    processes: int = Field(ge=2)
    message_bytes: list[float] = Field(min_length=1)
    seconds: list[float] = Field(min_length=1)


class _Hardware(_Strict):
    device_type: str
    processor: str
    cores: int | None = Field(ge=1)
    memory: str
    cache: str | None


class _File(_Strict):
    name: str
    date: str
    mode: str
    software: str
    hardware: _Hardware
    process_counts: list[int] = Field(min_length=1)
    memory_bandwidth: str
    process_memory: str
    steps: _Residual | None
    kernels: list[_Kernel] = Field(min_length=1)
    collectives: list[_Collective]


def folder() -> Path:
    """The folder in which calibrations lie."""
    return Path(os.environ.get(ENVIRONMENT) or "calibrations")


def path_of(name: str) -> Path:
    """Where the calibration of that name lies, or would."""
    return folder() / f"{name}.yaml"


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        InvalidProfile: the file is wrong; all faults are listed.
        ProfileError: the file cannot be read.
    """
    try:
        data = read(path)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        raise InvalidProfile(path, [_fault(each) for each in error.errors()]) from error
    faults = _faults(file, path)
    if faults:
        raise InvalidProfile(path, faults)
    return _record(file)


def _fault(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}; write the file by `towtank calibrate`"


def _faults(file: _File, path: Path) -> list[str]:
    faults = [] if file.name == path.stem else [f"name: must be that of the file, {path.stem!r}"]
    if sorted(set(file.process_counts)) != file.process_counts:
        faults.append(f"process_counts: numbers in order are needed, got {file.process_counts}")
    for number, kernel in enumerate(file.kernels):
        if any(value < 0 for value in kernel.terms.values()) or not kernel.terms:
            faults.append(f"kernels.{number} ({kernel.kernel}): terms must be seconds of 0 or more")
    for number, row in enumerate(file.collectives):
        sizes = row.message_bytes
        if len(sizes) != len(row.seconds) or sorted(set(sizes)) != sizes or min(sizes) <= 0:
            faults.append(f"collectives.{number}: message_bytes must increase, with one time for each")
        elif min(row.seconds) <= 0:
            faults.append(f"collectives.{number}: seconds must be above 0")
    return faults


def _record(file: _File) -> Calibration:
    hardware = file.hardware
    return Calibration(
        file.name,
        file.date,
        file.mode,
        file.software,
        Hardware(
            hardware.device_type,
            hardware.processor,
            hardware.cores,
            parse_quantity(hardware.memory, "bytes"),
            None if hardware.cache is None else parse_quantity(hardware.cache, "bytes"),
        ),
        tuple(file.process_counts),
        parse_quantity(file.memory_bandwidth, "bytes_per_s"),
        parse_quantity(file.process_memory, "bytes"),
        tuple(
            KernelFit(
                each.kernel,
                each.precision,
                each.threads,
                each.processes,
                each.terms,
                each.intervals_90,
                _residual(each.residual),
            )
            for each in file.kernels
        ),
        tuple(
            CollectiveTimes(
                each.collective, each.size, each.processes, tuple(each.message_bytes), tuple(each.seconds)
            )
            for each in file.collectives
        ),
        None if file.steps is None else _residual(file.steps),
    )


def _residual(found: _Residual) -> Residual:
    return Residual(found.samples, found.median, found.p90)


def write_calibration(path: Path, calibration: Calibration, notes: str) -> None:
    """Write a calibration file; `notes` are lines of comments at its head.

    Raises:
        ProfileError: the file cannot be written.
    """
    text = "".join(f"# {line}\n" for line in notes.splitlines())
    body = yaml.dump(_document(calibration), Dumper=_Dumper, sort_keys=False, width=160)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text + body, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        _cannot_write(path, error)


def _cannot_write(path: Path, error: OSError) -> NoReturn:
    raise ProfileError(f"{path}: cannot be written: {error.strerror}") from error


class _Flow(dict[str, Any]):
    """A mapping on one line."""


class _Dumper(yaml.SafeDumper):
    """YAML with the rows of tables on one line each."""


_Dumper.add_representer(
    _Flow,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True),
)


def _number(value: float) -> float:
    return float(f"{value:.4g}")


def _document(calibration: Calibration) -> dict[str, Any]:
    hardware = calibration.hardware
    return {
        "name": calibration.name,
        "date": calibration.date,
        "mode": calibration.mode,
        "software": calibration.software,
        "hardware": {
            "device_type": hardware.device_type,
            "processor": hardware.processor,
            "cores": hardware.cores,
            "memory": f"{hardware.memory_bytes / 2**20:.0f} MiB",
            "cache": None if hardware.cache_bytes is None else f"{hardware.cache_bytes / 2**10:.0f} KiB",
        },
        "process_counts": list(calibration.process_counts),
        "memory_bandwidth": f"{calibration.memory_bandwidth_bytes_per_s / 1e9:.4g} GB/s",
        "process_memory": f"{calibration.process_bytes / 2**20:.2f} MiB",
        "steps": None if calibration.steps is None else _flow_residual(calibration.steps),
        "kernels": [_kernel_row(fit) for fit in calibration.kernels],
        "collectives": [
            _Flow(
                collective=row.collective,
                size=row.size,
                processes=row.processes,
                message_bytes=list(row.message_bytes),
                seconds=[_number(each) for each in row.seconds],
            )
            for row in calibration.collectives
        ],
    }


def _kernel_row(fit: KernelFit) -> _Flow:
    return _Flow(
        kernel=fit.kernel,
        precision=fit.precision,
        threads=fit.threads,
        processes=fit.processes,
        terms=_Flow({name: _number(value) for name, value in fit.terms.items()}),
        intervals_90=_Flow(
            {name: [_number(low), _number(high)] for name, (low, high) in fit.intervals_90.items()}
        ),
        residual=_flow_residual(fit.residual),
    )


def _flow_residual(residual: Residual) -> _Flow:
    return _Flow(samples=residual.samples, median=_number(residual.median), p90=_number(residual.p90))
