"""Seconds of kernels and collectives on a machine that was calibrated: fits of what was measured on it.

Each kernel's time is a sum of terms, one for each feature of the call (`features`). Processes that share a node's
cores, caches and memory slow each other down; how many of them are at work at once is the load of a plan.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.calibrated.records import Calibration, KernelTimes, threads_of
from towtank.hardware_profiles.records import Machine
from towtank.kernels.counts import BYTES_PER_ELEMENT
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Work
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.records import Stack

BACKWARD_PRODUCTS = 2.5
"""FLOP of attention backward over forward: five products of the size of the scores to two."""
OTHER = "elementwise"
"""Fit that stands for memory-bound kernels without one of their own: a copy."""

STREAMED_BYTES = 2.0**21
"""Bytes of one memory-bound kernel beyond which further ones are a feature of their own: no longer in the caches that
a core has alone, and in memory that the allocator gives back and takes again."""


def elementwise_features(num_bytes: float, launches: int) -> dict[str, float]:
    """Features of memory-bound kernels that move so many bytes together: launches, bytes, and those beyond caches."""
    beyond = max(0.0, num_bytes - launches * STREAMED_BYTES)
    return {"launch": float(launches), "bytes": num_bytes, "streamed": beyond}


def matmul_features(m: int, n: int, k: int, batch: int, element_bytes: float) -> dict[str, float]:
    """Features of a product of m x k and k x n: launch, FLOP, and bytes of the operands and the result."""
    return {
        "launch": 1.0,
        "flop": 2.0 * m * n * k * batch,
        "left": element_bytes * m * k * batch,
        "right": element_bytes * k * n * batch,
        "result": element_bytes * m * n * batch,
    }


def attention_features(work: AttentionCore, element_bytes: float) -> dict[str, float]:
    """Features of an attention core: FLOP and scores of the keys that are seen, bytes of queries, keys and values."""
    pairs = work.batch * work.heads * work.queries * work.mean_keys
    flop = 2.0 * pairs * (work.head_dim + work.value_dim)
    queries = work.batch * work.heads * work.queries * (work.head_dim + work.value_dim)
    keys = work.batch * work.kv_heads * work.keys * (work.head_dim + work.value_dim)
    return {
        "launch": 1.0,
        "flop": flop * (BACKWARD_PRODUCTS if work.backward else 1.0),
        "scores": pairs,
        "bytes": element_bytes * (queries + keys),
    }


def kernel_of(work: Matmul | AttentionCore | Elementwise) -> str:
    """Name of the fit that an operation takes its time from."""
    if isinstance(work, Matmul):
        return f"matmul.{work.role}"
    if isinstance(work, AttentionCore):
        return "attention.backward" if work.backward else "attention.forward"
    return work.kernel or OTHER


def features_of(work: Matmul | AttentionCore | Elementwise, precision: str) -> dict[str, float]:
    """Features of an operation; those of memory-bound kernels are launches and bytes."""
    if isinstance(work, Matmul):
        return matmul_features(work.m, work.n, work.k, work.batch, BYTES_PER_ELEMENT[work.precision])
    if isinstance(work, AttentionCore):
        return attention_features(work, BYTES_PER_ELEMENT[precision])
    return elementwise_features(work.bytes, work.launches)


def load_of(plan: Plan, devices_per_node: int) -> float:
    """Processes of a node that are at work at once, on average over a step.

    Devices on a node, less those that a pipeline leaves idle: of m v + p - 1 slots (m micro-batches, v chunks of each
    of p stages) a stage works in m v (Narayanan et al., SC'21, section 2.2).
    """
    on_node = min(plan.num_devices, devices_per_node)
    slots = plan.num_micro_batches * plan.virtual_stages
    return max(1.0, on_node * slots / (slots + plan.pipeline - 1))


@lru_cache(maxsize=64)
def stack_on(machine: Machine, stack: Stack) -> Stack:
    """The stack as it runs on a machine: a calibrated one knows what a process takes besides tensors."""
    if machine.calibration is None:
        return stack
    return replace(stack, memory=replace(stack.memory, context_bytes=machine.calibration.process_bytes))


def loads_of(calibration: Calibration, processes: int) -> tuple[float, ...]:
    """Loads at which so many processes were measured; the least time over these is a bound at any load."""
    return tuple(float(count) for count in calibration.process_counts if count <= processes) or (1.0,)


@lru_cache(maxsize=512)
def calibrated_costs(
    calibration: Calibration, precision: str, processes: int, loads: tuple[float, ...]
) -> "CalibratedCosts":
    """Costs of a run of so many processes on a node at one load, or the least over several; shared by plans."""
    threads = threads_of(calibration.hardware.cores, processes)
    return CalibratedCosts(calibration, precision, threads, loads)


class CalibratedCosts:
    """Seconds of compute operations by a calibration, each shape worked out once."""

    def __init__(
        self, calibration: Calibration, precision: str, threads: int, loads: tuple[float, ...]
    ) -> None:
        """`threads` of each process; `loads`: where there are several, a time is the least over them."""
        self.precision = precision
        self._calibration, self._threads, self._loads = calibration, threads, loads
        self._times: dict[str, tuple[KernelTimes, ...]] = {}
        self._terms: dict[tuple[str, str], tuple[dict[str, float], ...]] = {}
        self._known: dict[Work, float] = {}

    def duration_s(self, work: Work) -> float:
        """Seconds of one compute operation.

        Raises:
            UnknownFigure: the calibration does not hold its kernel.
        """
        found = self._known.get(work)
        if found is None:
            found = self._known[work] = self._time(work)
        return found

    def _time(self, work: Work) -> float:
        assert isinstance(work, Matmul | AttentionCore | Elementwise)
        if isinstance(work, Elementwise):
            return float(self.elementwise_s(work.bytes, work.launches, work.kernel))
        precision = work.precision if isinstance(work, Matmul) else self.precision
        features = features_of(work, precision)
        return min(
            sum(value * features.get(name, 0.0) for name, value in terms.items())
            for terms in self._terms_of(kernel_of(work), precision)
        )

    def elementwise_s(self, num_bytes: float | NDArray[np.float64], launches: int, kernel: str) -> Any:
        """Seconds of memory-bound kernels that move so many bytes, a number or an array."""
        if not launches:
            return 0.0 * num_bytes
        beyond = np.maximum(0.0, num_bytes - launches * STREAMED_BYTES)
        known = self._at(self.precision)[0].known(kernel)
        seconds = [
            launches * terms.get("launch", 0.0)
            + num_bytes * terms.get("bytes", 0.0)
            + beyond * terms.get("streamed", 0.0)
            for terms in self._terms_of(kernel if known else OTHER, self.precision)
        ]
        return np.minimum.reduce(seconds)

    def _at(self, precision: str) -> tuple[KernelTimes, ...]:
        if precision not in self._times:
            self._times[precision] = tuple(
                KernelTimes(self._calibration, precision, self._threads, load) for load in self._loads
            )
        return self._times[precision]

    def _terms_of(self, kernel: str, precision: str) -> tuple[dict[str, float], ...]:
        key = (kernel, precision)
        if key not in self._terms:
            self._terms[key] = tuple(times.terms(kernel) for times in self._at(precision))
        return self._terms[key]
