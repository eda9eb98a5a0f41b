"""The cost model: seconds of any operation of a plan on a machine under a stack."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.calibrated.records import collective_seconds
from towtank.hardware_profiles.curves import load_curves
from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.records import Machine, chosen
from towtank.simulator.cost.calibrated import CalibratedCosts, calibrated_costs, load_of, loads_of
from towtank.simulator.cost.collectives import (
    collective_time,
    collective_times,
    distinct,
    latency_of,
    multicast,
)
from towtank.simulator.cost.compute import (
    ComputeRates,
    attention_time,
    elementwise_limits,
    elementwise_time,
    matmul_time,
)
from towtank.simulator.cost.experts import grouped_time
from towtank.simulator.cost.links import Links, links_of, tensor_links
from towtank.simulator.groups import Placement, dimensions, place
from towtank.simulator.network.crossing import crossing_factor
from towtank.simulator.network.matching import library_of
from towtank.simulator.network.surroundings import Surroundings
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Message, Work
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.records import Stack
from towtank.simulator.waiting import slowest


@lru_cache(maxsize=64)
def compute_costs(machine: Machine, stack: Stack, profile_dirs: tuple[Path, ...]) -> "ComputeCosts":
    """Costs of compute on the machine's devices; shared by all plans, so a search finds its shapes again."""
    curves = load_curves(machine.device.measured_as, profile_dirs)
    return ComputeCosts(ComputeRates.of(machine.device, curves, stack))


def _costs(
    machine: Machine, plan: Plan, stack: Stack, profile_dirs: tuple[Path, ...], any_load: bool
) -> "ComputeCosts | CalibratedCosts":
    """Costs of compute: by the machine's calibration where it has one, else by the curves of its device."""
    if machine.calibration is None:
        return compute_costs(machine, stack, profile_dirs)
    processes = min(plan.num_devices, machine.node.devices)
    one = (load_of(plan, machine.node.devices),)
    loads = loads_of(machine.calibration, processes) if any_load else one
    return calibrated_costs(machine.calibration, plan.precision, processes, loads)


class ComputeCosts:
    """Seconds of compute operations, each shape worked out once."""

    def __init__(self, rates: ComputeRates) -> None:
        self.rates = rates
        self._known: dict[Work, float] = {}

    def duration_s(self, work: Work) -> float:
        """Seconds of one compute operation."""
        found = self._known.get(work)
        if found is None:
            found = self._known[work] = self._time(work)
        return found

    def _time(self, work: Work) -> float:
        if isinstance(work, Matmul):
            return matmul_time(work, self.rates) if work.layer is None else grouped_time(work, self.rates)
        if isinstance(work, AttentionCore):
            return attention_time(work, self.rates)
        assert isinstance(work, Elementwise)
        return elementwise_time(work, self.rates)

    def elementwise_s(self, num_bytes: float | NDArray[np.float64], launches: int, kernel: str) -> Any:
        """Seconds of memory-bound kernels that move so many bytes, a number or an array; whatever they do."""
        return np.maximum(*elementwise_limits(num_bytes, launches, self.rates))


@lru_cache(maxsize=64)
def library_algorithms(machine: Machine) -> dict[str, tuple[str, ...]]:
    """Algorithms of the library of the machine's devices by collective; empty where no library is known."""
    try:
        found = library_of(machine).algorithms
    except UnknownFigure:
        return {}
    return {collective: tuple(names) for collective, names in found.items()}


_SENT = ("pipeline", "world")
"""Groups whose messages go from neighbour to neighbour and meet nobody, in flows as here."""


class CostModel:
    """Seconds of the operations of one plan."""

    def __init__(
        self,
        machine: Machine,
        plan: Plan,
        stack: Stack,
        profile_dirs: tuple[Path, ...] = (),
        pace: float | None = None,
        *,
        crossing: bool = True,
        around: Surroundings | None = None,
        any_load: bool = False,
    ) -> None:
        """Costs on `machine`. `pace`: compute of the slowest device over that of an average one; None: expected.

        `crossing`: whether rings share the cables between groups of the network; not where flows see to that.
        `around`: placement of the job and traffic of others; None: nodes in order, and nobody else.
        `any_load`: compute of a calibrated machine takes the least that it takes at any number of processes at work,
        a bound of all plans.
        """
        self.machine = machine
        self.plan = plan
        self.stack = stack
        self.crossing = crossing
        self.around = around or Surroundings()
        self.compute = _costs(machine, plan, stack, profile_dirs, any_load)
        self.slowest = slowest(machine, plan.num_devices, self.around.variability) if pace is None else pace
        """Time of compute on the slowest device over that on an average one."""
        self._placements: dict[str, tuple[Placement, tuple[Links, ...]]] = {}
        self._known: dict[Message, float] = {}
        self._library = library_algorithms(machine)

    def placement(self, group: str) -> Placement:
        """Where a group lies."""
        return self._placed(group)[0]

    def _placed(self, group: str) -> tuple[Placement, tuple[Links, ...]]:
        found = self._placements.get(group)
        if found is None:
            placement = place(self.plan, group, self.machine.node.devices)
            efficiency = self.stack.fitted.network_efficiency * (1 - self.around.lost("interface"))
            leaves, devices = self._leaves_group(group, placement), self.plan.num_devices
            links = (
                links_of(self.machine, placement, efficiency, leaves, devices) if placement.size > 1 else ()
            )
            if group in ("tensor_x", "tensor_y", "tensor_xy"):
                links = tensor_links(self.machine, links)
            found = self._placements[group] = (placement, self._shared(group, placement, links))
        return found

    def _family(self, group: str) -> tuple[tuple[int, int], ...]:
        return tuple(each for each in dimensions(self.plan, group) if each[0] > 1)

    def _leaves_group(self, group: str, placement: Placement) -> bool | None:
        """Whether rings leave a group of the network; None: as on nodes in order, and for pairs of pipeline ends."""
        if self.around.placed.kind == "contiguous" or placement.nodes < 2 or group == "ends":
            return None
        from towtank.simulator.network.routed_crossing import leaves_group

        return leaves_group(self.machine, self.plan.num_devices, self._family(group), self.around)

    def _shared(self, group: str, placement: Placement, links: tuple[Links, ...]) -> tuple[Links, ...]:
        """Links that rings find where all groups of a family cross the same cables between groups of the network."""
        # of pipeline ends there is one pair out of each pipeline: too few to contend
        if not self.crossing or placement.nodes < 2 or group == "ends":
            return links
        return tuple(self._held_back(group, each) for each in links)

    def _held_back(self, group: str, links: Links) -> Links:
        """Links of a family of rings that others, and other jobs, hold back between groups of the network."""
        family, devices = self._family(group), self.plan.num_devices
        ring = links.ring_bandwidth_bytes_per_s
        usual = crossing_factor(self.machine, devices, family, ring)
        if not self.around.between_groups and not chosen(self.machine, "network.taper"):
            return replace(links, ring_bandwidth_bytes_per_s=ring / usual)
        from towtank.simulator.network.routed_crossing import routed_factor

        factor = routed_factor(self.machine, devices, family, ring, self.around)
        held = replace(links, ring_bandwidth_bytes_per_s=ring / factor)
        if group in _SENT:
            return held
        # exchanges that are no rings lose what their rings lose beyond the usual, as they do where they are flows
        beyond = max(1.0, factor / usual)
        return replace(
            held,
            pairwise_bandwidth_bytes_per_s=links.pairwise_bandwidth_bytes_per_s / beyond,
            device_share_bytes_per_s=links.device_share_bytes_per_s / beyond,
        )

    def duration_s(self, work: Work) -> float:
        """Seconds of one operation, alone on its links; of compute on the slowest device.

        Raises:
            UnknownFigure: the machine's profile lacks a figure that it needs.
        """
        if not isinstance(work, Message):
            return self.compute.duration_s(work) * self.slowest
        found = self._known.get(work)
        if found is None:
            found = self._known[work] = self._message_time(work)
        return found

    def messages_s(
        self, collective: str, group: str, num_bytes: NDArray[np.float64], fan_out: int = 0
    ) -> NDArray[np.float64]:
        """`duration_s` of messages of one collective over one group, shape [messages]."""
        placement, links = self._placed(group)
        if not links:
            return np.zeros(len(num_bytes))
        if fan_out or collective == "all-to-all" or self._is_measured(collective, placement):
            each, place_of = np.unique(num_bytes, return_inverse=True)
            alone = [self.duration_s(Message(collective, group, float(size), fan_out)) for size in each]
            return np.array(alone)[place_of]
        algorithms = self._algorithms(collective)
        message = Message(collective, group, 1.0)
        host = self._meeting_time(message, placement) + self._listing_time(message, placement)
        times = [
            collective_times(collective, num_bytes, placement.size, protocol, algorithms)
            for protocol in links
        ]
        seconds: NDArray[np.float64] = host + np.minimum.reduce(times)
        return seconds

    def moving_s(self, message: Message) -> float:
        """Seconds of a message's duration in which bytes cross links between nodes; 0 where it stays in one."""
        placement, links = self._placed(message.group)
        if placement.nodes < 2 or message.bytes <= 0:
            return 0.0
        size = placement.size
        if message.fan_out:
            times = [multicast(message.bytes, message.fan_out, size, protocol) for protocol in links]
            fastest = links[times.index(min(times))]
            return min(times) - multicast(0.0, message.fan_out, size, fastest)
        call = (message.collective, message.bytes, size)
        algorithms = self._algorithms(message.collective)
        times = [collective_time(*call, protocol, algorithms) for protocol in links]
        fastest = links[times.index(min(times))]
        return min(times) - latency_of(*call, fastest, algorithms)

    def ring_rate_bytes_per_s(self, group: str) -> float:
        """What rings of a group that leaves its node get, siblings beside them; infinite for a group of one."""
        links = self._placed(group)[1]
        return links[0].ring_bandwidth_bytes_per_s if links else float("inf")

    def _algorithms(self, collective: str) -> tuple[str, ...]:
        """Algorithms of the library of the machine's devices; those of the stack where no library is known."""
        stack = self.stack.communication.algorithms
        return self._library.get(collective.replace("-", "_"), stack)

    def _message_time(self, message: Message) -> float:
        placement, links = self._placed(message.group)
        if not links:
            return 0.0
        if message.fan_out and placement.nodes > 1:
            return min(
                multicast(message.bytes, message.fan_out, placement.size, protocol) for protocol in links
            )
        if message.fan_out:
            sent = distinct(placement.size, message.fan_out) / message.fan_out
            message = Message(message.collective, message.group, message.bytes * sent)
        host = self._meeting_time(message, placement) + self._listing_time(message, placement)
        measured = self._measured_time(message, placement)
        if measured is not None:
            return host + measured
        algorithms = self._algorithms(message.collective)
        return host + min(
            collective_time(message.collective, message.bytes, placement.size, protocol, algorithms)
            for protocol in links
        )

    def _meeting_time(self, message: Message, placement: Placement) -> float:
        """Seconds that the members of a tensor group wait for the last of them before a collective starts.

        Each of them runs its own host program between two collectives, and every layer has several.
        """
        if not message.group.startswith("tensor"):
            return 0.0
        return self.stack.communication.meeting_time_s * (placement.size - 1)

    def _listing_time(self, message: Message, placement: Placement) -> float:
        """Seconds in which the host makes a view and launches a copy for each member of a group of weight shards."""
        if message.group != "weight_shard" or not self.stack.communication.shards_in_lists:
            return 0.0
        return 2 * self.stack.launch_overhead_s * placement.size

    def _measured_time(self, message: Message, placement: Placement) -> float | None:
        """Time by the node's own measurements, where the group lies in one node with a switch."""
        if isinstance(self.compute, CalibratedCosts):
            return self._calibrated_time(message, placement)
        curves = self.compute.rates.curves
        if not self._is_measured(message.collective, placement) or curves.collectives is None:
            return None
        collective, node = message.collective.replace("-", "_"), self.machine.node
        time = curves.collectives.time_s(collective, placement.size, message.bytes)  # type: ignore[arg-type]
        if node.measured_link_factor == node.measured_latency_factor == 1.0:
            return time
        # a byte takes as good as nothing, so what is left of its time is latency
        start = curves.collectives.time_s(collective, placement.size, 1.0)  # type: ignore[arg-type]
        return start * node.measured_latency_factor + (time - start) / node.measured_link_factor

    def _calibrated_time(self, message: Message, placement: Placement) -> float:
        """Time by the machine's calibration, with all devices of the plan at work.

        Raises:
            UnknownFigure: the calibration holds no such collective.
        """
        calibration = self.machine.calibration
        assert calibration is not None
        size = 2 if message.collective == "send" else placement.size
        busy = max(self.plan.num_devices, size)
        return collective_seconds(calibration, message.collective, size, busy, message.bytes)

    def _is_measured(self, collective: str, placement: Placement) -> bool:
        """Whether a group's collective has measurements of the node itself."""
        if isinstance(self.compute, CalibratedCosts):
            return True
        node, device = self.machine.node, self.machine.device
        own = device.measured_as == device.name and node.fabric == "switch" and placement.nodes == 1
        return (
            own
            and self.compute.rates.curves.collectives is not None
            and collective not in ("send", "broadcast")
        )
