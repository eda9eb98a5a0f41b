"""The sweeps of a calibration: all points, by number of processes at work, resumable."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from towtank.executor.calibrate.fit import Sample
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
from towtank.hardware_profiles.calibrated.records import CollectiveTimes

_BATCH = 12
"""Points that workers measure between two looks at the progress bar."""
_WINDOWS: dict[Mode, tuple[float, int]] = {"quick": (0.012, 3), "full": (0.15, 5)}
"""Seconds of a window in which calls repeat, and windows of which the median counts."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Swept:
    """What the sweeps found."""

    samples: tuple[Sample, ...]
    collectives: tuple[CollectiveTimes, ...]


def sweep(
    device_type: str,
    mode: Mode,
    counts: Sequence[int],
    precisions: Sequence[str],
    threads: int,
    journal: Journal,
    progress: Progress,
) -> Swept:
    """Measure everything that the journal does not hold yet.

    Raises:
        CalibrationError: a worker failed.
    """
    sizes = sweep_of(device_type, mode)
    kernels = [point for precision in precisions for point in kernel_points(sizes, precision, device_type)]
    collectives = collective_points(sizes, tuple(counts))
    orders = list(_orders(kernels, collectives, counts))
    total = sum(len(points) for _, points in orders)
    missing = [(count, [p for p in points if _key(p, count) not in journal]) for count, points in orders]
    missing = [(count, points) for count, points in missing if points]
    if missing:
        done = total - sum(len(points) for _, points in missing)
        window, repeats = _WINDOWS[mode]
        with Pool(counts, device_type, threads) as pool:
            for count, points in missing:
                found = pool.measure(Order(tuple(points), count, window, repeats))
                journal.add({_key(p, count): s for p, s in zip(points, found, strict=True)})
                done += len(points)
                progress(done, total)
    return Swept(_samples(kernels, counts, journal), _tables(collectives, journal))


def _key(point: KernelPoint | CollectivePoint, count: int) -> str:
    return f"{count}: {point.key}"


def _orders(
    kernels: Sequence[KernelPoint], collectives: Sequence[CollectivePoint], counts: Sequence[int]
) -> Iterator[tuple[int, list[KernelPoint | CollectivePoint]]]:
    """Batches of points with their number of processes; the counts take turns, so that all meet the same noise."""
    for begin in range(0, len(kernels), _BATCH):
        for count in counts:
            yield count, list(kernels[begin : begin + _BATCH])
    for count in counts:
        own = [point for point in collectives if point.processes == count]
        for begin in range(0, len(own), _BATCH):
            yield count, list(own[begin : begin + _BATCH])


def _samples(kernels: Sequence[KernelPoint], counts: Sequence[int], journal: Journal) -> tuple[Sample, ...]:
    return tuple(
        Sample(point.kernel, point.precision, count, point.features, journal[_key(point, count)])
        for count in counts
        for point in kernels
    )


def _tables(collectives: Sequence[CollectivePoint], journal: Journal) -> tuple[CollectiveTimes, ...]:
    rows: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for point in collectives:
        seconds = journal[_key(point, point.processes)]
        key = (point.collective, point.size, point.processes)
        rows.setdefault(key, []).append((float(max(point.message_bytes, 4 * point.size)), seconds))
    return tuple(
        CollectiveTimes(*key, *(tuple(column) for column in zip(*sorted(row), strict=True)))
        for key, row in rows.items()
    )
