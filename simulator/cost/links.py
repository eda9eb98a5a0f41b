"""Links that a group's collectives run over: bandwidths and latencies for a placement on a machine."""

from dataclasses import dataclass, replace

from towtank.hardware_profiles.records import Machine, known
from towtank.simulator.groups import Placement

MESH_EFFICIENCY = 0.76
"""Bus bandwidth over link bandwidth in a ring of two directly linked devices: 76 of 100 GB/s on Perlmutter
(axonn-ai/Megatron-AxoNN, branch gordon-bell-perlmutter, examples/comm_model.py); used where no table exists."""

SWITCH_EFFICIENCY = 0.75
"""The same through a switch: 222 of 300 GB/s for an 8-GPU all-reduce on A100 (ai-dynamo/aiconfigurator)."""


@dataclass(frozen=True, slots=True)
class Links:
    """Bandwidths in bytes/s per direction, as bus bandwidth, and latencies of one step in seconds."""

    nodes: int
    local: int
    inside_bandwidth_bytes_per_s: float
    """Ring inside a node."""
    ring_bandwidth_bytes_per_s: float
    """One ring through the whole group, sibling rings running beside it."""
    pairwise_bandwidth_bytes_per_s: float
    """Pairwise exchanges, in which each device uses its own share of the network."""
    device_share_bytes_per_s: float
    """What one device can send out of its node while all its devices send."""
    latency_inside_s: float
    latency_between_s: float


def inside_bandwidth(machine: Machine, local: int, preceding: int) -> float:
    """Ring bandwidth in bytes/s among `local` devices of a node at stride `preceding`.

    A measured table of the machine comes first (its rings ran with all siblings active); else the links' figures.

    Raises:
        UnknownFigure: the profile lacks the link bandwidth.
    """
    node = machine.node
    if local == 1:
        return float("inf")
    measured = machine.measured_bus_bandwidth_bytes_per_s.get((preceding, local))
    if measured is not None and preceding * local <= node.devices:
        return measured
    purpose = "the cost of communication inside a node"
    if node.fabric in ("switch", "pcie"):
        total = known(machine, "node.device_bandwidth", node.device_bandwidth_bytes_per_s, needed_for=purpose)
        return SWITCH_EFFICIENCY * total
    if node.fabric == "mesh":
        pair = known(
            machine, "node.pair_bandwidth_max", node.pair_bandwidth_max_bytes_per_s, needed_for=purpose
        )
        # a mesh of n devices holds n - 1 edge-disjoint rings; NCCL opens them all
        return MESH_EFFICIENCY * pair * (local - 1)
    pair = local == 2 and preceding == 1
    if not pair and node.collective_bandwidth_bytes_per_s is not None:
        return node.collective_bandwidth_bytes_per_s
    slowest = node.pair_bandwidth_max_bytes_per_s if pair else node.pair_bandwidth_min_bytes_per_s
    return MESH_EFFICIENCY * known(machine, "node.pair_bandwidth_min", slowest, needed_for=purpose)


def network_bandwidth(machine: Machine, efficiency: float) -> float:
    """Bytes/s that collectives of one node push into the network, all its interfaces together.

    Raises:
        UnknownFigure: the profile lacks the injection bandwidth or its measured efficiency.
    """
    purpose = "the cost of communication between nodes"
    injection = known(machine, "node.injection", machine.node.injection_bytes_per_s, needed_for=purpose)
    return (
        injection
        * efficiency
        * known(machine, "network.efficiency", machine.network.efficiency, needed_for=purpose)
    )


def tensor_links(machine: Machine, links: tuple[Links, ...]) -> tuple[Links, ...]:
    """Links of a tensor-parallel group: no faster than what software leaves such collectives on this machine."""
    limit = machine.node.tensor_bandwidth_bytes_per_s
    if limit is None:
        return links
    return tuple(
        replace(
            link,
            inside_bandwidth_bytes_per_s=min(limit, link.inside_bandwidth_bytes_per_s),
            ring_bandwidth_bytes_per_s=min(limit, link.ring_bandwidth_bytes_per_s),
            pairwise_bandwidth_bytes_per_s=min(limit, link.pairwise_bandwidth_bytes_per_s),
        )
        for link in links
    )


LL128_EFFICIENCY = 120 / 128
"""Payload of NCCL's LL128 protocol: 120 of each 128 bytes (NVIDIA/nccl, src/device/prims_ll128.h)."""


def links_of(
    machine: Machine,
    placement: Placement,
    efficiency: float = 1.0,
    leaves_group: bool | None = None,
    num_devices: int | None = None,
) -> tuple[Links, ...]:
    """Links of a group, once for each protocol of the collective library; a collective takes the faster one.

    The Simple protocol has the full bandwidth, LL128 the lower latency, where the profile knows it. `efficiency`
    is the stack's part of the network rate (fitted). `leaves_group`: whether the ring leaves a group of the network;
    None: as it does on nodes in order. `num_devices` of the job: of its groups the worst one counts; None: the group
    that begins with the job's first device.

    Raises:
        UnknownFigure: the profile lacks a bandwidth or a latency.
    """
    node, network = machine.node, machine.network
    purpose = "the cost of collectives"
    inside = known(machine, "node.latency", node.latency_s, needed_for=purpose)
    between = 0.0
    if placement.nodes > 1:
        between = known(machine, "network.latency", network.latency_s, needed_for=purpose)
    left = _group_crossing(machine, placement, leaves_group, num_devices)
    simple = _links(machine, placement, efficiency, 1.0, inside, between, left)
    if node.latency_ll128_s is None or (placement.nodes > 1 and network.latency_ll128_s is None):
        return (simple,)
    between = network.latency_ll128_s or 0.0
    ll128 = _links(machine, placement, efficiency, LL128_EFFICIENCY, node.latency_ll128_s, between, left)
    return simple, ll128


def _group_crossing(
    machine: Machine, placement: Placement, leaves_group: bool | None, num_devices: int | None
) -> float:
    """What is left of the network's rate where a ring leaves a group (a dragonfly's, or a scalable unit).

    Members of one family all meet at the end of a step, so the ring that lies worst counts: with r nodes from first
    to last member, rings begin at every r-th node, and one straddles a boundary that no multiple of r meets.
    """
    network = machine.network
    if network.group_nodes is None or network.group_crossing is None:
        return 1.0
    if leaves_group is None:
        reach = placement.reach(machine.node.devices)
        nodes = reach if num_devices is None else -(-num_devices // machine.node.devices)
        boundaries = range(network.group_nodes, nodes, network.group_nodes)
        leaves_group = any(boundary % reach for boundary in boundaries)
    return network.group_crossing if leaves_group else 1.0


def _links(
    machine: Machine,
    placement: Placement,
    efficiency: float,
    payload: float,
    inside_s: float,
    between_s: float,
    group_crossing: float,
) -> Links:
    inside = payload * inside_bandwidth(machine, placement.local, placement.preceding)
    staged = machine.node.staged_bandwidth_bytes_per_s
    if staged is not None and placement.size % 2:
        inside = min(inside, staged)
    if placement.nodes == 1:
        return Links(1, placement.local, inside, inside, inside, inside, inside_s, 0.0)
    network = payload * network_bandwidth(machine, efficiency) * group_crossing
    ring = min(inside, network / placement.sharers)
    share = network / min(machine.node.devices, placement.sharers * placement.local)
    pairwise = min(inside, share)
    return Links(placement.nodes, placement.local, inside, ring, pairwise, share, inside_s, between_s)
