"""The machine that a calibration describes: one node whose devices are its processes, or its GPUs."""

from towtank.hardware_profiles.calibrated.records import Calibration, CollectiveTimes
from towtank.hardware_profiles.records import Device, Machine, Network, Node, Source

_MEASURED = (
    "num_nodes", "node.devices", "node.nics", "node.pair_bandwidth_max_bytes_per_s",
    "node.pair_bandwidth_min_bytes_per_s", "node.device_bandwidth_bytes_per_s", "node.latency_s",
)  # fmt: skip
"""Figures of a calibrated machine that have a value."""


def machine_of(calibration: Calibration) -> Machine:
    """One node of as many devices as processes were measured at once.

    A device of a CPU machine is one process; it has an equal part of the node's memory when all of them run, and runs
    collectives on the cores that compute, so that neither hides the other.
    """
    source = Source(calibration.described, "calibration")
    return Machine(
        name=calibration.name,
        description=f"this machine as calibrated: {_description(calibration)}",
        site="here",
        device=_device(calibration, source),
        num_nodes=1,
        node=_node(calibration),
        network=Network("none", "unknown", None, None, None, None, None),
        power_usage_effectiveness=None,
        system_power_w=None,
        price_per_device_hour_usd=None,
        measured_bus_bandwidth_bytes_per_s={},
        sources=dict.fromkeys(_MEASURED, source),
        calibration=calibration,
    )


def _device(calibration: Calibration, source: Source) -> Device:
    on_cpu = calibration.hardware.device_type == "cpu"
    peaks = _peaks(calibration)
    return Device(
        name=calibration.name,
        description=_description(calibration),
        unit="CPU worker" if on_cpu else "GPU",
        vendor="unknown",
        architecture=calibration.hardware.device_type,
        peak_flop_per_s=peaks,
        memory_capacity_bytes=calibration.hardware.memory_bytes
        / (max(calibration.process_counts) if on_cpu else 1),
        memory_bandwidth_bytes_per_s=calibration.memory_bandwidth_bytes_per_s,
        multiprocessors=None,
        tdp_w=None,
        idle_w=None,
        measured_as=calibration.name,
        sustained_fraction=None,
        sources={
            "memory_capacity_bytes": source,
            "memory_bandwidth_bytes_per_s": source,
            **{f"peak_flop_per_s.{name}": source for name in peaks},
        },
        kernel_queues=1 if on_cpu else None,
    )


def _node(calibration: Calibration) -> Node:
    bandwidth, latency_s = _links(calibration)
    return Node(
        devices=max(calibration.process_counts),
        fabric="switch",
        pair_bandwidth_max_bytes_per_s=bandwidth,
        pair_bandwidth_min_bytes_per_s=bandwidth,
        device_bandwidth_bytes_per_s=bandwidth,
        latency_s=latency_s,
        nics=0,
        nic_bandwidth_bytes_per_s=None,
        injection_bytes_per_s=None,
    )


def _description(calibration: Calibration) -> str:
    hardware = calibration.hardware
    if hardware.device_type != "cpu":
        return hardware.processor
    return f"{hardware.processor}, {hardware.cores} cores"


def _peaks(calibration: Calibration) -> dict[str, float]:
    """Rate of large multiplies of one process alone by precision: what FLOP cost beside all else."""
    peaks: dict[str, float] = {}
    for fit in calibration.kernels:
        each = fit.terms.get("flop", 0.0)
        if fit.kernel == "matmul.forward" and fit.processes == 1 and each > 0:
            peaks[fit.precision] = max(1.0 / each, peaks.get(fit.precision, 0.0))
    return peaks


def _links(calibration: Calibration) -> tuple[float | None, float | None]:
    """Bus bandwidth of the largest all-reduce of two, and the time of the smallest; None with one process."""
    pairs = [row for row in calibration.collectives if (row.collective, row.size) == ("all-reduce", 2)]
    if not pairs:
        return None, None
    row: CollectiveTimes = min(pairs, key=lambda each: each.processes)
    return row.message_bytes[-1] / row.seconds[-1], row.seconds[0]
