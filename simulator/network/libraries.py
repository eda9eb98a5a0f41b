"""Reads libraries.yaml: which algorithms a collective library has, and what its protocols cost on which links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml

Algorithm = Literal["ring", "tree", "nvls", "recursive", "hierarchical", "phased"]
Collective = Literal["all_reduce", "all_gather", "reduce_scatter"]
Protocol = Literal["ll", "ll128", "simple"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("ll", "ll128", "simple")


@dataclass(frozen=True, slots=True)
class Nvls:
    """Reduction inside the switch (NVLink SHARP)."""

    start_s: float
    reach: float
    least_devices: int


@dataclass(frozen=True, slots=True)
class FabricCost:
    """Costs inside a node; the fields are explained in libraries.yaml."""

    start_s: float
    step_s: Mapping[Protocol, float]
    payload: Mapping[Protocol, float]
    fill_s: float
    reach: Mapping[Collective, float]
    nvls: Nvls | None


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """Costs between nodes."""

    step_s: Mapping[Protocol, float]
    reach: float
    fill_s: float


@dataclass(frozen=True, slots=True)
class Library:
    """A collective library."""

    name: str
    algorithms: Mapping[Collective, tuple[Algorithm, ...]]


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    path = Path(__file__).with_name("libraries.yaml")
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def _entry(section: str, name: str) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = _document()[section]
    if name not in entries:
        raise ValueError(f"{section}: {name!r} is unknown; choose one of {sorted(entries)}")
    return entries[name]


def library(name: str) -> Library:
    """The library `name`.

    Raises:
        ValueError: an unknown name.
    """
    entry = _entry("libraries", name)
    collectives: tuple[Collective, ...] = ("all_reduce", "all_gather", "reduce_scatter")
    return Library(name, {each: tuple(entry[each]) for each in collectives})


def library_names() -> list[str]:
    """Names of all libraries, sorted."""
    return sorted(_document()["libraries"])


def fabric_cost(name: str) -> FabricCost:
    """Costs of the fabric `name`.

    Raises:
        ValueError: an unknown name.
    """
    entry = _entry("fabrics", name)
    nvls = entry.get("nvls")
    return FabricCost(
        start_s=entry["start_s"],
        step_s=entry["step_s"],
        payload=entry["payload"],
        fill_s=entry["fill_s"],
        reach=entry["reach"],
        nvls=None if nvls is None else Nvls(**nvls),
    )


def network_cost(name: str) -> NetworkCost:
    """Costs of the network `name`.

    Raises:
        ValueError: an unknown name.
    """
    entry = _entry("networks", name)
    return NetworkCost(entry["step_s"], entry["reach"], entry["fill_s"])
