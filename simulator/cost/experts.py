"""Seconds of grouped multiplies: what measured expert layers take beyond dense multiplies of the same size."""

from towtank.hardware_profiles.curves.experts import ExpertCurve
from towtank.simulator.cost.compute import ComputeRates, matmul_time
from towtank.simulator.operations import Matmul

_CURVES = {
    "bf16": ("bf16",), "fp16": ("bf16",), "fp8": ("fp8", "fp8-block", "bf16"),
    "mxfp8": ("fp8", "fp8-block", "bf16"), "nvfp4": ("nvfp4", "fp8", "bf16"),
}  # fmt: skip
"""Measured layer that stands for a precision, best first. Layers in fp8-block quantise their inputs themselves; here
casts are counted apart, and layers in fp8 come with ready scales."""

_LAYER_PASSES = (4.0, 3.0)
"""16-bit passes inside a measured layer besides its multiplies, over copies x hidden (copies gathered, and summed up
again) and over copies x intermediate (gated activation)."""


def grouped_time(work: Matmul, rates: ComputeRates) -> float:
    """Seconds of a product of grouped experts.

    The products of one layer are slowed down alike, by the measured time of a layer with so many experts and copies
    per expert (without its memory-bound passes) over the time of its two products as dense ones; not below 1.
    """
    alone = matmul_time(work, rates)
    curve = _curve(work, rates)
    return alone if curve is None else alone * _slowdown(work, rates, curve)


def _curve(work: Matmul, rates: ComputeRates) -> ExpertCurve | None:
    measured = rates.curves.experts
    names = _CURVES.get(work.precision, ())
    return next((measured[name] for name in names if name in measured), None)


def _slowdown(work: Matmul, rates: ComputeRates, curve: ExpertCurve) -> float:
    assert work.layer is not None
    hidden, inter = work.layer
    rows = work.k if work.role == "wgrad" else work.m
    copies = rows * work.batch
    up = Matmul(rows, 2 * inter, hidden, work.precision, "forward", work.batch)
    down = Matmul(rows, hidden, inter, work.precision, "forward", work.batch)
    wide, narrow = _LAYER_PASSES
    # at the memory rate of the device that was measured, whatever that of a hypothetical one
    assert rates.curves.memory_fraction is not None, "ComputeRates.of has looked it up"
    memory_bytes_per_s = curve.memory_bytes_per_s * rates.curves.memory_fraction
    passes_s = 2.0 * copies * (wide * hidden + narrow * inter) / memory_bytes_per_s
    layer_s = curve.latency_s(copies, hidden, inter, 1, work.batch) / rates.efficiency
    dense_s = matmul_time(up, rates) + matmul_time(down, rates)
    return max(1.0, (layer_s - passes_s) / dense_s)
