"""The sweeps of a calibration: all points, by number of processes at work, resumable."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from towtank.executor.calibrate.fit import Sample
from towtank.executor.calibrate.from_steps import CollectiveSample
from towtank.executor.calibrate.journal import Journal
from towtank.executor.calibrate.points import (
    CollectivePoint,
    KernelPoint,
    Mode,
    collective_points,
    kernel_points,
    sweep_of,
)
from towtank.executor.calibrate.pool import Order, Pool
from towtank.hardware_profiles.calibrated.records import CollectiveTimes, settings_of, threads_of

_BATCH = 12
"""Points that workers measure between two looks at the progress bar."""
_WINDOWS: dict[Mode, tuple[float, int]] = {"quick": (0.012, 3), "full": (0.15, 5)}
"""Seconds of a window in which calls repeat, and windows of which the median counts."""
_PATIENCE_S: dict[Mode, float] = {"quick": 40.0, "full": 900.0}
"""Seconds after which each point gets a single window, so that a slow or busy machine does not take for ever."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Swept:
    """What the sweeps found."""

    samples: tuple[Sample, ...]
    collectives: tuple[CollectiveTimes, ...]
    steps: tuple[Sample, ...] = ()
    """Kernels in real steps."""
    waited: tuple[CollectiveSample, ...] = ()
    """Collectives in real steps."""


def sweep(
    device_type: str,
    mode: Mode,
    counts: Sequence[int],
    precisions: Sequence[str],
    cores: int | None,
    journal: Journal,
    progress: Progress,
    pool: Pool,
) -> Swept:
    """Measure everything that the journal does not hold yet.

    Raises:
        CalibrationError: a worker failed.
    """
    sizes = sweep_of(device_type, mode)
    kernels = [point for precision in precisions for point in kernel_points(sizes, precision, device_type)]
    collectives = collective_points(sizes, tuple(counts))
    settings = settings_of(cores, counts)
    batches = list(_batches(kernels, collectives, settings, cores))
    total = sum(len(batch.points) for batch in batches)
    missing = [batch.without(journal) for batch in batches]
    missing = [batch for batch in missing if batch.points]
    if missing:
        done = total - sum(len(batch.points) for batch in missing)
        window, repeats = _WINDOWS[mode]
        late = time.perf_counter() + _PATIENCE_S[mode]
        for batch in missing:
            times = repeats if time.perf_counter() < late else 1
            found = pool.measure(Order(batch.points, batch.threads, batch.processes, window, times))
            journal.add({batch.key(p): s for p, s in zip(batch.points, found, strict=True)})
            done += len(batch.points)
            progress(done, total)
    return Swept(_samples(kernels, settings, journal), _tables(collectives, cores, journal))


@dataclass(frozen=True, slots=True)
class _Batch:
    """Points that are measured together."""

    threads: int
    processes: int
    points: tuple[KernelPoint | CollectivePoint, ...]

    def key(self, point: KernelPoint | CollectivePoint) -> str:
        """Name of a measurement in the journal."""
        return f"{self.processes} x {self.threads}: {point.key}"

    def without(self, journal: Journal) -> "_Batch":
        """What the journal does not hold."""
        return replace(self, points=tuple(p for p in self.points if self.key(p) not in journal))


def _batches(
    kernels: Sequence[KernelPoint],
    collectives: Sequence[CollectivePoint],
    settings: Sequence[tuple[int, int]],
    cores: int | None,
) -> Iterator[_Batch]:
    """Batches of points; numbers of processes take turns, so that all meet the same noise."""
    for begin in range(0, len(kernels), _BATCH):
        for threads, processes in settings:
            yield _Batch(threads, processes, tuple(kernels[begin : begin + _BATCH]))
    for processes in dict.fromkeys(point.processes for point in collectives):
        own = [point for point in collectives if point.processes == processes]
        for begin in range(0, len(own), _BATCH):
            yield _Batch(threads_of(cores, processes), processes, tuple(own[begin : begin + _BATCH]))


def _samples(
    kernels: Sequence[KernelPoint], settings: Sequence[tuple[int, int]], journal: Journal
) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            point.kernel,
            point.precision,
            threads,
            processes,
            point.features,
            journal[_Batch(threads, processes, ()).key(point)],
        )
        for threads, processes in settings
        for point in kernels
    )


def _tables(
    collectives: Sequence[CollectivePoint], cores: int | None, journal: Journal
) -> tuple[CollectiveTimes, ...]:
    rows: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for point in collectives:
        batch = _Batch(threads_of(cores, point.processes), point.processes, ())
        seconds = journal[batch.key(point)]
        key = (point.collective, point.size, point.processes)
        rows.setdefault(key, []).append((float(max(point.message_bytes, 4 * point.size)), seconds))
    return tuple(
        CollectiveTimes(*key, *(tuple(column) for column in zip(*sorted(row), strict=True)))
        for key, row in rows.items()
    )
