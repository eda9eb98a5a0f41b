"""Load devices and machines by name: the way into this floor.

A reference to a machine is its name with options after colons: "selene", "dgx-h100:nodes=64",
"perlmutter:devices=512", "selene:device=a100-40gb-sxm", "alps:taper=0.5" (bandwidth out of a group of the network
over that of its nodes). Names may be in any case, and a profile may have aliases. Private profiles in `profile_dirs`
or in the folders of the environment variable TOWTANK_PROFILES come before ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from towtank.hardware_profiles import files
from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.fields import DEVICE, MACHINE, NETWORK, NODE, OPTIONAL, Field, Figure, Figures
from towtank.hardware_profiles.files import SHIPPED, Layers
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.records import CHOSEN, Device, Machine, Network, Node, Source
from towtank.hardware_profiles.resolve import check_consistency, merged, resolve
from towtank.hardware_profiles.values import BandwidthRule, DeviceUse, Quantity, Span, Value

_OPTIONS = ("nodes", "devices", "device", "taper")


def load_device(name: str, profile_dirs: Sequence[Path] = ()) -> Device:
    """The device of that name or alias.

    Raises `UnknownProfile` for a name that nobody has and `InvalidProfile` with all faults of a file.
    """
    search = files.layers(profile_dirs)
    canonical = files.canonical("devices", name, search)
    return _shipped_device(canonical) if search == (SHIPPED,) else _device(canonical, search)


def load_machine(reference: str, profile_dirs: Sequence[Path] = ()) -> Machine:
    """The machine that `reference` names, sized and equipped by its options.

    `local` is the machine that this process runs on; names of calibrations (`towtank calibrate --out NAME`) are those
    of the machines that they were made on. A machine sized below its full number of nodes has no `system_power_w`,
    which is a figure of the whole.
    Raises `UnknownProfile`, `InvalidProfile` with all faults of a file, `ProfileError` for a wrong option.
    """
    search = files.layers(profile_dirs)
    if (calibrated := _calibrated(reference, search)) is not None:
        return calibrated
    return _shipped_machine(reference) if search == (SHIPPED,) else _machine(reference, search)


def _calibrated(reference: str, search: Layers) -> Machine | None:
    """The machine of a calibration, unless a profile has that name; None for other references."""
    name = reference.strip().lower()
    if name in files.names("machines", search):
        return None
    from towtank.hardware_profiles.calibrated.local import Shipped, calibrated_machine

    return calibrated_machine(name, Shipped(load_device, load_machine))


def list_devices(profile_dirs: Sequence[Path] = ()) -> list[str]:
    """Names of all devices, sorted."""
    return files.names("devices", files.layers(profile_dirs))


def list_machines(profile_dirs: Sequence[Path] = ()) -> list[str]:
    """Names of all machines, sorted."""
    return files.names("machines", files.layers(profile_dirs))


@lru_cache(maxsize=256)
def _shipped_device(name: str) -> Device:
    """Our own files do not change under a running process, so their records are kept."""
    return _device(name, (SHIPPED,))


@lru_cache(maxsize=256)
def _shipped_machine(reference: str) -> Machine:
    return _machine(reference, (SHIPPED,))


def _device(name: str, search: Layers, changes: Mapping[str, Value] | None = None) -> Device:
    """The device `name`, with the figures that a machine changes."""
    profile = resolve("devices", name, search)
    values = merged(profile.values, changes or {}, DEVICE)
    sources: dict[str, Source] = {}
    figures: dict[str, Any] = {
        field.record: _figures(values.get(key), field.record, sources)
        for key, field in DEVICE.items()
        if isinstance(field, Figures)
    }
    return Device(
        name=profile.name,
        **_texts(values, ("description", "unit", "vendor", "architecture", "measured_as")),
        **figures,
        **_numbers(values, DEVICE, "", sources),
        sources=sources,
    )


def _machine(reference: str, search: Layers) -> Machine:
    name, options = _options(reference)
    profile = resolve("machines", files.canonical("machines", name, search), search)
    check_consistency(profile)
    values = profile.values
    node_values, network_values, use = values["node"], values["network"], values["device"]
    assert isinstance(node_values, Mapping) and isinstance(network_values, Mapping)
    assert isinstance(use, DeviceUse)
    sources: dict[str, Source] = {}
    numbers = _numbers(values, MACHINE, "", sources)
    node = Node(
        **_texts(node_values, ("fabric",)),
        **_numbers(node_values, NODE, "node.", sources),
    )
    network = Network(
        **_texts(network_values, ("technology", "topology")),
        **_numbers(network_values, NETWORK, "network.", sources),
    )
    whole: int | None = numbers["num_nodes"]
    if "taper" in options:
        network = _tapered(profile.name, options["taper"], network, sources)
    size = _size(profile.name, options, node.devices, whole)
    if size.chosen:
        sources["num_nodes"] = Source(f"{CHOSEN} {reference!r}", "specification")
    if size.num_nodes != whole:
        numbers["system_power_w"] = None
        sources.pop("system_power_w", None)
    return Machine(
        name=profile.name,
        **_texts(values, ("description", "site")),
        device=_device_of(use, options, search),
        node=node,
        network=network,
        **{**numbers, "num_nodes": size.num_nodes},
        measured_bus_bandwidth_bytes_per_s=_bus_bandwidth(
            values.get("measured_bus_bandwidth", ()), whole and whole * node.devices, sources
        ),
        sources=sources,
    )


def _device_of(use: DeviceUse, options: Mapping[str, str], search: Layers) -> Device:
    """The device that the machine names, or the one that the user puts in its place."""
    if "device" in options:
        return _device(files.canonical("devices", options["device"], search), search)
    return _device(files.canonical("devices", use.name, search), search, use.changes)


def _options(reference: str) -> tuple[str, dict[str, str]]:
    """Name and options of a reference."""
    name, *parts = reference.strip().lower().split(":")
    options: dict[str, str] = {}
    for part in parts:
        key, equals, value = (text.strip() for text in part.partition("="))
        if key not in _OPTIONS or not equals or not value:
            raise ProfileError(
                f"{reference!r}: {part!r} is no option{did_you_mean(key, _OPTIONS)}; "
                f"write nodes=NUMBER, devices=NUMBER, device=NAME or taper=SHARE after a colon"
            )
        if key in options:
            raise ProfileError(f"{reference!r}: {key} is given twice; keep one of the two")
        options[key] = value
    if {"nodes", "devices"} <= set(options):
        raise ProfileError(f"{reference!r}: nodes and devices both set the size; keep one of the two")
    return name, options


@dataclass(frozen=True, slots=True)
class _Size:
    num_nodes: int | None
    chosen: bool


def _size(name: str, options: Mapping[str, str], node_devices: int, whole: int | None) -> _Size:
    """Number of nodes from nodes= or devices=, else all that the machine has."""
    key = "nodes" if "nodes" in options else "devices"
    if key not in options:
        return _Size(whole, False)
    text = options[key]
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ProfileError(f"{name}: {key}= must be a whole number from 1, got {text!r}")
    number = int(text)
    if key == "devices" and number % node_devices:
        below = number // node_devices * node_devices
        choices = f"{below} or {below + node_devices}" if below else str(node_devices)
        raise ProfileError(
            f"{name}: devices={number} must be a multiple of the {node_devices} devices of a node; "
            f"take {choices}"
        )
    nodes = number if key == "nodes" else number // node_devices
    if whole is not None and nodes > whole:
        raise ProfileError(
            f"{name}: {nodes} nodes are asked for, but the machine has {whole}; take at most {whole}"
        )
    return _Size(nodes, True)


def _tapered(name: str, text: str, network: Network, sources: dict[str, Source]) -> Network:
    """The network with the taper that the user has set, which the cables and losses of the profile give way to."""
    try:
        taper = float(text)
    except ValueError:
        taper = float("nan")
    if not 0 < taper <= 1:
        raise ProfileError(
            f"{name}: taper= is the bandwidth out of a group of nodes over that of its nodes, above 0 and at most 1, "
            f"got {text!r}"
        )
    if network.group_nodes is None:
        raise ProfileError(
            f"{name}: taper={text} concerns groups of the network, but network.group_nodes is unknown; leave it out, "
            f"or write group_nodes into a private profile (--profiles DIR)"
        )
    sources["network.taper"] = Source(f"{CHOSEN}: taper={text}", "specification")
    for lost in ("network.group_links", "network.group_crossing"):
        sources.pop(lost, None)
    return replace(network, taper=taper, group_links=None, group_crossing=None)


def _texts(values: Mapping[str, Value], keys: tuple[str, ...]) -> dict[str, Any]:
    """The text fields of a record."""
    return {key: str(values[key]) for key in keys}


def _numbers(
    values: Mapping[str, Value], fields: Mapping[str, Field], place: str, sources: dict[str, Source]
) -> dict[str, Any]:
    """The figures of a record by its field names; their sources go into `sources`."""
    numbers: dict[str, Any] = {}
    for key, field in fields.items():
        if not isinstance(field, Figure) or (key in OPTIONAL and key not in values):
            continue
        if key in OPTIONAL and key not in values:
            continue
        quantity = values[key]
        assert isinstance(quantity, Quantity)
        numbers[field.record] = quantity.value
        if quantity.source is not None:
            sources[f"{place}{field.record}"] = quantity.source
    return numbers


def _figures(value: Value | None, record: str, sources: dict[str, Source]) -> dict[str, float]:
    """Figures by key; their sources go into `sources` under dotted names."""
    found: dict[str, float] = {}
    for key, quantity in value.items() if isinstance(value, Mapping) else ():
        assert isinstance(quantity, Quantity)
        if quantity.value is not None and quantity.source is not None:
            found[key] = quantity.value
            sources[f"{record}.{key}"] = quantity.source
    return found


def _bus_bandwidth(
    rules: Value, num_devices: int | None, sources: dict[str, Source]
) -> dict[tuple[int, int], float]:
    """Expand rules such as (inner 4, own 4..) over all groups that fit the machine; an earlier rule wins."""
    table: dict[tuple[int, int], float] = {}
    for rule in rules if isinstance(rules, tuple) else ():
        assert isinstance(rule, BandwidthRule)
        largest = num_devices or rule.inner.first * rule.own.first
        for inner in _sizes(rule.inner, largest):
            for own in _sizes(rule.own, largest // inner):
                table.setdefault((inner, own), rule.value_bytes_per_s)
        sources.setdefault("measured_bus_bandwidth_bytes_per_s", rule.source)
    return table


def _sizes(span: Span, largest: int) -> list[int]:
    """Sizes of a span up to `largest`."""
    sizes = [span.first]
    while span.open and sizes[-1] * 2 <= largest:
        sizes.append(sizes[-1] * 2)
    return [size for size in sizes if size <= largest]
