"""What lies around a job: where its nodes are on the machine, and what the traffic of other jobs leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.records import Machine
from towtank.simulator.errors import PlanError
from towtank.simulator.network.crossing import known_taper
from towtank.simulator.network.placement import Placed, PlacementKind, place_nodes
from towtank.simulator.network.routes import IntArray
from towtank.simulator.network.variability import Variability, variability_text, variability_to_mapping

LinkKind = Literal["global", "local", "interface"]
"""Links between groups of the network, links inside of a group, and the interfaces of the job's own nodes."""
LINK_KINDS: tuple[LinkKind, ...] = get_args(LinkKind)

_TIERS: Mapping[LinkKind, tuple[str, ...]] = {
    "global": ("global", "unit up", "unit down"),
    "local": ("local", "leaf up", "leaf down"),
    "interface": ("injection", "ejection", "up", "down"),
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the nodes of a job lie, and the share of each kind of link that other jobs take."""

    placed: Placed = field(default_factory=Placed)
    background: Mapping[LinkKind, float] = field(default_factory=dict)
    """Share in [0, 1) of the capacity, by kind of link; 0 where a kind is missing."""
    variability: Variability | None = None
    """How devices and interfaces differ; None: as the machine's profile says."""
    slowest_link: float = 1.0
    """Bandwidth of the slowest interface of the job over that of a sound one, in (0, 1]; `predict` fills it in."""

    def __hash__(self) -> int:
        """Hash of placement, shares and variability."""
        shares = tuple(sorted(self.background.items()))
        return hash((self.placed, shares, self.variability, self.slowest_link))

    @property
    def plain(self) -> bool:
        """Contiguous nodes and no other job: what predictions stand on unless somebody asks."""
        return self.placed.kind == "contiguous" and not any(self.background.values())

    @property
    def between_groups(self) -> bool:
        """Whether anything but the default concerns links between groups of the network."""
        return self.placed.kind != "contiguous" or self.busy("global") > 0

    def busy(self, kind: LinkKind) -> float:
        """Share of the capacity of links of a kind that other jobs take."""
        return self.background.get(kind, 0.0)

    def lost(self, kind: LinkKind) -> float:
        """Share of the capacity that other jobs take or that the slowest interface lacks."""
        kept = self.slowest_link if kind == "interface" else 1.0
        return 1 - (1 - self.busy(kind)) * kept

    def busy_tiers(self, tiers: Sequence[str]) -> dict[str, float]:
        """The shares by the tiers that a topology has."""
        return {
            tier: self.lost(kind)
            for kind in LINK_KINDS
            for tier in _TIERS[kind]
            if self.lost(kind) > 0 and tier in tiers
        }

    def nodes(self, machine: Machine, num_nodes: int) -> IntArray:
        """Node of the machine for each of the job's `num_nodes`.

        Raises:
            ValueError: the job does not fit.
        """
        placed = self.placed
        return place_nodes(
            placed.kind, num_nodes, machine.num_nodes or num_nodes, fill=placed.fill, seed=placed.seed
        )


def groups_of(machine: Machine, nodes: IntArray) -> int:
    """Number of groups of the network that nodes lie in; 1 where groups are unknown."""
    group_nodes = machine.network.group_nodes
    return 1 if group_nodes is None else len(np.unique(nodes // group_nodes))


def share_faults(background: Mapping[Any, float]) -> list[str]:
    """What is wrong with shares of links by kind."""
    found = []
    for kind, share in background.items():
        if kind not in LINK_KINDS:
            known = ", ".join(LINK_KINDS)
            found.append(
                f"background: {kind!r} is no kind of link{did_you_mean(kind, LINK_KINDS)} (known: {known})"
            )
        elif not 0 <= share < 1:
            found.append(f"background {kind} = {share:g} must lie in [0, 1): the share that other jobs take")
    return found


def check_surroundings(around: Surroundings, machine: Machine, num_nodes: int, *, flows: bool) -> None:
    """Raise if `around` cannot be counted for a job of `num_nodes` nodes; `flows`: by the engine of flows.

    Raises:
        PlanError: wrong values, or a job that does not fit; all faults at once.
        UnknownFigure: nobody has published the links that it concerns.
    """
    faults = [*_placement_faults(around.placed, machine, num_nodes), *share_faults(around.background)]
    if around.variability is not None:
        faults += [f"variability: {fault}" for fault in around.variability.faults()]
    if not faults and around.busy("local") and not flows:
        faults.append(
            f"background local = {around.busy('local'):g}: only flows follow the links inside of a group; take "
            f"--engine flows, or leave it out"
        )
    if faults:
        raise PlanError(faults, "surroundings")
    if num_nodes > 1 and (around.between_groups or around.busy("local")):
        _check_known(around, machine, num_nodes, flows)


def _placement_faults(placed: Placed, machine: Machine, num_nodes: int) -> list[str]:
    if placed.kind not in get_args(PlacementKind):
        kinds = get_args(PlacementKind)
        return [
            f"placement {placed.kind!r} is unknown{did_you_mean(placed.kind, kinds)} (known: {', '.join(kinds)})"
        ]
    found = []
    if not 0 <= placed.fill < 1:
        found.append(f"placement: fill = {placed.fill:g} must lie in [0, 1): what others hold of the machine")
    if placed.seed < 0:
        found.append(f"placement: seed = {placed.seed} must be 0 or more")
    if placed.kind == "contiguous" or found:
        return found
    if machine.num_nodes is None:
        return [
            f"placement {placed.kind}: {machine.name} has any number of nodes; say how many, like "
            f"{machine.name}:nodes={4 * num_nodes}"
        ]
    try:
        Surroundings(placed).nodes(machine, num_nodes)
    except ValueError as error:
        return [f"placement {placed.kind}: {error}; take a lower fill, a smaller job or a larger machine"]
    return []


def _check_known(around: Surroundings, machine: Machine, num_nodes: int, flows: bool) -> None:
    asked = [f"a placement that is {around.placed.kind}"] if around.placed.kind != "contiguous" else []
    asked += [f"background traffic on {kind} links" for kind in LINK_KINDS[:2] if around.busy(kind)]
    purpose = " and ".join(asked)
    check_groups(machine, purpose)
    network = machine.network
    if groups_of(machine, around.nodes(machine, num_nodes)) == 1:
        return
    if network.group_crossing is not None and not around.busy("global") and not flows:
        return
    if network.group_links is None:
        known_taper(machine, needed_for=purpose)


def check_groups(machine: Machine, purpose: str) -> None:
    """Raise UnknownFigure if the profile does not tell the groups of the network, which `purpose` needs."""
    network = machine.network
    if network.topology in ("torus", "unknown") or network.group_nodes is None:
        lacking = (
            "network.group_nodes" if network.topology not in ("torus", "unknown") else "network.topology"
        )
        said = f"{network.topology}, which nobody routes" if network.topology == "torus" else "unknown"
        raise UnknownFigure(
            f"{machine.name}: {lacking} is {said}, and {purpose} needs the groups of the network; leave it out, or "
            f"write the figures with their source into a private profile (--profiles DIR)"
        )


_OF_LINKS: Mapping[LinkKind, str] = {
    "global": "of the links between groups of the network",
    "local": "of the links inside of each group",
    "interface": "of the interfaces of its nodes",
}


def surroundings_text(around: Surroundings, machine: Machine, num_nodes: int) -> dict[str, str]:
    """What is not as usual, by name: `placement`, `background`; empty for plain surroundings."""
    found = {}
    placed = around.placed
    if placed.kind != "contiguous":
        groups = groups_of(machine, around.nodes(machine, num_nodes))
        drawn = f"scattered where other jobs hold {100 * placed.fill:g} % of the machine"
        how = drawn if placed.kind == "scattered" else "drawn at random"
        found["placement"] = (
            f"{num_nodes:,} of {machine.num_nodes:,} nodes, {how} (seed {placed.seed}), in {groups:,} "
            f"{'group' if groups == 1 else 'groups'} of the network"
        )
    if taken := background_text(around):
        found["background"] = taken
    if around.variability is not None and (supposed := variability_text(around.variability)):
        found["variability"] = f"supposed: {supposed}"
    return found


def background_text(around: Surroundings) -> str:
    """What other jobs take of the links; empty for nothing."""
    taken = [f"{100 * around.busy(kind):g} % {_OF_LINKS[kind]}" for kind in LINK_KINDS if around.busy(kind)]
    return f"other jobs take {', '.join(taken)}" if taken else ""


def surroundings_to_mapping(around: Surroundings, machine: Machine, num_nodes: int) -> dict[str, Any]:
    """The same as plain data, with the number of groups of the network that the job lies in (None: unknown)."""
    nodes = around.nodes(machine, num_nodes)
    known = machine.network.group_nodes is not None
    placed = around.placed
    return {
        "placement": placed.kind,
        "fill": placed.fill if placed.kind == "scattered" else None,
        "seed": None if placed.kind == "contiguous" else placed.seed,
        "groups": groups_of(machine, nodes) if known else None,
        "background": {kind: around.busy(kind) for kind in LINK_KINDS},
        "variability": None if around.variability is None else variability_to_mapping(around.variability),
    }
