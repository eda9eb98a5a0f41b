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
from towtank.hardware_profiles.units import parse_quantity
from towtank.kernels.errors import KernelError
from towtank.kernels.records import DTYPE_BYTES, Sizes, Tile

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "fp8"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What the model takes to be the same on all GPUs (`gpus.yaml`)."""

    warps_to_hide: int
    """Warps in one multiprocessor that keep its matrix units busy."""
    latency_s: float
    """From a load from memory until its data are there."""
    launch_s: float
    """Start of a kernel."""
    l2_over_memory: float
    """Bandwidth of the shared cache over that of memory."""
    registers_beside: int
    """Registers of a thread beside its accumulators."""
    most_shares: int
    """Shares of the memory's bandwidth that one multiprocessor draws while others have nothing to do."""
    together: int
    """Programs that run at about the same time, as far as what they share in the cache goes."""


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
def figures() -> Figures:
    """The model's own figures."""
    given = _table()["model"]
    return Figures(
        warps_to_hide=given["warps_to_hide"],
        latency_s=parse_quantity(given["latency"], "seconds"),
        launch_s=parse_quantity(given["launch"], "seconds"),
        l2_over_memory=given["l2_over_memory"],
        registers_beside=given["registers_beside"],
        most_shares=given["most_shares"],
        together=given["together"],
    )


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
    registers = ceil(tile["block_m"] * tile["block_n"] / threads) + figures().registers_beside
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
    time = figures().launch_s
    if full:
        time += full * _wave(sizes, tile, dtype, at, limit, at.programs, rate, memory / processors)
    if rest:  # few programs share the bandwidth, but one alone draws no more than a few shares of it
        share = min(memory / min(rest, processors), figures().most_shares * memory / processors)
        time += _wave(sizes, tile, dtype, at, limit, ceil(rest / processors), rate, share)
    return time


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
    element, given = DTYPE_BYTES[dtype], figures()
    steps = ceil(sizes["k"] / tile["block_k"])
    flop = 2.0 * tile["block_m"] * tile["block_n"] * tile["block_k"]
    brought = (tile["block_m"] + tile["block_n"]) * tile["block_k"] * element
    hidden = min(1.0, beside * tile["warps"] / given.warps_to_hide) * min(
        1.0, tile["warps"] / limit.matrix_warps
    )
    spilled = max(0, at.registers_of_thread - limit.registers_of_thread) / at.registers_of_thread
    arithmetic = beside * flop / (rate * hidden * (1 - spilled))
    traffic = beside * brought / (memory * given.l2_over_memory * _from_l2(sizes, tile, element, limit))
    waiting = given.latency_s / max(1, tile["stages"] - 1)
    written = beside * tile["block_m"] * tile["block_n"] * element / memory
    if tile["stages"] == 1:  # nothing is on its way while the units compute
        return steps * (arithmetic + traffic + waiting) + written
    return given.latency_s + steps * max(arithmetic, traffic, waiting) + written


def _from_l2(sizes: Sizes, tile: Tile, element: int, limit: Limits) -> float:
    """Share of full cache bandwidth: 1 where operands of neighbouring programs stay in the cache, less where they
    come from memory anew."""
    group = min(tile["group_m"], ceil(sizes["m"] / tile["block_m"]))
    # programs that run together go down a group of rows, then to the next columns
    columns = max(1, figures().together // group)
    kept = (group * tile["block_m"] + columns * tile["block_n"]) * sizes["k"] * element
    missed = (1 / columns + 1 / group) / 2 if kept <= limit.l2_bytes else 1.0
    return 1 / max(1.0, missed * figures().l2_over_memory)
