"""Fit the `fitted` blocks of simulator/network/libraries.yaml and print them.

    python scripts/fit_collectives.py nvlink4
    python scripts/fit_collectives.py efa

Least squares of the logarithm of time with a soft margin of 10 %, from three starts. Rows of benchmarks that launch
through PyTorch carry 20 us of host time (see tests/simulator/network/test_collective_accuracy.py).
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

import towtank.hardware_profiles
from towtank.hardware_profiles.curves.collectives import bus_factor
from towtank.hardware_profiles.curves.loading import rows_of
from towtank.hardware_profiles.curves.network import network_bus_bandwidth_points
from towtank.hardware_profiles.fabrics import links_of_node
from towtank.simulator.network.collectives import Group, Links, choose
from towtank.simulator.network.libraries import (
    FabricCost,
    NetworkCost,
    Nvls,
    fabric_cost,
    library,
    network_cost,
)
from towtank.simulator.network.rings import ring_width
from towtank.simulator.network.topology import linked, switch

MEASUREMENTS = Path(towtank.hardware_profiles.__file__).parent / "measurements"
HOST_S = 20e-6
B200_NODES = "8x B200 node(s), AWS P6-B200, EFA v4 8x50GB/s"
# fabric: device of a curve, system of points, port or links, device counts (empty: all)
FABRICS = {
    "nvlink2": ("", "V100 node", 0.0, (2, 3, 4, 8), 0.0),
    "nvlink3": ("a100-80gb-sxm", "8x A100 (NVLink3)", 300e9, (), HOST_S),
    "nvlink4": ("h100-80gb-sxm", "8x H200 (NVLink4)", 450e9, (), HOST_S),
    "nvlink5": ("b200", B200_NODES, 900e9, (), HOST_S),
}


def curve(device):
    """Rows of a measured curve: collective, size, nodes, bytes, seconds, host seconds."""
    for row in rows_of(MEASUREMENTS / f"{device}.collectives.csv") if device else ():
        if row["operation"] != "all_to_all":
            for key in filter(str.isdigit, row):
                yield row["operation"], int(row["num_devices"]), 1, float(key), float(row[key]) * 1e-6, 0.0


def points(system, nodes, host_s):
    """The same of published points."""
    for point in network_bus_bandwidth_points(nodes=nodes):
        if point.system == system and point.message_bytes >= (131072 if nodes > 1 else 0):
            moved = bus_factor(point.operation, point.num_devices) * point.message_bytes
            time_s = moved / point.bandwidth_bytes_per_s
            yield point.operation, point.num_devices, nodes, point.message_bytes, time_s, host_s


def fit(rows, start, predicted):
    """Parameters (all above zero) that meet the rows best."""
    measured = np.log([row[4] for row in rows])
    best = None
    for seed in range(3):
        shift = np.random.default_rng(seed).normal(0, 0.2, len(start)) * (seed > 0)
        found = least_squares(
            lambda p: np.log(predicted(np.exp(p))) - measured,
            np.log(start) + shift,
            loss="soft_l1",
            f_scale=0.1,
            diff_step=1e-3,
            max_nfev=60,
        )
        best = found if best is None or found.cost < best.cost else best
    error = np.abs(np.exp(np.log(predicted(np.exp(best.x))) - measured) - 1)
    print(f"# {len(rows)} rows, median error {np.median(error):.3f}")
    return np.exp(best.x)


def as_fabric(p, nvls):
    """Costs from the list of parameters."""
    start, ll, ll128, simple, pay, pay128, fill, gather, reduce, nvls_start, nvls_reach = (
        float(x) for x in p
    )
    return FabricCost(
        start,
        {"ll": ll, "ll128": ll128, "simple": simple},
        {"ll": pay, "ll128": pay128, "simple": 1.0},
        fill,
        {"all_reduce": reduce, "all_gather": gather, "reduce_scatter": gather},
        Nvls(nvls_start, nvls_reach, nvls.least_devices) if nvls else None,
    )


def times(rows, links, width, port, between=math.inf, name="nccl"):
    """Predicted seconds of each row."""
    taken = library(name)
    return [
        host
        + choose(kind, size_bytes, Group(n, nodes, width(n // nodes), between, port), links, taken).time_s
        for kind, n, nodes, size_bytes, _, host in rows
    ]


def fit_fabric(name):
    """Print one block of fabrics."""
    device, system, port, counts, host_s = FABRICS[name]
    rows = [row for row in [*curve(device), *points(system, 1, host_s)] if not counts or row[1] in counts]
    ports = switch(8, port, 0.0) if port else linked(8, links_of_node("dgx-v100"), 0.0)
    widths = {n: ring_width(ports, tuple(range(n))) for n in range(1, 9)}
    nvls = fabric_cost(name).nvls
    start = [5e-6, 0.6e-6, 1.9e-6, 3.4e-6, 0.25, 0.85, 5e-6, 0.75, 0.8, 20e-6, 1.0]
    found = fit(rows, start, lambda p: times(rows, Links(as_fabric(p, nvls)), widths.get, port))
    print(name, as_fabric(found, nvls))


def fit_efa():
    """Print the block of efa; its fabric is nvlink5."""
    rows = list(points(B200_NODES, 4, HOST_S))
    base = Links(fabric_cost("nvlink5"))

    def links(p):
        step, reach, fill = (float(x) for x in p)
        network = NetworkCost(dict.fromkeys(network_cost("efa").step_s, step), reach, fill)
        return replace(base, network=network)

    found = fit(
        rows, [5e-5, 0.9, 3e-5], lambda p: times(rows, links(p), lambda n: 900e9, 900e9, 400e9, "nccl-efa")
    )
    print("efa", links(found).network)


if __name__ == "__main__":
    fit_efa() if sys.argv[1] == "efa" else fit_fabric(sys.argv[1])
