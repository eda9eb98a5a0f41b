"""Inheritance of profile files: follow `from`, check each file, merge, and see that nothing is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from towtank.hardware_profiles import files
from towtank.hardware_profiles.errors import InvalidProfile, ProfileError
from towtank.hardware_profiles.fields import (
    OPTIONAL,
    Field,
    Figure,
    Figures,
    Kind,
    Section,
    fields_of,
)
from towtank.hardware_profiles.files import Layers
from towtank.hardware_profiles.parse import UNKNOWN, fail, parse_file
from towtank.hardware_profiles.records import Source
from towtank.hardware_profiles.values import Quantity, Value, Values


@dataclass(frozen=True, slots=True)
class Profile:
    """A file with everything that it inherits."""

    name: str
    path: Path
    values: Mapping[str, Value]
    sources: Mapping[str, Source]


def resolve(kind: Kind, name: str, search: Layers) -> Profile:
    """The complete profile `name`, which is a file name without its ending.

    Raises `UnknownProfile` and `InvalidProfile`, and `ProfileError` for profiles that come from each other.
    """
    profile = _resolve(kind, name, search, search, ())
    fields = fields_of(kind, profile.values.get("joins"))
    fail(profile.path, [] if kind == "networks" else _missing(profile.values, fields, ""))
    return profile


def _resolve(kind: Kind, name: str, start: Layers, search: Layers, trail: tuple[Path, ...]) -> Profile:
    """`start`: the layers in which to look for this one name; `search`: those for every other name."""
    path, below = files.find(kind, name, start)
    if path in trail:
        circle = " -> ".join(step.stem for step in (*trail[trail.index(path) :], path))
        raise ProfileError(f"{path}: profiles come from each other: {circle}; take out one `from`")
    document = files.read(path)
    base = _base(kind, name, document, path, below, search, (*trail, path))
    joins = document.get("joins", base.values.get("joins") if base else None)
    faults: list[str] = []

    def section_base(network: str, joined: str) -> Mapping[str, Value]:
        return _section_base(network, joined, search, faults)

    parsed, found = parse_file(
        path, document, fields_of(kind, joins), base.sources if base else {}, section_base
    )
    fail(path, found + faults + ([] if base else _without_base(kind, parsed.values, joins)))
    inherited = {key: value for key, value in base.values.items() if key != "description"} if base else {}
    return Profile(name, path, merged(inherited, parsed.values, fields_of(kind, joins)), parsed.sources)


def _base(
    kind: Kind,
    name: str,
    document: Mapping[str, Any],
    path: Path,
    below: Layers,
    search: Layers,
    trail: tuple[Path, ...],
) -> Profile | None:
    """The profile that this one is `from`. Its own name means the file of that name in a layer below."""
    wanted = document.get("from")
    if not isinstance(wanted, str):
        return None
    wanted = wanted.strip().lower()
    if wanted != name:
        return _resolve(kind, files.canonical(kind, wanted, search), search, search, trail)
    if not any((folder / kind / f"{name}.yaml").is_file() for folder in below):
        raise ProfileError(f"{path}: profiles come from each other: {name} -> {name}; take out the `from`")
    return _resolve(kind, name, below, search, trail)


def _section_base(network: str, joins: str, search: Layers, faults: list[str]) -> Mapping[str, Value]:
    """Values of a file of networks/ for a section that joins devices or nodes."""
    profile = _resolve("networks", network.strip().lower(), search, search, ())
    found = profile.values.get("joins")
    if found != joins:
        faults.append(f"from: {network} joins {found}, but this section describes what joins {joins}")
    return {key: value for key, value in profile.values.items() if key not in ("joins", "description")}


def _without_base(kind: Kind, values: Values, joins: object) -> list[str]:
    """Faults of a first file of networks/, which need not fill its section."""
    if kind == "networks" and joins is None:
        return ["joins: missing; write devices for links inside a node, nodes for a network between nodes"]
    return []


def merged(base: Mapping[str, Value], own: Mapping[str, Value], fields: Mapping[str, Field]) -> Values:
    """`own` over `base`; sections and figures by key are merged key by key."""
    result: Values = {**base, **own}
    for key, field in fields.items():
        below, above = base.get(key), own.get(key)
        if not isinstance(field, Section | Figures) or not isinstance(above, Mapping):
            continue
        if UNKNOWN in above:
            result[key] = {}
        elif isinstance(below, Mapping):
            result[key] = {**below, **above}
    return result


def _missing(values: Mapping[str, Value], fields: Mapping[str, Field], place: str) -> list[str]:
    """A fault for each field that neither the file nor its bases state."""
    faults: list[str] = []
    for key, field in fields.items():
        value = values.get(key)
        if isinstance(field, Section):
            faults += _missing(value if isinstance(value, Mapping) else {}, field.fields, f"{key}.")
        elif value is None and key not in OPTIONAL:
            how = "write it with its source, or unknown" if isinstance(field, Figure) else "write it"
            faults.append(f"{place}{key}: missing; {how}")
    return faults


def check_consistency(profile: Profile) -> None:
    """Raise `InvalidProfile` where two figures of a machine contradict each other."""
    node = profile.values["node"]
    assert isinstance(node, Mapping)
    faults: list[str] = []
    low, high, whole = (
        _number(node, key) for key in ("pair_bandwidth_min", "pair_bandwidth_max", "device_bandwidth")
    )
    if low is not None and high is not None and low > high:
        faults.append(f"node: pair_bandwidth_min {low:g} B/s must not exceed pair_bandwidth_max {high:g} B/s")
    if high is not None and whole is not None and high > whole:
        faults.append(f"node: pair_bandwidth_max {high:g} B/s must not exceed device_bandwidth {whole:g} B/s")
    if faults:
        raise InvalidProfile(profile.path, faults)


def _number(values: Mapping[str, Value], key: str) -> float | None:
    """Value of a figure; None where it is unknown."""
    value = values.get(key)
    return value.value if isinstance(value, Quantity) else None
