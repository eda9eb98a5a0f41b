"""Time of one tile of the Triton multiply, from a device profile and the limits of its multiprocessors.

A program computes one block of the output. Programs that fit a multiprocessor together hide each other's waiting; the
device works them off in waves, of which the last may be nearly empty (NVIDIA, Matrix Multiplication Background User's
Guide, tile and wave quantization). In a program the k-loop overlaps loads of later stages with the arithmetic of the
present one, after filling its stages once; each step takes what the slowest of arithmetic, traffic and waiting takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import ceil
from typing import Any

import yaml

from towtank.hardware_profiles.records import Device, known
from towtank.kernels.errors import KernelError
from towtank.kernels.records import DTYPE_BYTES, Sizes, Tile

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "fp8"}
WARPS_TO_HIDE = 8
"""Warps in one multiprocessor that keep its matrix units busy: two for each unit, one waits while the other computes
(NVIDIA, CUDA C++ Best Practices Guide, section on occupancy: latency of arithmetic needs few warps, with
instruction-level parallelism fewer)."""
LATENCY_S = 7e-7
"""A load from memory until its data are there, about 700 ns on Hopper and Ampere (Luo et al., Benchmarking and
Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking, 2024, global memory latency, rounded)."""
LAUNCH_S = 3e-6
"""Start of a kernel beside which nothing runs; the same for all tiles."""
L2_OVER_MEMORY = 2.5
"""Bandwidth of the shared cache over that of memory: 5.5 to 5.7 TB/s over 2 to 3.35 TB/s on A100 and H100 (same
source)."""
REGISTERS_BESIDE = 40
"""Registers of a thread for addresses and operands on their way, beside its accumulators."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one multiprocessor can hold, and the cache that all share."""

    shared_memory_bytes: int
    shared_memory_of_block_bytes: int
    registers: int
    registers_of_thread: int
    threads: int
    blocks: int
    warp_threads: int
    l2_bytes: int
    matrix_warps: int


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How a tile sits in a multiprocessor."""

    shared_memory_bytes: int
    registers_of_thread: int
    programs: int
    """Programs at once; 0: not even one fits."""
    warps: int


def limits(device: Device) -> Limits:
    """Limits of a device's architecture.

    Raises:
        KernelError: none are known for it.
    """
    table = _table()["architectures"]
    if device.architecture not in table:
        raise KernelError(
            f"no limits of a multiprocessor are known for {device.architecture} ({device.name}); known: "
            f"{', '.join(table)}; add them with their source to autotune/tiles/gpus.yaml"
        )
    return Limits(**table[device.architecture])


@cache
def _table() -> Mapping[str, Any]:
    text = resources.files("towtank.autotune.tiles").joinpath("gpus.yaml").read_text("utf-8")
    table: Mapping[str, Any] = yaml.safe_load(text)
    return table


def occupancy(tile: Tile, dtype: str, limit: Limits) -> Occupancy:
    """Programs of a tile that a multiprocessor holds at once, by shared memory, registers and threads."""
    element = DTYPE_BYTES[dtype]
    stage = (tile["block_m"] + tile["block_n"]) * tile["block_k"] * element
    shared = stage * max(1, tile["stages"] - (limit.warp_threads == 64))  # AMD keeps one stage in registers
    threads = tile["warps"] * limit.warp_threads
    registers = ceil(tile["block_m"] * tile["block_n"] / threads) + REGISTERS_BESIDE
    if shared > limit.shared_memory_of_block_bytes:
        return Occupancy(shared, registers, 0, 0)
    held = min(registers, limit.registers_of_thread)
    programs = min(
        limit.shared_memory_bytes // shared,
        limit.registers // (held * threads),
        limit.threads // threads,
        limit.blocks,
    )
    return Occupancy(shared, registers, programs, programs * tile["warps"])


def seconds(sizes: Sizes, tile: Tile, dtype: str, device: Device) -> float:
    """Predicted time of one multiply; infinite where the tile cannot run.

    Raises:
        KernelError: the device lacks the precision, or limits of its architecture are not known.
        UnknownFigure: the profile lacks a figure.
    """
    limit = limits(device)
    precision = PRECISIONS[dtype]
    if precision not in device.peak_flop_per_s:
        raise KernelError(f"{device.name} has no {precision}; it has {', '.join(device.peak_flop_per_s)}")
    at = occupancy(tile, dtype, limit)
    if not at.programs:
        return float("inf")
    need = "the model of tiles"
    processors = known(device, "multiprocessors", device.multiprocessors, needed_for=need)
    memory = known(device, "memory_bandwidth", device.memory_bandwidth_bytes_per_s, needed_for=need)
    programs = ceil(sizes["m"] / tile["block_m"]) * ceil(sizes["n"] / tile["block_n"])
    rate = device.peak_flop_per_s[precision] / processors
    full, rest = divmod(programs, int(processors) * at.programs)
    waves = [at.programs] * min(1, full)
    times = [
        full * _wave(sizes, tile, dtype, at, limit, beside, rate, memory / processors) for beside in waves
    ]
    if rest:
        beside = ceil(rest / processors)
        share = memory / min(rest, processors)
        times.append(_wave(sizes, tile, dtype, at, limit, beside, rate, min(share, 4 * memory / processors)))
    return LAUNCH_S + sum(times)


def _wave(
    sizes: Sizes,
    tile: Tile,
    dtype: str,
    at: Occupancy,
    limit: Limits,
    beside: int,
    rate: float,
    memory: float,
) -> float:
    """Seconds in which a multiprocessor finishes `beside` programs that run at once.

    `rate` in FLOP/s and `memory` in bytes/s are the multiprocessor's shares.
    """
    element = DTYPE_BYTES[dtype]
    steps = ceil(sizes["k"] / tile["block_k"])
    flop = 2.0 * tile["block_m"] * tile["block_n"] * tile["block_k"]
    brought = (tile["block_m"] + tile["block_n"]) * tile["block_k"] * element
    hidden = min(1.0, beside * tile["warps"] / WARPS_TO_HIDE) * min(1.0, tile["warps"] / limit.matrix_warps)
    spilled = max(0, at.registers_of_thread - limit.registers_of_thread) / at.registers_of_thread
    arithmetic = beside * flop / (rate * hidden * (1 - spilled))
    traffic = beside * brought / (memory * L2_OVER_MEMORY * _from_l2(sizes, tile, element, limit))
    waiting = LATENCY_S / max(1, tile["stages"] - 1)
    written = beside * tile["block_m"] * tile["block_n"] * element / memory
    if tile["stages"] == 1:  # nothing is on its way while the units compute
        return steps * (arithmetic + traffic + waiting) + written
    return LATENCY_S + steps * max(arithmetic, traffic, waiting) + written


def _from_l2(sizes: Sizes, tile: Tile, element: int, limit: Limits) -> float:
    """Share of full cache bandwidth: 1 where operands of neighbouring programs stay in the cache, less where they
    come from memory anew."""
    group = min(tile["group_m"], ceil(sizes["m"] / tile["block_m"]))
    columns = max(
        1, 64 // group
    )  # programs that run together go down a group of rows, then to the next columns
    kept = (group * tile["block_m"] + columns * tile["block_n"]) * sizes["k"] * element
    missed = (1 / columns + 1 / group) / 2 if kept <= limit.l2_bytes else 1.0
    return 1 / max(1.0, missed * L2_OVER_MEMORY)
