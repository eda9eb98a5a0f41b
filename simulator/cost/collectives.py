"""Latency-bandwidth cost of collectives, by algorithm and by where the group lies on the machine.

`size` is the number of devices of the group, `message_bytes` the full array (NCCL convention), bandwidth is bus
bandwidth: what each member sends on the slowest link of the ring. Formulas: Thakur, Rabenseifner and Gropp,
"Optimization of Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, sections 3 and 4.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.curves import collectives as measured
from towtank.simulator.cost.links import Links


def bus_factor(collective: str, size: int) -> float:
    """Bytes that each member sends over the slowest link, per byte of the full array (nccl-tests, PERFORMANCE.md)."""
    if collective in ("send", "broadcast"):
        return 1.0
    return measured.bus_factor(collective.replace("-", "_"), size)


def ring(collective: str, message_bytes: float, size: int, links: Links) -> float:
    """Seconds of a ring: size - 1 steps (twice that for all-reduce), most of them inside nodes."""
    rounds = 2 if collective == "all-reduce" else 1
    steps_between = links.nodes if links.nodes > 1 else 0
    steps_inside = size - 1 if links.nodes == 1 else size - links.nodes
    latency = rounds * (steps_between * links.latency_between_s + steps_inside * links.latency_inside_s)
    return latency + bus_factor(collective, size) * message_bytes / links.ring_bandwidth_bytes_per_s


def tree(message_bytes: float, links: Links) -> float:
    """Seconds of a double binary tree all-reduce over nodes, with chains inside them (NCCL 2.4).

    Each half of the data goes up and down one tree; every link carries the array once in each direction, so the
    bandwidth term is 2 S / B as n grows, with a logarithmic number of steps.
    """
    depth = math.ceil(math.log2(links.nodes)) if links.nodes > 1 else 0
    inside = links.local - 1
    latency = 2 * (depth * links.latency_between_s + inside * links.latency_inside_s)
    return latency + 2 * message_bytes / links.ring_bandwidth_bytes_per_s


def recursive(collective: str, message_bytes: float, size: int, links: Links) -> float:
    """Seconds of recursive halving and doubling: log2(size) steps that together move the ring's bytes.

    The far steps carry the most bytes of an all-gather and cross nodes at the rate of one device's share of the
    network, so the bandwidth is that share where the group leaves the node.
    """
    rounds = 2 if collective == "all-reduce" else 1
    between = math.ceil(math.log2(links.nodes)) if links.nodes > 1 else 0
    inside = math.ceil(math.log2(links.local)) if links.local > 1 else 0
    latency = rounds * (between * links.latency_between_s + inside * links.latency_inside_s)
    return latency + bus_factor(collective, size) * message_bytes / links.pairwise_bandwidth_bytes_per_s


def hierarchical(collective: str, message_bytes: float, links: Links) -> float:
    """Seconds of a two-level collective: inside the node, then between nodes on each device's part.

    All-reduce is a reduce-scatter inside, a recursive all-reduce of 1/local of the array between nodes, and an
    all-gather inside; all-gather and reduce-scatter do one of the two outer phases.
    """
    rounds = 2 if collective == "all-reduce" else 1
    part = message_bytes / links.local
    inside_bytes = bus_factor("all-gather", links.local) * message_bytes
    inside = (links.local - 1) * links.latency_inside_s + inside_bytes / links.inside_bandwidth_bytes_per_s
    steps = math.ceil(math.log2(links.nodes))
    moved = bus_factor("all-gather", links.nodes) * part
    between = steps * links.latency_between_s + moved / links.device_share_bytes_per_s
    return rounds * (inside + between)


PEER_START_S = 0.4e-6
"""Start-up that each further peer of an all-to-all adds: from 2 to 8 devices 4 KB take 0.8 us more a peer on A100,
0.2 on H100, 0.4 on B200 and GB200 (ai-dynamo/aiconfigurator 095f58a51, NCCL inside a node; median)."""


def all_to_all(message_bytes: float, size: int, links: Links) -> float:
    """Seconds of a pairwise exchange: each member sends 1/size of its array to each other one.

    The messages of all peers are in flight together, so the latency of a link counts once.
    """
    start_s = (size - 2) * PEER_START_S
    inside = message_bytes * (links.local - 1) / size / links.inside_bandwidth_bytes_per_s
    if links.nodes == 1:
        return links.latency_inside_s + start_s + inside
    between = message_bytes * (size - links.local) / size / links.device_share_bytes_per_s
    return links.latency_between_s + start_s + max(inside, between)


def distinct(targets: int, copies: int) -> float:
    """Targets that at least one of `copies` goes to, each drawn evenly and by itself: n (1 - (1 - 1/n)^k)."""
    return targets * (1.0 - (1.0 - 1.0 / targets) ** copies)


def multicast(message_bytes: float, fan_out: int, size: int, links: Links) -> float:
    """Seconds of an all-to-all that carries a token to each node and device once (DeepEP, HybridEP).

    `message_bytes` counts all `fan_out` copies of a token. Through the network a token goes to each other node that
    holds one of its experts, and on to the devices there over the links of the node; both run side by side.
    """
    tokens = message_bytes / fan_out
    start_s = (size - 2) * PEER_START_S
    inside = tokens * distinct(size, fan_out) * (links.local - 1) / links.local
    inside /= links.inside_bandwidth_bytes_per_s
    if links.nodes == 1:
        return links.latency_inside_s + start_s + inside
    between = tokens * distinct(links.nodes, fan_out) * (links.nodes - 1) / links.nodes
    between /= links.device_share_bytes_per_s
    return links.latency_between_s + start_s + max(inside, between)


def send(message_bytes: float, links: Links) -> float:
    """Seconds of a transfer to the neighbour, all devices of the node sending at once."""
    if links.nodes == 1:
        return links.latency_inside_s + message_bytes / links.inside_bandwidth_bytes_per_s
    return links.latency_between_s + message_bytes / links.device_share_bytes_per_s


def broadcast(message_bytes: float, size: int, links: Links) -> float:
    """Seconds of a pipelined ring broadcast."""
    inside = size - links.nodes
    latency = (links.nodes - 1) * links.latency_between_s + inside * links.latency_inside_s
    return latency + message_bytes / links.ring_bandwidth_bytes_per_s


def collective_time(
    collective: str, message_bytes: float, size: int, links: Links, algorithms: tuple[str, ...]
) -> float:
    """Seconds of a collective by the fastest of the algorithms that the library has, as its own tuner chooses.

    Zero for a group of one or an empty message.
    """
    if size == 1 or message_bytes <= 0:
        return 0.0
    return float(min(time(message_bytes) for time in _candidates(collective, size, links, algorithms)))


def collective_times(
    collective: str, message_bytes: NDArray[np.float64], size: int, links: Links, algorithms: tuple[str, ...]
) -> NDArray[np.float64]:
    """`collective_time` of messages of more than 0 bytes, shape [messages]; of all but all-to-all."""
    times = [time(message_bytes) for time in _candidates(collective, size, links, algorithms)]
    result: NDArray[np.float64] = np.minimum.reduce(times)
    return result


def latency_of(
    collective: str, message_bytes: float, size: int, links: Links, algorithms: tuple[str, ...]
) -> float:
    """Seconds of `collective_time` in which no bytes move: what its algorithm takes for an empty message."""
    if size == 1 or message_bytes <= 0:
        return 0.0
    fastest = min(_candidates(collective, size, links, algorithms), key=lambda time: time(message_bytes))
    return float(fastest(0.0))


def _candidates(
    collective: str, size: int, links: Links, algorithms: tuple[str, ...]
) -> list[Callable[[Any], Any]]:
    """Seconds by bytes (a number, or an array of them) of each algorithm that the library may take."""
    if collective == "send":
        return [lambda num_bytes: send(num_bytes, links)]
    if collective == "all-to-all":
        return [lambda num_bytes: all_to_all(num_bytes, size, links)]
    if collective == "broadcast":
        return [lambda num_bytes: broadcast(num_bytes, size, links)]
    times = [lambda num_bytes: ring(collective, num_bytes, size, links)]
    if "tree" in algorithms and collective == "all-reduce" and links.nodes > 1:
        times.append(lambda num_bytes: tree(num_bytes, links))
    if "recursive" in algorithms:
        times.append(lambda num_bytes: recursive(collective, num_bytes, size, links))
    if "hierarchical" in algorithms and links.nodes > 1 and links.local > 1:
        times.append(lambda num_bytes: hierarchical(collective, num_bytes, links))
    return times
