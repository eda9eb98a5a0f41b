"""Collectives against every published measurement whose hardware is named and that nobody complained about."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

import towtank.hardware_profiles
from towtank.hardware_profiles.curves.collectives import bus_factor
from towtank.hardware_profiles.curves.loading import rows_of
from towtank.hardware_profiles.curves.network import network_bus_bandwidth_points
from towtank.hardware_profiles.fabrics import links_of_node
from towtank.simulator.network.collectives import Group, Links, choose
from towtank.simulator.network.libraries import Collective, fabric_cost, library, network_cost
from towtank.simulator.network.rings import ring_width
from towtank.simulator.network.topology import Topology, linked, switch

MEASUREMENTS = Path(towtank.hardware_profiles.__file__).parent / "measurements"
HOST_START_S = 20e-6
"""What benchmarks that launch each call through PyTorch, or without a graph, add to a small message."""


class System(NamedTuple):
    device_class: str
    fabric: str
    ports: Topology
    network: str = ""
    injection: float = 0.0
    host_s: float = 0.0
    fitted: bool = False


class Case(NamedTuple):
    system: System
    collective: Collective
    size: int
    nodes: int
    num_bytes: float
    time_s: float


A100, H100, B200 = switch(8, 300e9, 0.0), switch(8, 450e9, 0.0), switch(8, 900e9, 0.0)
V100_LINKS = links_of_node("dgx-v100")
assert V100_LINKS is not None
V100 = linked(8, V100_LINKS, 0.0)

CURVES = {
    "a100-80gb-sxm": System("A100", "nvlink3", A100, fitted=True),
    "h100-80gb-sxm": System("H100", "nvlink4", H100, fitted=True),
    "h200-141gb": System("H200", "nvlink4", H100),
    "b200": System("B200", "nvlink5", B200, fitted=True),
    "b300": System("B300", "nvlink5", B200),
}
POINTS = {
    "8x A100 (NVLink3)": System("A100", "nvlink3", A100, host_s=HOST_START_S, fitted=True),
    "A100 node (NVLink/NVSwitch)": System("A100", "nvlink3", A100),
    "8x H200": System("H200", "nvlink4", H100),
    "8x H200 (NVLink4)": System("H200", "nvlink4", H100, host_s=HOST_START_S, fitted=True),
    "8x B200 p6-b200": System("B200", "nvlink5", B200),
    "8x B200 node(s), AWS P6-B200, EFA v4 8x50GB/s": System(
        "B200", "nvlink5", B200, "efa", 400e9, HOST_START_S, fitted=True
    ),
    "4x8 H200 AWS p5en EFA": System("H200", "nvlink4", H100, "efa", 400e9),
    "32 nodes x 8 H100, 8x NDR": System("H100", "nvlink4", H100, "infiniband", 400e9),
    "V100 node": System("V100", "nvlink2", V100, fitted=True),
}
LEFT_OUT = {
    "Hugging Face H100 cluster (8 GPU/node, AWS p5 EFA recalled)": "busy; bus or algorithm bandwidth not stated",
    "4 nodes x 8 GPU (type not stated, H100-class plot file all-reduce-bench-plot-4n)": "network not named",
    "AWS p4d.24xlarge (8x A100-40GB, 4x100G EFA)": "a report of a slow set-up",
    "Cray Slingshot-11, 4x MI250X per node (8 GCD)": "a report of a slow set-up",
    "TPU7x Ironwood ICI 2x2x1": "no library of ours, transferred bytes",
    "TPU7x Ironwood ICI 2x2x2": "no library of ours, transferred bytes",
    "2 nodes x 1 H100, 4 NICs, Tree": "which of the interfaces were used is not stated",
    "2x A100 pair NV12 (PCIe bridge)": "no size",
    "3 nodes x 8 A100-40GB, 4x HDR200 per node": "no size",
    "2x H100 PCIe (NVLink bridge)": "a bridge that no profile has",
}
ROUNDED = 131072
"""Rows of four B200 nodes below this size are artefacts of rounding, says the source."""


def curve_cases() -> Iterator[Case]:
    for device, system in CURVES.items():
        for row in rows_of(MEASUREMENTS / f"{device}.collectives.csv"):
            collective = row["operation"]
            if collective != "all_to_all":
                for size in (key for key in row if key.isdigit()):
                    yield Case(
                        system,
                        collective,  # type: ignore[arg-type]
                        int(row["num_devices"]),
                        1,
                        float(size),
                        float(row[size]) * 1e-6,
                    )


def point_cases() -> Iterator[Case]:
    for point in network_bus_bandwidth_points():
        system = POINTS.get(point.system)
        if system is None or point.num_devices is None or point.nodes is None or not point.message_bytes:
            continue
        artefact = point.nodes > 1 and point.message_bytes < ROUNDED
        # NVLS switched off by hand, and an all-gather that its reporter calls slow
        asked = "NVLS_ENABLE=0" in point.note or "why all_gather is slow" in point.note
        if not (artefact or asked):
            factor = bus_factor(point.operation, point.num_devices)
            time_s = factor * point.message_bytes / point.bandwidth_bytes_per_s
            yield Case(
                system,
                point.operation,  # type: ignore[arg-type]
                point.num_devices,
                point.nodes,
                point.message_bytes,
                time_s,
            )


def predicted_s(case: Case) -> float:
    system, local = case.system, case.size // case.nodes
    width = ring_width(system.ports, tuple(range(local)))
    links = Links(fabric_cost(system.fabric), network_cost(system.network) if case.nodes > 1 else None)
    group = Group(
        case.size,
        case.nodes,
        width,
        system.injection or float("inf"),
        float(system.ports.capacity_bytes_per_s[0]),
    )
    nccl = library("nccl-efa" if system.network == "efa" else "nccl")
    return system.host_s + choose(case.collective, case.num_bytes, group, links, nccl).time_s


@pytest.fixture(scope="module")
def errors() -> list[tuple[Case, float]]:
    cases = [*curve_cases(), *point_cases()]
    return [(case, abs(predicted_s(case) / case.time_s - 1)) for case in cases]


def test_no_published_system_is_forgotten() -> None:
    assert {point.system for point in network_bus_bandwidth_points()} == set(POINTS) | set(LEFT_OUT)


def test_median_error_is_fifteen_percent_or_less(errors: list[tuple[Case, float]]) -> None:
    assert len(errors) > 1000
    assert median(error for _, error in errors) <= 0.15


def test_worst_device_class_is_twenty_five_percent_or_less(errors: list[tuple[Case, float]]) -> None:
    by_class = defaultdict(list)
    for case, error in errors:
        by_class[case.system.device_class].append(error)
    found = {name: median(values) for name, values in by_class.items()}
    print({name: f"{len(by_class[name])}: {value:.3f}" for name, value in found.items()})
    assert sorted(found) == ["A100", "B200", "B300", "H100", "H200", "V100"]
    assert max(found.values()) <= 0.25, found


def test_systems_that_nothing_was_fitted_to(errors: list[tuple[Case, float]]) -> None:
    held_out = [error for case, error in errors if not case.system.fitted]
    print(len(held_out), median(held_out))
    assert len(held_out) > 400 and median(held_out) <= 0.15


@pytest.mark.parametrize("collective", ["all_reduce", "all_gather", "reduce_scatter"])
def test_every_collective(errors: list[tuple[Case, float]], collective: str) -> None:
    assert median(error for case, error in errors if case.collective == collective) <= 0.15


def test_small_messages_on_efa_that_nothing_was_fitted_to() -> None:
    # all-reduce of 8 B on 8 x V100 nodes, EFA of 2019 (gist jacobkahn): 163, 319 and 631 us on 2, 4 and 8 nodes
    links = Links(fabric_cost("nvlink2"), network_cost("efa"))
    for nodes, measured_s in ((2, 163e-6), (4, 319e-6), (8, 631e-6)):
        group = Group(8 * nodes, nodes, 150e9, 12.5e9)
        found = choose("all_reduce", 8.0, group, links, library("nccl-efa"))
        assert found.time_s == pytest.approx(measured_s, rel=0.3)


def test_several_nodes(errors: list[tuple[Case, float]]) -> None:
    found = [error for case, error in errors if case.nodes > 1]
    print(len(found), median(found), max(found))
    assert len(found) >= 20 and median(found) <= 0.15
