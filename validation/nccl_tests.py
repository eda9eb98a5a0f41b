"""Reads the text that nccl-tests and rccl-tests print.

Lines that begin with # describe the run; rows have size, count, type, redop and root, then time in us, algorithm and
bus bandwidth in GB/s and wrong results, out-of-place and in-place. Versions differ in which of the first columns they
have, so the line with their names decides.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final, get_args

from towtank.hardware_profiles.curves.collectives import bus_factor
from towtank.simulator.network.libraries import Collective

COLLECTIVES: Final[tuple[Collective, ...]] = get_args(Collective)

_PREFIX: Final = re.compile(r"^\s*(?:\[\d+,\d+\]<std(?:out|err)>:)?\s*")
_NAME: Final = re.compile(r"\b([a-z_]+)_perf\b")
_RANK: Final = re.compile(r"^#?\s*Rank\s+(\d+)\s+(?:Group\s+(\d+)\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device\s+\d+")
_HEADS: Final = re.compile(r"^#?\s*(size\s+count\s.*)$")
_ROW: Final = re.compile(r"^\d+\s+\d+\s+\w+")


class BenchmarkFileError(ValueError):
    """A file is no output of nccl-tests, or one that cannot be compared; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One message size; times in seconds, None where the file says N/A."""

    num_bytes: float
    out_of_place_s: float | None
    in_place_s: float | None
    bus_over_algorithm: float | None
    """Printed bus bandwidth over algorithm bandwidth, where both are large enough to tell."""
    wrong: int

    def time_s(self, in_place: bool) -> float | None:
        """Seconds, from the columns that are asked for."""
        return self.in_place_s if in_place else self.out_of_place_s


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One run. `collective` and `size` are None where the file does not say."""

    collective: Collective | None
    size: int | None
    nodes: int | None
    rows: tuple[Row, ...]

    @property
    def wrong(self) -> int:
        """Rows whose results were wrong."""
        return sum(row.wrong > 0 for row in self.rows)


def read_benchmark(path: Path) -> Benchmark:
    """The run that `path` holds.

    Raises:
        BenchmarkFileError: what is wrong with it, all at once.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BenchmarkFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchmarkFileError(
            f"{path}: byte {error.start} is not UTF-8; save the text as UTF-8"
        ) from error
    return parse_benchmark(text, str(path))


def parse_benchmark(text: str, subject: str = "text") -> Benchmark:
    """The run that `text` shows.

    Raises:
        BenchmarkFileError: no rows, several runs, ranks without MPI, broken rows, all at once.
    """
    lines = [_PREFIX.sub("", line.rstrip()) for line in text.splitlines()]
    faults: list[str] = []
    collective = _named(lines, faults)
    size, nodes = _ranks(lines, faults)
    rows = _rows(lines, faults)
    if not rows and not faults:
        faults.append(
            "no rows of nccl-tests were found; give its whole output, with the line `# size count type ...`"
        )
    if collective is None and size is not None and not faults:
        collective = _by_ratio(rows, size)
    if faults:
        head = f"{subject}: " if len(faults) == 1 else f"{subject}: {len(faults)} faults\n  "
        raise BenchmarkFileError(head + "\n  ".join(faults))
    return Benchmark(collective, size, nodes, tuple(rows))


def _named(lines: Sequence[str], faults: list[str]) -> Collective | None:
    """The collective, where a line names the program (since nccl-tests 2.17, or the command beside the output)."""
    names = dict.fromkeys(name for line in lines for name in _NAME.findall(line))
    if len(names) > 1:
        faults.append(f"holds several benchmarks ({', '.join(names)}); give one at a time")
    for collective in COLLECTIVES:
        if list(names) == [collective]:
            return collective
    if len(names) == 1:
        faults.append(f"{next(iter(names))} is not predicted; the collectives are {', '.join(COLLECTIVES)}")
    return None


def _ranks(lines: Sequence[str], faults: list[str]) -> tuple[int | None, int | None]:
    """Devices of a group and nodes, from the lines of the ranks."""
    found = [match for line in lines if (match := _RANK.match(line))]
    if not found:
        return None, None
    ranks = [(match[1], match[2] or "0") for match in found]
    if len(set(ranks)) < len(ranks):
        faults.append(
            "a rank stands twice: every process took itself for the only one; build the tests with MPI=1"
        )
    if len({group for _, group in ranks}) > 1:
        faults.append("its ranks form several groups (NCCL_TESTS_SPLIT); give a run of one group")
    return len(found), len({match[3] for match in found})


def _rows(lines: Sequence[str], faults: list[str]) -> list[Row]:
    """Rows of the table, empty messages left out."""
    rows, label_columns, tables = [], 5, 0
    for number, line in enumerate(lines, 1):
        if heads := _HEADS.match(line):
            names = heads[1].split()
            label_columns = names.index("time") if "time" in names else 5
            tables += 1
        elif _ROW.match(line):
            row = _row(line.split(), label_columns)
            if row is None:
                faults.append(f"line {number} is cut off or has other columns: {line!r}")
            elif row.num_bytes > 0:
                rows.append(row)
    if tables > 1:
        faults.append(f"holds {tables} tables; give one run at a time")
    return rows


def _row(cells: Sequence[str], label_columns: int) -> Row | None:
    """One line of the table; None where it is cut off."""
    measured = cells[label_columns:]
    if len(measured) not in (4, 8):
        return None
    try:
        num_bytes = float(cells[0])
        values = [[_number(cell) for cell in measured[i : i + 4]] for i in range(0, len(measured), 4)]
    except ValueError:
        return None
    if not isfinite(num_bytes):
        return None
    times = [None if part[0] is None or part[0] <= 0 else part[0] * 1e-6 for part in values]
    _, algorithm, bus, _ = values[0]
    tell = algorithm is not None and bus is not None and algorithm >= 1.0
    return Row(
        num_bytes,
        times[0],
        times[1] if len(times) > 1 else None,
        bus / algorithm if tell and bus is not None and algorithm is not None else None,
        sum(int(part[3] or 0) for part in values),
    )


def _number(cell: str) -> float | None:
    """A figure; None for N/A, and for inf and nan, which say as little. Raises ValueError for anything else."""
    value = None if cell == "N/A" else float(cell)
    return value if value is not None and isfinite(value) else None


def _by_ratio(rows: Sequence[Row], size: int) -> Collective | None:
    """All-reduce by its ratio of bus to algorithm bandwidth, 2 (n - 1) / n; the others cannot be told apart."""
    ratios = [row.bus_over_algorithm for row in rows if row.bus_over_algorithm is not None]
    expected = bus_factor("all_reduce", size)
    if size > 1 and ratios and all(abs(ratio / expected - 1) < 0.05 for ratio in ratios):
        return "all_reduce"
    return None
