"""Occupancy and waves of Triton tiles worked out by hand."""

from dataclasses import replace

import pytest

from towtank.autotune.tiles.gpu_model import limits, occupancy, seconds
from towtank.hardware_profiles.load import load_device
from towtank.kernels.errors import KernelError
from towtank.kernels.matmul import triton_tiles

H200 = load_device("h200-141gb")


def tile(m=128, n=128, k=64, warps=8, stages=3):
    return {"block_m": m, "block_n": n, "block_k": k, "group_m": 8, "warps": warps, "stages": stages}


def square(n):
    return {"m": n, "n": n, "k": n}


def test_occupancy_worked_out_by_hand():
    at = occupancy(tile(), "bfloat16", limits(H200))
    # three stages of (128 + 128) x 64 elements of 2 bytes; 64 accumulators a thread and 40 more
    assert at.shared_memory_bytes == 3 * 256 * 64 * 2
    assert at.registers_of_thread == 64 + 40
    # 98,304 bytes of 233,472: 2 programs; 65,536 registers of 104 x 256: 2; 2,048 threads: 8
    assert (at.programs, at.warps) == (2, 16)


def test_a_tile_that_needs_more_shared_memory_than_there_is_never_runs():
    large = tile(m=256, n=128, k=128, stages=4)  # 393,216 bytes
    assert occupancy(large, "bfloat16", limits(H200)).programs == 0
    assert seconds(square(4096), large, "bfloat16", H200) == float("inf")


def test_one_program_more_than_a_wave_takes_another_wave():
    each = tile(warps=4, stages=4)  # one program a multiprocessor, by shared memory: 132 run at once
    assert occupancy(each, "bfloat16", limits(H200)).programs == 1
    one = seconds({"m": 128 * 132, "n": 128, "k": 8192}, each, "bfloat16", H200)
    two = seconds({"m": 128 * 133, "n": 128, "k": 8192}, each, "bfloat16", H200)
    assert two > 1.4 * one


def test_one_stage_waits_for_every_load():
    slow = seconds(square(4096), tile(stages=1, warps=4, k=32), "bfloat16", H200)
    assert slow > 1.5 * seconds(square(4096), tile(stages=4, warps=4, k=32), "bfloat16", H200)


@pytest.mark.parametrize("name", ["h100-80gb-sxm", "h200-141gb", "a100-80gb-sxm", "mi250x-gcd"])
def test_no_tile_beats_the_peak_and_large_products_like_large_tiles(name):
    device = load_device(name)
    peak = device.peak_flop_per_s["bf16"]
    times = {
        tuple(t.items()): seconds(square(8192), t, "bfloat16", device) for t in triton_tiles({}, "bfloat16")
    }
    assert min(times.values()) >= 2 * 8192**3 / peak
    best = dict(min(times, key=times.__getitem__))
    assert best["block_m"] * best["block_n"] >= 128 * 128
    few = min(triton_tiles({}, "bfloat16"), key=lambda t: seconds(square(512), t, "bfloat16", device))
    assert few["block_m"] * few["block_n"] <= 64 * 128  # small ones, so that all multiprocessors have work


def test_what_is_not_known_is_said():
    with pytest.raises(KernelError, match="no limits of a multiprocessor are known for Elsewhere"):
        limits(replace(H200, architecture="Elsewhere"))
    with pytest.raises(KernelError, match="has no fp8"):
        seconds(square(512), tile(), "float8_e4m3fn", load_device("a100-80gb-sxm"))
