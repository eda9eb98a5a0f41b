"""A calibration small enough to check by hand."""

from towtank.hardware_profiles.calibrated.records import (
    Calibration,
    CollectiveTimes,
    Hardware,
    KernelFit,
    Residual,
)

GOOD = Residual(3, 0.01, 0.02)


def fit(kernel: str, processes: int, threads: int = 1, precision: str = "fp32", **terms: float) -> KernelFit:
    return KernelFit(kernel, precision, threads, processes, terms, dict.fromkeys(terms, (0.0, 1.0)), GOOD)


KERNELS = (
    "matmul.forward", "matmul.dgrad", "matmul.wgrad", "attention.forward", "attention.backward", "elementwise",
    "norm.forward",
)  # fmt: skip


def calibration(name: str = "bench", cores: int = 2) -> Calibration:
    """Two cores: one process alone has both as threads; four processes take twice as long as two."""
    slow = {(2, 1): 1.0, (1, 1): 2.0, (1, 2): 2.0, (1, 4): 4.0}
    fits = [
        fit(kernel, processes, threads, launch=1e-6 * factor, flop=1e-11 * factor, bytes=1e-10 * factor)
        for (threads, processes), factor in slow.items()
        for kernel in KERNELS
    ]
    tables = [
        CollectiveTimes(collective, size, processes, (4.0, 1048576.0), (1e-4 * processes, 1e-3 * processes))
        for collective in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast", "send")
        for size, processes in ((2, 2), (2, 4), (4, 4))
        if not (collective == "send" and size > 2)
    ]
    hardware = Hardware("cpu", "Test Processor", cores, 16 * 2.0**30, 32 * 2.0**20)
    return Calibration(
        name, "2026-01-01", "quick", "torch 2.13.0, gloo", hardware, (1, 2, 4), 1e10, 5 * 2.0**20,
        tuple(fits), tuple(tables),
    )  # fmt: skip
