"""Bandwidth and latency between every two nodes or devices, as measured, and the time of collectives on them.

Pipette (Yim et al., DATE 2024) plans with the bandwidth that each pair of a real cluster attains in place of one
figure for all. A ring of n members cuts the array into n parts and takes n - 1 steps, twice that for all-reduce. In
each step a member waits for the part from the one before, so the slowest link of the ring sets the pace: the longest
chain of n - 1 sends that wait for each other is the one that stays on that link (Thakur, Rabenseifner and Gropp,
IJHPCA 19(1), 2005, with unequal links). All-to-all is exchanged in pairs, as there: in step k member i sends to
member i + k, and a step begins when the one before is done everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.routes import FloatArray, IntArray
from towtank.simulator.network.topology import Topology

LinkCollective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
LINK_COLLECTIVES: Final[tuple[LinkCollective, ...]] = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
)
LARGEST: Final = 2048
"""Nodes or devices of a matrix: its arrays grow with the square."""


@dataclass(frozen=True, slots=True)
class LinkMatrix:
    """Links from i to j, arrays of shape [n, n]; the diagonal has infinite bandwidth and no latency."""

    names: tuple[str, ...]
    bandwidth_bytes_per_s: FloatArray
    latency_s: FloatArray
    topology: Topology | None = None
    """Links that pairs share with each other; None where each pair has what was measured to itself."""

    @property
    def size(self) -> int:
        """Nodes or devices."""
        return len(self.names)

    def rates(self, src: IntArray, dst: IntArray) -> FloatArray:
        """Bytes/s of sends from `src[f]` to `dst[f]` that run at once, shape [flows]."""
        if self.topology is None:
            return self.bandwidth_bytes_per_s[src, dst]
        return max_min_rates(self.topology.capacity_bytes_per_s, self.topology.routes(src, dst))

    def alone_s(self, num_bytes: float) -> FloatArray:
        """Seconds of `num_bytes` over each link with nothing else under way, shape [n, n]; 0 on the diagonal."""
        return self.latency_s + num_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True, slots=True)
class Paced:
    """Time of a collective of all groups at once, and the link of the slowest one that costs most."""

    time_s: FloatArray
    """Seconds of each group, shape [groups]."""
    source: int
    destination: int
    link_bytes_per_s: float
    """What that link carries with all groups at work."""

    @property
    def slowest_s(self) -> float:
        """Seconds until the last group is done."""
        return float(self.time_s.max())


def steps(collective: LinkCollective, size: int) -> int:
    """Steps of the collective, one after the other."""
    return (2 if collective == "all_reduce" else 1) * (size - 1)


def paced(links: LinkMatrix, members: IntArray, collective: LinkCollective, num_bytes: float) -> Paced:
    """Time of `collective` of an array of `num_bytes` in all groups at once; `members` [groups, size] in ring order.

    The array is what nccl-tests call its size: the whole of it, for all-to-all all that one member sends.

    Raises:
        ValueError: groups of fewer than two members, or no bytes.
    """
    size = members.shape[1]
    if size < 2 or num_bytes <= 0:
        raise ValueError(f"a collective needs two members and a byte or more, got {size} and {num_bytes}")
    part = num_bytes / size
    distances = range(1, size) if collective == "all_to_all" else (1,)
    repeat = 1 if collective == "all_to_all" else steps(collective, size)
    total = np.zeros(len(members))
    slowest = []
    for distance in distances:
        to = np.roll(members, -distance, axis=1)
        rates = links.rates(members.ravel(), to.ravel()).reshape(members.shape)
        sends = links.latency_s[members, to] + part / rates
        total += repeat * sends.max(axis=1)
        slowest.append((sends, to, rates))
    worst = int(total.argmax())
    sends, to, rates = max(slowest, key=lambda step: float(step[0][worst].max()))
    place = int(sends[worst].argmax())
    return Paced(total, int(members[worst, place]), int(to[worst, place]), float(rates[worst, place]))
