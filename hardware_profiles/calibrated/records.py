"""What a calibration says of a machine: times of kernels and collectives, by how many processes share a node.

Processes that share cores, caches and memory slow each other down, so that every figure is known for several numbers
of processes at work at once; between those it is a straight line in their number.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from towtank.hardware_profiles.curves.grid import Grid
from towtank.hardware_profiles.errors import UnknownFigure


@dataclass(frozen=True, slots=True)
class Residual:
    """How far a fit is from what it was fitted to, as relative errors."""

    samples: int
    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class KernelFit:
    """Time of one kernel: sum of `terms`, each times its feature of the call (`features` of the cost model)."""

    kernel: str
    """Such as `matmul.forward` or `norm.backward`."""
    precision: str
    threads: int
    """CPU threads of each process; 1 on a GPU."""
    processes: int
    """At work at once."""
    terms: Mapping[str, float]
    """Seconds for one of each feature: launch, flop, elements, bytes."""
    intervals_90: Mapping[str, tuple[float, float]]
    residual: Residual

    def seconds(self, features: Mapping[str, float]) -> float:
        """Time of a call with these features; a feature without a term costs nothing."""
        return sum(value * features.get(name, 0.0) for name, value in self.terms.items())


@dataclass(frozen=True, slots=True)
class CollectiveTimes:
    """Measured seconds of one collective by bytes of the whole array."""

    collective: str
    size: int
    """Members of the group."""
    processes: int
    """Processes of the node at work at once: all groups of that size side by side."""
    message_bytes: tuple[float, ...]
    seconds: tuple[float, ...]

    def time_s(self, message_bytes: float) -> float:
        """Straight in log-log between the sizes, constant below them, at the last rate above them."""
        from math import log2

        beyond = max(message_bytes / self.message_bytes[-1], 1.0)
        grid = Grid.of([self.message_bytes], [log2(each) for each in self.seconds])
        time: float = beyond * 2.0 ** grid.at((message_bytes,))
        return time


@dataclass(frozen=True, slots=True)
class Hardware:
    """The device of a calibrated machine: one process with its threads on a CPU, or a GPU."""

    device_type: str
    """cpu or cuda."""
    processor: str
    cores: int | None
    """That processes may use; of CPUs."""
    memory_bytes: float
    """Of one GPU; of the whole node of a CPU machine, which its processes share."""
    cache_bytes: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Content of a calibration file."""

    name: str
    date: str
    mode: str
    """quick or full."""
    software: str
    hardware: Hardware
    process_counts: tuple[int, ...]
    memory_bandwidth_bytes_per_s: float
    """Best copy of one process alone."""
    process_bytes: float
    """Memory of a process that trains, above that of an idle one, besides tensors."""
    kernels: tuple[KernelFit, ...]
    collectives: tuple[CollectiveTimes, ...]
    steps: Residual | None = None
    """Predicted over measured time of the steps of the executor that it was fitted to; None: to none."""

    def __hash__(self) -> int:
        """Hash of name and date: the tables inside have none."""
        return hash((self.name, self.date, self.software))

    @property
    def described(self) -> str:
        """What a prediction that stands on it says of it."""
        counts = ", ".join(map(str, self.process_counts))
        fits = [fit.residual.median for fit in self.kernels]
        middle = sorted(fits)[len(fits) // 2] if fits else 0.0
        text = (
            f"{self.hardware.processor}, {self.mode} calibration of {self.date} ({self.software}), "
            f"{counts} processes at once, median error of kernels {middle:.0%}"
        )
        return (
            text if self.steps is None else f"{text}, of {self.steps.samples} steps {self.steps.median:.0%}"
        )


def bracket(counts: Sequence[int], load: float) -> tuple[int, int, float]:
    """The measured counts around a load, and the share of the way from the first to the second."""
    if load <= counts[0]:
        return counts[0], counts[0], 0.0
    if load >= counts[-1]:
        return counts[-1], counts[-1], 0.0
    place = bisect_right(counts, load)
    low, high = counts[place - 1], counts[place]
    return low, high, (load - low) / (high - low)


def threads_of(cores: int | None, processes: int) -> int:
    """CPU threads of each of so many processes on a node, as `towtank run` starts them: its share of the cores."""
    return 1 if cores is None else max(1, cores // processes)


def settings_of(cores: int | None, counts: Sequence[int]) -> list[tuple[int, int]]:
    """(threads, processes at work) in which kernels are measured: with the threads of each number of processes, so
    many of them at work, or fewer where a pipeline leaves some idle."""
    wanted = {(threads_of(cores, most), count) for most in counts for count in counts if count <= most}
    return sorted(wanted, key=lambda each: (each[1], each[0]))


class KernelTimes:
    """The kernels of a calibration in one precision at one load, looked up by name."""

    def __init__(self, calibration: Calibration, precision: str, threads: int, load: float) -> None:
        """`threads` of each process; `load`: processes at work at once on a node, on average."""
        self.calibration = calibration
        self.precision = precision
        own = [fit for fit in calibration.kernels if fit.precision == precision and fit.threads == threads]
        low, high, self._share = bracket(sorted({fit.processes for fit in own}) or [1], load)
        self._low = {fit.kernel: fit for fit in own if fit.processes == low}
        self._high = {fit.kernel: fit for fit in own if fit.processes == high}

    def known(self, kernel: str) -> bool:
        """Whether the kernel was measured in this precision."""
        return kernel in self._low and kernel in self._high

    def terms(self, kernel: str) -> dict[str, float]:
        """Seconds for one of each feature at this load.

        Raises:
            UnknownFigure: the calibration does not hold the kernel.
        """
        if not self.known(kernel):
            raise UnknownFigure(
                f"{self.calibration.name}: the calibration holds no {kernel} in {self.precision}; "
                f"run `towtank calibrate --out {self.calibration.name}` again, or take another precision"
            )
        low, high = self._low[kernel].terms, self._high[kernel].terms
        return {
            name: low.get(name, 0.0) + (high.get(name, 0.0) - low.get(name, 0.0)) * self._share
            for name in {**low, **high}
        }


def collective_seconds(
    calibration: Calibration, collective: str, size: int, processes: int, message_bytes: float
) -> float:
    """Time of a collective among `size` members, `processes` of the node at work.

    Between measured numbers of members, and of processes, it is a straight line in their number.

    Raises:
        UnknownFigure: the calibration holds no such collective.
    """
    if not any(row.collective == collective for row in calibration.collectives):
        raise UnknownFigure(
            f"{calibration.name}: the calibration holds no {collective}; it was made with "
            f"{max(calibration.process_counts)} processes, and collectives need two"
        )
    return seconds_of(calibration.collectives, collective, size, processes, message_bytes)


def seconds_of(
    tables: Sequence[CollectiveTimes], collective: str, size: int, processes: int, message_bytes: float
) -> float:
    """Time of a collective by tables that hold it."""
    rows = [row for row in tables if row.collective == collective]
    small, large, share = bracket(sorted({row.size for row in rows}), size)
    low = _among(rows, small, processes, message_bytes)
    return low if small == large else low + (_among(rows, large, processes, message_bytes) - low) * share


def _among(rows: Sequence[CollectiveTimes], size: int, processes: int, message_bytes: float) -> float:
    own = {row.processes: row for row in rows if row.size == size}
    low, high, share = bracket(sorted(own), processes)
    first = own[low].time_s(message_bytes)
    return first if low == high else first + (own[high].time_s(message_bytes) - first) * share
