"""Which way to hand a matrix multiply to the library: operands as they lie, copied to another order, or swapped.

The choice of AxoNN's tuner, by measurement. It is then judged by a second measurement: the first one alone would
flatter itself, for the fastest of eight noisy times is partly the luckiest.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from towtank.kernels.bench import bound_call, inputs_for, sizes_text
from towtank.kernels.launch import require
from towtank.kernels.records import Sizes, Tile
from towtank.kernels.registry import kernels
from towtank.kernels.sweeps import layer_shapes
from towtank.kernels.timing import timings

WORTHWHILE = 0.02
"""A mode other than the default must be this much faster: less is noise, and copies take memory."""
SAMPLES = 50
DIRECTIONS = ("matmul", "matmul_dgrad", "matmul_wgrad")
HIDDEN = (64, 128, 192, 256, 384, 512)
"""Hidden sizes of the GPT layers that the choice is shown on where the device is a CPU."""

Problem = tuple[str, Sizes]
"""A kernel by name, and its sizes."""


@dataclass(frozen=True, slots=True)
class ModeTimes:
    """Least times of one mode of one multiply in both measurements.

    Least ones, not medians: whatever else runs on the machine only adds to the time of a kernel that always does the
    same, and modes differ by less than that.
    """

    kernel: str
    dtype: str
    sizes: str
    mode: str
    first_s: float
    """What the choice is made by."""
    second_s: float
    """What it is judged by."""


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """The mode that was chosen for one multiply."""

    kernel: str
    sizes: str
    mode: str
    gain: float
    """Time of the default over that of the choice, by the second measurement."""
    over_best: float
    """Time of the choice over that of the fastest mode of the second measurement; 1 where it is that one."""


def layer_problems(hidden: Iterable[int] = HIDDEN, rows: int = 128) -> list[Problem]:
    """The multiplies of GPT layers, forward and backward."""
    return [
        (name, {"m": rows, "n": n, "k": k})
        for width in hidden
        for n, k in layer_shapes(width).values()
        for name in DIRECTIONS
    ]


def measure_modes(
    problems: Sequence[Problem],
    dtype: str,
    device: str,
    *,
    budget_s: float = 2.0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[ModeTimes]:
    """Time all modes of every problem twice, all modes taking turns.

    Raises:
        KernelError: a mode is wrong on this device.
    """
    found = []
    for number, (name, sizes) in enumerate(problems, 1):
        progress(number, len(problems), f"{name} {sizes_text(sizes)}")
        kernel = kernels()[name]
        backend = kernel.backend("library")
        tiles: tuple[Tile, ...] = backend.tiles(sizes, dtype)
        for tile in tiles:
            require(kernel, backend, dtype, tile, device)
        inputs = inputs_for(kernel, sizes, dtype, device)
        calls = [bound_call(backend, inputs, sizes, tile, device) for tile in tiles]
        # both measurements take turns as well, so that both meet the same weather
        both = timings([*calls, *calls], device, samples=SAMPLES, budget_s=budget_s)
        found += [
            ModeTimes(name, dtype, sizes_text(sizes), sizes_text(tile), one.least_s, other.least_s)
            for tile, one, other in zip(tiles, both[: len(tiles)], both[len(tiles) :], strict=True)
        ]
    return found


def choose(times: Sequence[ModeTimes]) -> ModeChoice:
    """The mode of one multiply: the fastest of the first measurement where it is worthwhile, else the default.

    The default stands first.
    """
    default = times[0]
    fastest = min(times, key=lambda each: each.first_s)
    chosen = fastest if fastest.first_s < (1 - WORTHWHILE) * default.first_s else default
    best_s = min(each.second_s for each in times)
    return ModeChoice(
        chosen.kernel, chosen.sizes, chosen.mode, default.second_s / chosen.second_s, chosen.second_s / best_s
    )


def choices(times: Sequence[ModeTimes]) -> list[ModeChoice]:
    """The choice for every multiply of a table, in its order."""
    groups: dict[tuple[str, str, str], list[ModeTimes]] = {}
    for each in times:
        groups.setdefault((each.kernel, each.dtype, each.sizes), []).append(each)
    return [choose(group) for group in groups.values()]


def write_modes(path: Path, times: Iterable[ModeTimes], notes: Sequence[str]) -> None:
    """Write a table of modes below lines of notes: device, software, date.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {note}\n" for note in notes)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([each.name for each in fields(ModeTimes)])
        for row in times:
            writer.writerow(
                [f"{each:.5g}" if isinstance(each, float) else each for each in asdict(row).values()]
            )


def read_modes(path: Path) -> list[ModeTimes]:
    """Read a table of modes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [
            ModeTimes(
                row["kernel"], row["dtype"], row["sizes"], row["mode"],
                float(row["first_s"]), float(row["second_s"]),
            )
            for row in rows
        ]  # fmt: skip
