"""Our flow model against figures of SimGrid's CM02, recorded by scripts/record_simgrid.py."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from towtank.simulator.network.dragonfly import DragonflyShape, dragonfly
from towtank.simulator.network.fat_tree import FatTreeShape, fat_tree
from towtank.simulator.network.topology import Topology
from towtank.simulator.network.transfers import finish_times

CAPTURE = Path(__file__).parents[2] / "captures" / "simgrid" / "shifts.csv"
RATE, LATENCY_S, MESSAGE_BYTES = 12.5e9, 1e-6, 10e6


class Recorded(NamedTuple):
    platform: str
    hosts: int
    shift: int
    mean_s: float
    last_s: float


def recorded() -> list[Recorded]:
    rows = csv.DictReader(line for line in CAPTURE.read_text().splitlines() if not line.startswith("#"))
    return [
        Recorded(
            row["platform"], int(row["hosts"]), int(row["shift"]), float(row["mean_s"]), float(row["last_s"])
        )
        for row in rows
    ]


def tree(children: tuple[int, ...], parents: tuple[int, ...]) -> Topology:
    shape = FatTreeShape(children, parents, (RATE,) * len(children), LATENCY_S)
    return fat_tree(shape, "d-mod-k")


def flies(groups: int, switches: int, hosts: int) -> Topology:
    return dragonfly(DragonflyShape(groups, switches, hosts, 1, RATE, RATE, hop_latency_s=LATENCY_S))


PLATFORMS = {
    "fat-tree-64": tree((8, 8), (1, 8)),
    "fat-tree-128-oversubscribed": tree((16, 8), (1, 4)),
    "fat-tree-512": tree((8, 8, 8), (1, 8, 8)),
    "dragonfly-64": flies(4, 4, 4),
    "dragonfly-256": flies(8, 8, 4),
    "dragonfly-512": flies(8, 16, 4),
}


def arrivals(topology: Topology, shift: int, *, by_latency: bool) -> np.ndarray:
    """Arrival of each host's message. CM02 shares a link in inverse proportion to the latency of the flows."""
    src = np.arange(topology.num_endpoints)
    routes = topology.routes(src, (src + shift) % topology.num_endpoints)
    latency = topology.latency_of(routes)
    return finish_times(
        topology.capacity_bytes_per_s,
        routes,
        np.full(len(src), MESSAGE_BYTES),
        latency,
        weight=1 / latency if by_latency else None,
    )


def test_all_platforms_were_recorded() -> None:
    rows = recorded()
    assert {(row.platform, row.hosts) for row in rows} == {
        (name, topology.num_endpoints) for name, topology in PLATFORMS.items()
    }
    assert len(rows) >= 50


@pytest.mark.parametrize("row", recorded(), ids=lambda row: f"{row.platform}-{row.shift}")
def test_within_a_part_in_a_thousand_where_links_are_shared_as_cm02_does(row: Recorded) -> None:
    found = arrivals(PLATFORMS[row.platform], row.shift, by_latency=True)
    assert found.max() == pytest.approx(row.last_s, rel=1e-3)
    assert found.mean() == pytest.approx(row.mean_s, rel=1e-3)


@pytest.mark.parametrize("row", recorded(), ids=lambda row: f"{row.platform}-{row.shift}")
def test_within_five_percent_with_equal_shares(row: Recorded) -> None:
    found = arrivals(PLATFORMS[row.platform], row.shift, by_latency=False)
    assert found.max() == pytest.approx(row.last_s, rel=0.05)
