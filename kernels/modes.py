"""Which way to hand a matrix multiply to the library: operands as they lie, copied to another order, or swapped.

The choice of AxoNN's tuner, by measurement. It is then judged by a second measurement: the first one alone would
flatter itself, for the fastest of eight noisy times is partly the luckiest.

What is compared are ratios to the default within short turns, since the clock of a shared machine changes by half
within seconds; and they are means over several places of the operands in memory, since there are multiplies that take
twice as long where rows of an operand share lines of the cache.
"""

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from statistics import fmean, median

from towtank.kernels.bench import bound_call, inputs_for, sizes_text
from towtank.kernels.launch import require
from towtank.kernels.records import Sizes, Tile
from towtank.kernels.registry import kernels
from towtank.kernels.sweeps import layer_shapes
from towtank.kernels.timing import Call, shuffled_turns

WORTHWHILE = 0.01
"""A mode other than the default must be this much faster: less is noise, and copies take memory."""
PLACEMENTS = 8
"""How often the operands are laid anew."""
TURNS = 40
"""Turns for one placement, half of them for each measurement."""
HOPELESS = 1.5
"""Modes that took this much longer than the best in the first two placements are not timed in the others."""
FILLERS, FILLER_ELEMENTS = 8, 40_000
"""Blocks of random sizes below this that move the operands of a placement: from a cache line to many pages."""
DIRECTIONS = ("matmul", "matmul_dgrad", "matmul_wgrad")
HIDDEN = (64, 128, 192, 256, 384, 512)
"""Hidden sizes of the GPT layers that the choice is shown on where the device is a CPU."""

Problem = tuple[str, Sizes]
"""A kernel by name, and its sizes."""


@dataclass(frozen=True, slots=True)
class ModeTimes:
    """Times of one mode of one multiply in both measurements: those of the default times the mode's ratio to it."""

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
    budget_s: float = 6.0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[ModeTimes]:
    """Time all modes of every problem twice, all modes taking turns, each problem for about `budget_s` at most.

    Raises:
        KernelError: a mode is wrong on this device.
    """
    found = []
    for number, (name, sizes) in enumerate(problems, 1):
        progress(number, len(problems), f"{name} {sizes_text(sizes)}")
        backend = kernels()[name].backend("library")
        tiles: tuple[Tile, ...] = backend.tiles(sizes, dtype)
        for tile in tiles:
            require(kernels()[name], backend, dtype, tile, device)
        first, second = _two_measurements(name, sizes, tiles, dtype, device, budget_s)
        found += [
            ModeTimes(name, dtype, sizes_text(sizes), sizes_text(tile), one, other)
            for tile, one, other in zip(tiles, first, second, strict=True)
        ]
    return found


def _two_measurements(
    name: str, sizes: Sizes, tiles: Sequence[Tile], dtype: str, device: str, budget_s: float
) -> tuple[list[float], list[float]]:
    """Seconds of each mode by the even and by the odd turns of all placements."""
    rng = Random(0)
    turns: list[list[list[float]]] = []
    kept = list(range(len(tiles)))
    for placement in range(PLACEMENTS):
        if placement == 2:
            both = [
                sum(pair) for pair in zip(*(seconds_of_modes(turns, half) for half in (0, 1)), strict=True)
            ]
            kept = [mode for mode, each in enumerate(both) if mode == 0 or each < HOPELESS * min(both)]
        calls = _calls_somewhere(name, sizes, [tiles[mode] for mode in kept], dtype, device, rng)
        rows = shuffled_turns(calls, device, rng, turns=TURNS, budget_s=budget_s / PLACEMENTS)
        seconds = [dict(zip(kept, row, strict=True)) for row in rows]
        turns.append([[row.get(mode, math.nan) for mode in range(len(tiles))] for row in seconds])
    return seconds_of_modes(turns, 0), seconds_of_modes(turns, 1)


def _calls_somewhere(
    name: str, sizes: Sizes, tiles: Sequence[Tile], dtype: str, device: str, rng: Random
) -> list[Call]:
    """Calls of the modes with fresh operands at another place in memory."""
    import torch

    kernel = kernels()[name]
    fillers = [torch.empty(rng.randrange(16, FILLER_ELEMENTS), device=device) for _ in range(FILLERS)]
    inputs = inputs_for(kernel, sizes, dtype, device)
    del fillers  # what a call allocates comes to lie where they were
    return [bound_call(kernel.backend("library"), inputs, sizes, tile, device) for tile in tiles]


def seconds_of_modes(turns: Sequence[Sequence[Sequence[float]]], half: int) -> list[float]:
    """Seconds of each mode by every other turn.

    `turns` by placement, turn and mode, NaN where a mode was not timed. The ratio to the default is the median over
    the turns of a placement, and the mean over placements.
    """
    default_s = median(row[0] for rows in turns for row in rows[half::2])
    ratios = [
        [median(row[mode] / row[0] for row in rows[half::2]) for mode in range(len(rows[0]))]
        for rows in turns
    ]
    return [
        default_s * fmean(each[mode] for each in ratios if not math.isnan(each[mode]))
        for mode in range(len(ratios[0]))
    ]


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
