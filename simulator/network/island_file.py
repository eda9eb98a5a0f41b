"""Reads a description of islands: YAML with islands, between and, if ranks follow no island order, ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from towtank.hardware_profiles import files
from towtank.hardware_profiles.errors import InvalidProfile, ProfileError
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.units import parse_quantity
from towtank.simulator.network.islands import Island, Islands, NodeLinks
from towtank.simulator.network.link_matrix import LARGEST

_TOP: Final = ("islands", "between", "ranks")
_LINKS: Final = ("technology", "bandwidth", "latency")
_ISLAND: Final = ("name", "nodes", *_LINKS)
_LEAST_BYTES_PER_S: Final = 1e3
_MOST_BYTES_PER_S: Final = 1e15
_BETWEEN: Final = (*_LINKS, "total")


def read_islands(path: Path) -> Islands:
    """The islands of `path`.

    An island has name, nodes (a number, or names), technology, bandwidth and latency; between has technology,
    bandwidth and latency of a node towards other islands, and total where an island as a whole has less than its
    nodes. Bandwidth is what one node attains. Latency may be left out where technology is a network of ours
    (infiniband-ndr, roce-ethernet), which then says it. ranks lists all nodes in the order of their ranks; without
    it they follow the islands.

    Raises:
        ProfileError: the file cannot be read.
        InvalidProfile: with every fault.
    """
    reader = _Reader()
    document = files.read(path) if path.is_dir() or not path.is_file() or path.read_bytes().strip() else {}
    found = reader.islands(document)
    if reader.faults or found is None:
        raise InvalidProfile(path, reader.faults)
    return found


class _Reader:
    """Notes faults with their place and goes on."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def islands(self, document: Mapping[Any, Any]) -> Islands | None:
        self._known("", document, _TOP)
        listed = document.get("islands")
        if not isinstance(listed, list) or not listed:
            self.faults.append("islands: a list of one island or more is needed")
            listed = []
        islands = [self._island(f"islands[{number}]", each) for number, each in enumerate(listed)]
        whole = [island for island in islands if island is not None]
        self._no_twins("islands", [island.name for island in whole])
        nodes = [node for island in whole for node in island.nodes]
        self._no_twins("nodes", nodes)
        if len(whole) == len(islands) and islands and not 2 <= len(nodes) <= LARGEST:
            self.faults.append(f"islands: {len(nodes):,} nodes in all; 2 to {LARGEST:,} are taken")
        between, total = self._between(document, len(islands))
        ranks = self._ranks(document.get("ranks"), nodes) if "ranks" in document else tuple(nodes)
        return None if self.faults else Islands(tuple(whole), between, total, ranks)

    def _between(self, document: Mapping[Any, Any], islands: int) -> tuple[NodeLinks | None, float | None]:
        if "between" not in document:
            if islands > 1:
                self.faults.append("between: missing; it says what joins the islands")
            return None, None
        record = self._mapping("between", document["between"], _BETWEEN)
        if record is None:
            return None, None
        total = self._above_zero("between.total", record["total"]) if "total" in record else None
        return self._links("between", record), total

    def _island(self, place: str, entry: object) -> Island | None:
        record = self._mapping(place, entry, _ISLAND)
        if record is None:
            return None
        before = len(self.faults)
        name = self._name(f"{place}.name", record.get("name"))
        nodes = self._nodes(f"{place}.nodes", record.get("nodes"), name)
        links = self._links(place, record)
        return None if len(self.faults) > before or links is None else Island(name, nodes, links)

    def _nodes(self, place: str, value: object, name: str) -> tuple[str, ...]:
        if isinstance(value, list) and value:
            return tuple(self._name(f"{place}[{number}]", each) for number, each in enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST:
            return tuple(f"{name}-{number}" for number in range(value))
        self.faults.append(f"{place} = {value!r} must be a number from 1 to {LARGEST:,} or a list of names")
        return ()

    def _links(self, place: str, record: Mapping[str, Any]) -> NodeLinks | None:
        before = len(self.faults)
        technology = self._name(f"{place}.technology", record.get("technology"))
        bandwidth = self._above_zero(f"{place}.bandwidth", record.get("bandwidth"))
        latency = self._latency(f"{place}.latency", record, technology)
        return None if len(self.faults) > before else NodeLinks(technology, bandwidth, latency)

    def _latency(self, place: str, record: Mapping[str, Any], technology: str) -> float:
        if "latency" in record:
            return self._quantity(place, record["latency"], "seconds")
        ours = files.names("networks", (files.SHIPPED,))
        if technology in ours:
            stated = files.read(files.SHIPPED / "networks" / f"{technology}.yaml").get("latency")
            if isinstance(stated, dict):
                return self._quantity(place, stated.get("value"), "seconds")
        guess = did_you_mean(technology, ours) if technology else ""
        self.faults.append(
            f"{place}: missing; write it like 5 us, or name a network of ours as technology{guess}"
        )
        return 0.0

    def _above_zero(self, place: str, value: object) -> float:
        before = len(self.faults)
        found = self._quantity(place, value, "bytes_per_s")
        if not _LEAST_BYTES_PER_S <= found <= _MOST_BYTES_PER_S and len(self.faults) == before:
            self.faults.append(f"{place} = {value!r} must be above zero (1 kB/s to 1 PB/s)")
        return found

    def _quantity(self, place: str, value: object, dimension: Any) -> float:
        if value is None:
            self.faults.append(f"{place}: missing")
            return 0.0
        try:
            return parse_quantity(value, dimension)
        except ProfileError as error:
            self.faults.append(f"{place}: {error}")
            return 0.0

    def _name(self, place: str, value: object) -> str:
        if isinstance(value, str) and value.strip():
            return value.strip()
        self.faults.append(f"{place}: missing" if value is None else f"{place} = {value!r} must be text")
        return ""

    def _mapping(self, place: str, entry: object, known: Sequence[str]) -> Mapping[str, Any] | None:
        if not isinstance(entry, dict):
            self.faults.append(f"{place}: a mapping of {', '.join(known)} is needed, got {entry!r}")
            return None
        self._known(f"{place}.", entry, known)
        return entry

    def _known(self, place: str, entry: Mapping[Any, Any], known: Sequence[str]) -> None:
        for key in entry:
            if key not in known:
                self.faults.append(
                    f"{place}{key}: unknown key{did_you_mean(str(key), known)} (known: {', '.join(known)})"
                )

    def _no_twins(self, place: str, names: Sequence[str]) -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.faults.append(f"{place}: {name} stands twice")

    def _ranks(self, value: object, nodes: Sequence[str]) -> tuple[str, ...]:
        if not isinstance(value, list):
            self.faults.append("ranks: a list of the names of all nodes is needed")
            return ()
        listed = [str(each) for each in value]
        self._no_twins("ranks", listed)
        unknown, left = sorted({*listed} - {*nodes}), sorted({*nodes} - {*listed})
        if unknown:
            self.faults.append(f"ranks: no island has {', '.join(unknown)}")
        if left:
            self.faults.append(f"ranks: {', '.join(left)} missing")
        return tuple(listed)
