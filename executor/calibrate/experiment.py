"""The accuracy of predictions on this machine: calibrate, predict pairs that were not seen, run them, compare.

`python -m towtank.executor.calibrate.experiment --out FOLDER` writes calibrations and a table there and prints it.
The speed of a machine drifts over minutes, most of all that of a virtual one, so calibrating and measuring take
turns: each round calibrates, predicts all pairs and only then runs them; medians over rounds are compared. Leave the
machine alone meanwhile (a quarter of an hour or so). Captures under version control lie in `captures/`; a test
repeats their predictions and holds the errors.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from towtank.executor.calibrate.build import calibrate, request_for
from towtank.executor.calibrate.pairs import Pair, load_pairs
from towtank.executor.calibrate.pool import Pool
from towtank.hardware_profiles.calibrated.here import here
from towtank.hardware_profiles.calibrated.machine import machine_of
from towtank.hardware_profiles.calibrated.read import ENVIRONMENT, read_calibration
from towtank.hardware_profiles.calibrated.records import Calibration, threads_of
from towtank.simulator.predict import predict

NAME = "experiment"
"""Name of the table; calibrations have the number of their round behind it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pair, predicted and measured; medians over rounds."""

    pair: str
    processes: int
    predicted_s: float
    measured_s: float
    least_s: float
    """Least of the rounds."""
    most_s: float
    predicted_bytes: float
    measured_bytes: float

    @property
    def error(self) -> float:
        """Relative error of the step time."""
        return self.predicted_s / self.measured_s - 1

    @property
    def memory_error(self) -> float:
        """Relative error of the peak memory."""
        return self.predicted_bytes / self.measured_bytes - 1


@dataclass(frozen=True, slots=True)
class Summary:
    """What the issue asks for: relative errors of step times and of peak memory, and the order of the plans."""

    pairs: int
    median_error: float
    worst_error: float
    spearman: float
    median_memory_error: float


def summary(rows: Sequence[Row]) -> Summary:
    """Figures of a table."""
    errors = [abs(row.error) for row in rows]
    return Summary(
        len(rows),
        median(errors),
        max(errors),
        spearman([row.predicted_s for row in rows], [row.measured_s for row in rows]),
        median(abs(row.memory_error) for row in rows),
    )


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation of the ranks of two lists of the same things."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def predictions(calibration: Calibration, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Predicted seconds of a step and peak bytes of a process, of each pair."""
    machine = machine_of(calibration)
    found = [predict(pair.model, machine, pair.plan, stack=pair.stack) for pair in pairs]
    return [(each.step_time_s, each.peak_memory_bytes) for each in found]


def measure(pair: Pair, cores: int | None, steps: int, warm_up: int) -> tuple[float, float]:
    """Seconds of the median step and peak bytes of the fullest process, in new processes."""
    processes = pair.plan.num_devices
    with Pool((processes,), "cpu") as pool:
        found = pool.train(pair.settings(), threads_of(cores, processes), steps, warm_up)
    return found.step.step_time_s, found.step.peak_memory_bytes or 0.0


def median_predictions(folder: Path, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Predictions by the calibrations of all rounds in a folder: medians of seconds and of bytes, of each pair.

    Raises:
        ProfileError: a calibration cannot be read.
    """
    rounds = [predictions(read_calibration(path), pairs) for path in sorted(folder.glob(f"{NAME}-*.yaml"))]
    return [
        (median(each[0] for each in found), median(each[1] for each in found))
        for found in zip(*rounds, strict=True)
    ]


def run(folder: Path, rounds: int, steps: int) -> list[Row]:
    """The whole experiment."""
    pairs = load_pairs("experiment")
    times: list[list[float]] = [[] for _ in pairs]
    memory: list[list[float]] = [[] for _ in pairs]
    for number in range(1, rounds + 1):
        calibration = _calibration(folder, number)
        for place, pair in enumerate(pairs):
            _say(f"round {number} of {rounds}, {place + 1} of {len(pairs)}: {pair.name}")
            seconds, num_bytes = measure(pair, calibration.hardware.cores, steps, 2)
            times[place].append(seconds)
            memory[place].append(num_bytes)
    predicted = median_predictions(folder, pairs)
    return [
        Row(
            pair.name,
            pair.plan.num_devices,
            *(predicted[place][0], median(times[place]), min(times[place]), max(times[place])),
            *(predicted[place][1], median(memory[place])),
        )
        for place, pair in enumerate(pairs)
    ]


def _calibration(folder: Path, number: int) -> Calibration:
    os.environ[ENVIRONMENT] = str(folder)
    begin = time.perf_counter()
    found, path = calibrate(request_for(f"{NAME}-{number}", "quick", None, here()), lambda done, total: None)
    _say(f"calibrated in {time.perf_counter() - begin:.0f} s: {path}")
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


COLUMNS = tuple(each.name for each in fields(Row))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            cells = asdict(row).values()
            writer.writerow([f"{each:.6g}" if isinstance(each, float) else each for each in cells])


def read_rows(path: Path) -> list[Row]:
    """Read the table."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(row["pair"], int(row["processes"]), *(float(row[name]) for name in COLUMNS[2:]))
            for row in csv.DictReader(file)
        ]


def table(rows: Sequence[Row]) -> str:
    """The table as text, with its summary."""
    heads = ("pair", "n", "predicted", "measured", "error", "rounds", "memory", "error")
    lines = ["{:64} {:>2} {:>10} {:>10} {:>7} {:>15} {:>17} {:>7}".format(*heads)]
    for row in rows:
        memory = f"{row.predicted_bytes / 1e6:.0f} / {row.measured_bytes / 1e6:.0f} MB"
        spread = f"{row.least_s * 1e3:.0f} to {row.most_s * 1e3:.0f}"
        lines.append(
            f"{row.pair:64} {row.processes:2} {row.predicted_s * 1e3:7.1f} ms {row.measured_s * 1e3:7.1f} ms "
            f"{row.error:+7.1%} {spread:>15} {memory:>17} {row.memory_error:+7.1%}"
        )
    found = summary(rows)
    lines.append(
        f"{found.pairs} pairs: step time median error {found.median_error:.1%}, worst {found.worst_error:.1%}, "
        f"Spearman {found.spearman:.3f}; peak memory median error {found.median_memory_error:.1%}"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m towtank.executor.calibrate.experiment", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where files are written")
    parser.add_argument("--rounds", type=int, default=3, help="how often to calibrate and to run all pairs")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each run")
    parser.add_argument("--show", action="store_true", help="only print the table that is in the folder")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{NAME}.csv"
    if not given.show:
        write_rows(path, run(given.out, given.rounds, given.steps))
    print(table(read_rows(path)))


if __name__ == "__main__":
    main()
