"""Time of one tile of the generated C multiply, from registers, vectors and caches.

Cycles are counted along the loops of `kernels/c_code/driver.c`. The counts are those of the analytical model of Low,
Igual, Smith and Quintana-Ortí, Analytical Modeling Is Enough for High-Performance BLIS, ACM TOMS 43 (2016): the inner
loop by its operations and their latency, each operand by the cache level that holds its block. How many cycles each
count takes is data (`cpu_rates.yaml`), fitted to recorded times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path

from towtank.kernels.records import Sizes, Tile

FLOAT_BYTES = 4
FMA_LATENCY = 4
"""Cycles from one fused multiply-add to the next that needs it: Zen 2 to 5, and Intel since Skylake (A. Fog,
Instruction tables, 2024)."""
FMA_PER_CYCLE = 2
LOADS_PER_CYCLE = 2
ISSUED_PER_CYCLE = 6
"""Instructions: two multiply-adds and two vector loads a cycle on the same CPUs, six renamed on Zen 3 (same
source)."""
WINDOW = 256
"""Instructions that wait to finish at once, so that the end of one block overlaps the start of the next (Zen 3, same
source; 224 to 512 elsewhere)."""
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the model knows of a core."""

    vector_floats: int
    registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int


TERMS = (
    "steps", "spills", "calls", "updates", "updates_aliased", "updates_far", "a_l2", "a_l3", "a_in_place",
    "a_strided", "b_l2", "b_panel", "pack_a", "pack_b", "pack_edge", "parallel",
)  # fmt: skip
"""Counts whose cycles are fitted; see `counts`."""


def cpu_here(vector_floats: int, registers: int) -> Cpu:
    """The CPU at hand, with cache sizes that the operating system tells; where it tells none, those usual since 2015:
    32 KiB, 512 KiB, and 8 MiB."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 8 << 20}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[int(level)] = int(size[:-1]) << 10
    return Cpu(vector_floats, registers, sizes[1], sizes[2], sizes[3])


def blocks(sizes: Sizes, tile: Tile) -> tuple[int, int, int]:
    """Rows, depth and columns of the blocks that the driver makes: equal parts, of whole register blocks."""
    return (
        _even(sizes["m"], tile["mc"], tile["mr"]),
        _even(sizes["k"], tile["kc"], 1),
        _even(sizes["n"], tile["nc"], tile["nr"]),
    )


def _even(size: int, largest: int, step: int) -> int:
    largest = ceil(min(largest, size) / step) * step
    parts = ceil(size / largest)
    return ceil(ceil(size / parts) / step) * step


def _step_cycles(tile: Tile, depth: int, cpu: Cpu) -> float:
    """Cycles of one step of the inner loop: the slowest of arithmetic, its latency, loads and instructions."""
    rows, vectors = tile["mr"], tile["nr"] // cpu.vector_floats
    instructions = rows * vectors + rows + vectors + 1
    return max(
        rows * vectors / FMA_PER_CYCLE,
        FMA_LATENCY / (1 + WINDOW / (depth * instructions)),
        (rows + vectors) / LOADS_PER_CYCLE,
        instructions / ISSUED_PER_CYCLE,
    )


def counts(sizes: Sizes, tile: Tile, cpu: Cpu) -> Mapping[str, float]:
    """How often each thing of `TERMS` happens on one core; threads share all but `parallel`.

    `a_...`, `b_...` and `pack_...` are in floats, `updates` in vectors of C. `a_in_place` are those of A that are not
    copied to panels, so that rows of a register block lie in different lines and pages; of them `a_strided` drive
    each other out. `pack_edge` are those of panels that are not full, copied one by one and not in whole vectors.
    """
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    rows, vectors = tile["mr"], tile["nr"] // cpu.vector_floats
    mc, kc, nc = blocks(sizes, tile)
    row_blocks, depth_blocks, column_blocks = -(-m // mc), -(-k // kc), -(-n // nc)
    high = sum(-(-min(mc, m - i * mc) // rows) for i in range(row_blocks))  # register blocks in a column of C
    wide = sum(-(-min(nc, n - j * nc) // tile["nr"]) for j in range(column_blocks))
    calls = high * wide * depth_blocks
    a_block, b_panel = mc * kc * FLOAT_BYTES, kc * tile["nr"] * FLOAT_BYTES
    a_panel = rows * kc * FLOAT_BYTES
    a_in_l1 = a_block + 2 * b_panel <= cpu.l1_bytes
    a_in_l2 = a_block + 2 * b_panel <= cpu.l2_bytes
    b_in_l1 = 2 * a_panel + b_panel <= cpu.l1_bytes
    a_floats, b_floats = float(calls * rows * kc), float(calls * tile["nr"] * kc)
    in_place = not tile["pack_a"]
    rows_left = (m - (row_blocks - 1) * mc) % rows
    columns_left = (n - (column_blocks - 1) * nc) % tile["nr"]
    return {
        "steps": calls * kc * _step_cycles(tile, kc, cpu),
        "spills": calls * kc * max(0, rows * vectors + vectors + 1 - cpu.registers),
        "calls": calls,
        "updates": calls * rows * vectors,
        "updates_aliased": calls * rows * vectors * _aliased(rows, n, cpu),
        "updates_far": calls * rows * vectors * (m * n * FLOAT_BYTES > cpu.l2_bytes),
        "a_l2": a_floats * (a_in_l2 and not a_in_l1),
        "a_l3": a_floats * (not a_in_l2),
        "a_in_place": a_floats * in_place,
        "a_strided": a_floats * in_place * _aliased(rows, k, cpu),
        "b_l2": b_floats * (not b_in_l1),
        "b_panel": float(row_blocks * wide * tile["nr"] * k) * (kc * nc * FLOAT_BYTES > cpu.l2_bytes),
        "pack_a": float(m * k * column_blocks) * tile["pack_a"],
        "pack_b": float(n * k),
        "pack_edge": float(k * (columns_left + rows_left * column_blocks)),
        "parallel": float(depth_blocks * column_blocks),
    }


def _aliased(rows: int, stride: int, cpu: Cpu) -> float:
    """How far rows of a register block, `stride` floats apart, drive each other out of a set of the first cache.

    A way of it spans one page, as caches do that are looked up before the page is known; two ways are left to other
    operands. 0: all fit; 1: none stays.
    """
    ways = cpu.l1_bytes // PAGE_BYTES
    sets = PAGE_BYTES // gcd(stride * FLOAT_BYTES, PAGE_BYTES)
    return min(1.0, max(0.0, (rows / min(rows, sets) - (ways - 2)) / 2))


def seconds(sizes: Sizes, tile: Tile, cpu: Cpu, rates: Mapping[str, float]) -> float:
    """Predicted time; `rates` are seconds per count of each of `TERMS`."""
    found = counts(sizes, tile, cpu)
    alone = rates["parallel"] * found["parallel"] * (tile["threads"] > 1)
    shared = sum(rates[name] * found[name] for name in TERMS if name != "parallel")
    return shared / _speedup(sizes, tile) + alone


def _speedup(sizes: Sizes, tile: Tile) -> float:
    """Parts of C over those that the busiest thread computes, as the driver deals them out."""
    threads = tile["threads"]
    if threads == 1:
        return 1.0
    mc, _, nc = blocks(sizes, tile)
    parts, panels = -(-sizes["m"] // mc), -(-min(nc, sizes["n"]) // tile["nr"])
    across = 1 if parts >= 4 * threads else min(panels, -(-4 * threads // parts))
    return parts * across / -(-parts * across // threads)
