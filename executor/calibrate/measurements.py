"""The raw measurements of a calibration beside it, as a table: what fits to real steps are made on top of."""

import csv
from collections.abc import Sequence
from pathlib import Path

from towtank.executor.calibrate.fit import Sample
from towtank.executor.calibrate.from_steps import STEP_WEIGHT, CollectiveSample
from towtank.executor.calibrate.pool import CalibrationError
from towtank.executor.calibrate.sweep import Swept
from towtank.hardware_profiles.calibrated.records import CollectiveTimes

COLUMNS = ("kind", "name", "precision", "size", "threads", "processes", "features", "seconds")


def beside(path: Path) -> Path:
    """The table that belongs to a calibration file."""
    return path.with_suffix(".measurements.csv")


def write_measurements(path: Path, swept: Swept) -> None:
    """Write the table, whole or not at all; raises CalibrationError where it cannot."""
    partial = path.with_suffix(".partial")
    try:
        _write(partial, swept)
        partial.replace(path)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be written: {error.strerror}") from error


def _write(path: Path, swept: Swept) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for kind, samples in (("kernel", swept.samples), ("kernel in steps", swept.steps)):
            for sample in samples:
                features = " ".join(f"{name}={value:.9g}" for name, value in sample.features.items())
                where = (sample.threads, sample.processes)
                seconds = f"{sample.seconds:.5g}"
                writer.writerow([kind, sample.kernel, sample.precision, "", *where, features, seconds])
        for row in swept.collectives:
            for num_bytes, time in zip(row.message_bytes, row.seconds, strict=True):
                size = f"bytes={num_bytes:.9g}"
                writer.writerow(
                    ["collective", row.collective, "", row.size, "", row.processes, size, f"{time:.5g}"]
                )
        for each in swept.waited:
            size = f"bytes={each.message_bytes:.9g}"
            row_of = ["collective in steps", each.collective, "", each.size, "", each.processes]
            writer.writerow([*row_of, size, f"{each.seconds:.5g}"])


def read_measurements(path: Path) -> Swept:
    """Read the table.

    Raises:
        CalibrationError: it is missing, or no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        kernels, steps = (
            tuple(_sample(row, weight) for row in rows if row["kind"] == kind)
            for kind, weight in (("kernel", 1.0), ("kernel in steps", STEP_WEIGHT))
        )
        waited = tuple(_waited(row) for row in rows if row["kind"] == "collective in steps")
        return Swept(kernels, _tables(rows), steps, waited)
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}; run `towtank calibrate` first") from error
    except (KeyError, ValueError, TypeError) as error:
        raise CalibrationError(
            f"{path}: is no table of measurements ({error}); run `towtank calibrate`"
        ) from error


def _features(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in (each.split("=") for each in text.split())}


def _waited(row: dict[str, str]) -> CollectiveSample:
    num_bytes = _features(row["features"])["bytes"]
    return CollectiveSample(
        row["name"], int(row["size"]), int(row["processes"]), num_bytes, float(row["seconds"])
    )


def _sample(row: dict[str, str], weight: float) -> Sample:
    return Sample(
        row["name"],
        row["precision"],
        int(row["threads"]),
        int(row["processes"]),
        _features(row["features"]),
        float(row["seconds"]),
        weight,
    )


def _tables(rows: Sequence[dict[str, str]]) -> tuple[CollectiveTimes, ...]:
    found: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for row in rows:
        if row["kind"] == "collective":
            key = (row["name"], int(row["size"]), int(row["processes"]))
            found.setdefault(key, []).append((_features(row["features"])["bytes"], float(row["seconds"])))
    return tuple(
        CollectiveTimes(*key, *(tuple(column) for column in zip(*sorted(row), strict=True)))
        for key, row in found.items()
    )
