"""Seconds of kernels on one device: matrix multiplies, attention, memory-bound kernels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.calibration import training_rate
from towtank.hardware_profiles.curves import DeviceCurves, MatmulCurve
from towtank.hardware_profiles.curves.attention import Implementation
from towtank.hardware_profiles.records import Device, known
from towtank.kernels.counts import BYTES_PER_ELEMENT, matmul_bytes
from towtank.simulator.errors import PlanError
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul
from towtank.simulator.stacks.records import Stack

_CURVES = {
    "fp32": ("bf16",), "tf32": ("bf16",), "fp16": ("bf16",), "bf16": ("bf16",), "fp8": ("fp8", "bf16"),
    "mxfp8": ("fp8", "fp8-block", "bf16"), "nvfp4": ("nvfp4", "fp8", "bf16"),
}  # fmt: skip
"""Measured curve that gives a precision its shape dependence, best first. Blackwell multiplies MX blocks in the
tensor cores at the rate of fp8; the tables of fp8-block are of serving kernels that scale blocks of 128 by hand."""

_LARGE = 8192
"""Side of a square multiply at which a curve is at its level."""

SMALLEST_MEASURED_K = 256
"""Depth below which the curves hold no figures: there the time is continued as a straight line in the depth."""

MISALIGNED_SLOWDOWN = 8.0
"""Time of a product whose rows do not align over that of one whose rows do. Fitted to runs with heads of
108, 145, 150 and 450 features on A100 and V100 (BigScience BLOOM and tr8-104B); the vector units alone, which such
kernels fall back to, reach a fourth to a sixteenth of the tensor cores."""


@dataclass(frozen=True, slots=True)
class ComputeRates:
    """A device under a stack: what compute costs need, looked up once."""

    device: Device
    curves: DeviceCurves
    attention: str
    launch_overhead_s: float
    efficiency: float
    """Fitted: rate inside a training step over the rate of the curves."""
    memory_bytes_per_s: float
    attention_kernel_level: float

    @classmethod
    def of(cls, device: Device, curves: DeviceCurves, stack: Stack) -> "ComputeRates":
        """Look up the rates.

        Raises:
            UnknownFigure: the device's memory bandwidth is unknown.
        """
        bandwidth = known(
            device,
            "memory_bandwidth",
            device.memory_bandwidth_bytes_per_s,
            needed_for="the cost of every kernel",
        )
        return cls(
            device,
            curves,
            stack.kernels.attention,
            stack.launch_overhead_s,
            stack.fitted.compute_efficiency * training_rate(device.name).rate,
            bandwidth
            * known(device, "memory_fraction", curves.memory_fraction, needed_for="the cost of every kernel"),
            level(device, curves, "bf16"),
        )


def peak(device: Device, precision: str) -> float:
    """Dense peak in FLOP/s.

    Raises:
        PlanError: the device does not have this precision.
    """
    found = device.peak_flop_per_s.get(precision)
    if found is None:
        has = ", ".join(sorted(device.peak_flop_per_s))
        raise PlanError([f"{device.name} does not compute in {precision}; it has {has}"])
    return found


def level(device: Device, curves: DeviceCurves, precision: str) -> float:
    """Sustained rate of large multiplies over the rate that the curve gives them.

    A device without curves of its own takes only their shape: its level is its own best measured rate where one
    is known.
    """
    own = device.achievable_flop_per_s.get(precision)
    if device.measured_as != device.name and own is not None:
        curve = curve_for(curves, precision)
        return own / (peak(device, precision) * curve.efficiency(_LARGE, _LARGE, _LARGE))
    return 1.0 if device.sustained_fraction is None else device.sustained_fraction


def sustained(efficiency: float, device: Device, curves: DeviceCurves, precision: str) -> float:
    """Fraction of peak that a multiply keeps up through a training step, from that of the short burst measured.

    On a device that was measured itself the power limit bites where multiplies draw full power, so it caps the rate;
    smaller ones run below it at the clock of the burst. A borrowed curve is scaled as a whole.
    """
    if device.measured_as != device.name:
        return efficiency * level(device, curves, precision)
    largest = curve_for(curves, precision).efficiency(_LARGE, _LARGE, _LARGE)
    return min(efficiency, level(device, curves, precision) * largest)


def curve_for(curves: DeviceCurves, precision: str) -> MatmulCurve:
    """Measured matrix-multiply curve whose shape dependence a precision takes."""
    return next(curves.matmul[name] for name in _CURVES[precision] if name in curves.matmul)


def _compute_time(work: Matmul, depth: int, rates: ComputeRates) -> float:
    """Seconds of the arithmetic of a multiply of `depth` inputs an output, at the measured rate of its shape."""
    device = rates.device
    curve = curve_for(rates.curves, work.precision)
    # the products of a batch fill the device side by side, but each quantizes its own rows
    columns = work.n * work.batch
    burst = curve.efficiency(work.m, columns, depth)
    efficiency = sustained(burst, device, rates.curves, work.precision)
    flop = 2.0 * work.m * columns * depth
    return flop / (peak(device, work.precision) * min(1.0, efficiency) * rates.efficiency)


def _shallow_time(work: Matmul, rates: ComputeRates) -> float:
    """Seconds of a multiply of fewer inputs than the curves hold.

    A tile of the output costs a fixed time (filling its pipeline, writing it) and one for each step in depth, so
    t(k) = t(K) - (t(2 K) - t(K)) (K - k) / K with K the smallest measured depth; never above the rate at K.
    """
    smallest = SMALLEST_MEASURED_K
    time = _compute_time(work, smallest, rates)
    twice = _compute_time(work, 2 * smallest, rates)
    share = work.k / smallest
    return max(time - (twice - time) * (1.0 - share), time * share)


def matmul_time(work: Matmul, rates: ComputeRates) -> float:
    """Seconds of a matrix multiply: measured efficiency by shape over peak, not below its memory traffic."""
    shallow = work.k < SMALLEST_MEASURED_K
    compute = _shallow_time(work, rates) if shallow else _compute_time(work, work.k, rates)
    if not work.aligned:
        compute *= MISALIGNED_SLOWDOWN
    element = BYTES_PER_ELEMENT[work.precision]
    memory = (
        matmul_bytes(work.m, work.n, work.k, element, max(element, 2.0), work.batch)
        / rates.memory_bytes_per_s
    )
    return max(compute, memory, rates.launch_overhead_s)


LARGEST_TRAINED_HEAD = 128
"""The tables hold wider heads too, but of fall-back kernels that no training stack uses."""

WIDE_HEAD_EFFICIENCY = 0.80
"""Rate of a 192-wide head (128-wide values) over that of a 128-wide one in training kernels: 0.83 forward and 0.77
backward on B200 (MooreThreads/SimuMax, configs/system/b200_bf16_ceperm.json)."""


TRITON_FORWARD, TRITON_BACKWARD = 1 / 1.4, 1 / 2
"""Rate of FlashAttention in Triton over that of FlashAttention-2 on A100: the latter is 1.3 to 1.5 times faster
forward and around twice backward (Dao, arXiv 2307.08691, section 4.1)."""


def attention_time(work: AttentionCore, rates: ComputeRates) -> float:
    """Seconds of a fused causal attention kernel (forward 4 and backward 10 FLOP per query, key and width)."""
    curve = rates.curves.attention["bf16"]
    # devices newer than FlashAttention-2 have no figures of it: there its successors are what a stack runs
    implementation: Implementation = (
        "flash2" if rates.attention in ("flash2", "triton") and "flash2" in curve.published else "best"
    )
    head_dim = min(work.head_dim, LARGEST_TRAINED_HEAD)
    shape = (work.batch, work.keys, work.heads, work.kv_heads, head_dim)
    width = work.head_dim + work.value_dim
    flop = 2.0 * work.batch * work.heads * work.queries * work.mean_keys * width
    if work.backward:
        flop *= 2.5
        efficiency = curve.backward_efficiency(*shape, implementation=implementation)
    else:
        efficiency = curve.forward_efficiency(*shape, implementation=implementation)
    rate = peak(rates.device, "bf16" if "bf16" in rates.device.peak_flop_per_s else "fp16")
    if work.head_dim > LARGEST_TRAINED_HEAD:
        efficiency *= WIDE_HEAD_EFFICIENCY
    if rates.attention == "triton":
        efficiency *= TRITON_BACKWARD if work.backward else TRITON_FORWARD
    efficiency *= min(1.0, rates.attention_kernel_level) * rates.efficiency
    return max(flop / (rate * efficiency), rates.launch_overhead_s)


def elementwise_time(work: Elementwise, rates: ComputeRates) -> float:
    """Seconds of memory-bound kernels; the launch floor holds for each of them."""
    traffic, launches = elementwise_limits(work.bytes, work.launches, rates)
    return float(max(traffic, launches))


def elementwise_limits(
    num_bytes: float | NDArray[np.float64], launches: int, rates: ComputeRates
) -> tuple[Any, Any]:
    """Seconds that traffic and launches of memory-bound kernels take; they take the longer of the two."""
    return num_bytes / rates.memory_bytes_per_s, launches * rates.launch_overhead_s
