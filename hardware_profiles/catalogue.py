"""What `towtank machines` prints: rows for tables, and every figure of one profile with its source."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from towtank.hardware_profiles import files
from towtank.hardware_profiles.fields import DEVICE, MACHINE, NETWORK, NODE, Field, Figure, Figures, Plain
from towtank.hardware_profiles.load import list_devices, list_machines, load_device, load_machine
from towtank.hardware_profiles.records import Device, Machine, Provenance, Sourced
from towtank.hardware_profiles.units import Dimension, format_quantity

UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class MachineRow:
    """One line of the table of machines."""

    name: str
    aliases: tuple[str, ...]
    site: str
    device: str
    num_nodes: int | None
    """None: sized by the user."""
    devices_per_node: int
    network: str
    topology: str
    description: str


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One line of the table of devices."""

    name: str
    aliases: tuple[str, ...]
    vendor: str
    unit: str
    peak_bf16: str
    """Dense, with its unit; fp16 is said where the device has no bf16."""
    memory: str
    memory_bandwidth: str
    description: str


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One figure of a profile; provenance and source are None where it is unknown or plain text."""

    field: str
    value: str
    provenance: Provenance | None
    source: str | None


def machine_rows(profile_dirs: Sequence[Path] = ()) -> list[MachineRow]:
    """All machines, sorted by name."""
    other_names = _by_name(files.aliases("machines", files.layers(profile_dirs)))
    return [
        _machine_row(load_machine(name, profile_dirs), other_names.get(name, ()))
        for name in list_machines(profile_dirs)
    ]


def device_rows(profile_dirs: Sequence[Path] = ()) -> list[DeviceRow]:
    """All devices, sorted by name."""
    other_names = _by_name(files.aliases("devices", files.layers(profile_dirs)))
    return [
        _device_row(load_device(name, profile_dirs), other_names.get(name, ()))
        for name in list_devices(profile_dirs)
    ]


def machine_figures(reference: str, profile_dirs: Sequence[Path] = ()) -> list[FigureRow]:
    """Every figure of a machine and of its device, which stand under `device.`, in the order of the files."""
    machine = load_machine(reference, profile_dirs)
    rows = [FigureRow("name", machine.name, None, None), *_rows(machine, machine, MACHINE, "")]
    rows += _rows(machine, machine.node, NODE, "node.")
    rows += _rows(machine, machine.network, NETWORK, "network.")
    rows += _bandwidth_rows(machine)
    rows += [
        FigureRow(f"device.{row.field}", row.value, row.provenance, row.source)
        for row in _device_figures(machine.device)
    ]
    return rows


def device_figures(name: str, profile_dirs: Sequence[Path] = ()) -> list[FigureRow]:
    """Every figure of a device, in the order of the files."""
    return _device_figures(load_device(name, profile_dirs))


def _device_figures(device: Device) -> list[FigureRow]:
    return [FigureRow("name", device.name, None, None), *_rows(device, device, DEVICE, "")]


def _by_name(aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Aliases of each name."""
    table: dict[str, tuple[str, ...]] = {}
    for alias, name in sorted(aliases.items()):
        table[name] = (*table.get(name, ()), alias)
    return table


def _machine_row(machine: Machine, aliases: tuple[str, ...]) -> MachineRow:
    return MachineRow(
        name=machine.name,
        aliases=aliases,
        site=machine.site,
        device=machine.device.name,
        num_nodes=machine.num_nodes,
        devices_per_node=machine.node.devices,
        network=machine.network.technology,
        topology=machine.network.topology,
        description=machine.description,
    )


def _device_row(device: Device, aliases: tuple[str, ...]) -> DeviceRow:
    precision = next((one for one in ("bf16", "fp16", "fp32") if one in device.peak_flop_per_s), None)
    peak = "none" if precision is None else format_quantity(device.peak_flop_per_s[precision], "flop_per_s")
    return DeviceRow(
        name=device.name,
        aliases=aliases,
        vendor=device.vendor,
        unit=device.unit,
        peak_bf16=peak if precision == "bf16" else f"{peak} ({precision})",
        memory=_printed(device.memory_capacity_bytes, "bytes"),
        memory_bandwidth=_printed(device.memory_bandwidth_bytes_per_s, "bytes_per_s"),
        description=device.description,
    )


def _rows(owner: Sourced, record: object, fields: Mapping[str, Field], place: str) -> Iterator[FigureRow]:
    """Figures and texts of one record; `owner` holds the sources, under names that start with `place`."""
    for key, field in fields.items():
        match field:
            case Figure(dimension, attribute):
                yield _row(owner, f"{place}{attribute}", getattr(record, attribute), dimension)
            case Figures(_, dimension, attribute):
                for precision, value in getattr(record, attribute).items():
                    yield _row(owner, f"{place}{attribute}.{precision}", value, dimension)
            case _ if isinstance(text := getattr(record, key, None), str):
                yield FigureRow(f"{place}{key}", text, None, None)


def _row(owner: Sourced, name: str, value: float | None, dimension: Dimension | Plain) -> FigureRow:
    source = owner.sources.get(name)
    if value is None or source is None:
        return FigureRow(name, UNKNOWN, None, None)
    return FigureRow(name, _printed(value, dimension), source.provenance, source.text)


def _printed(value: float | None, dimension: Dimension | Plain) -> str:
    """Value with its unit; counts, fractions and ratios have none."""
    if value is None:
        return UNKNOWN
    if dimension == "count" or dimension == "fraction" or dimension == "ratio":
        return f"{value:g}" if dimension != "count" else f"{value:.0f}"
    return format_quantity(value, dimension)


def _bandwidth_rows(machine: Machine) -> Iterator[FigureRow]:
    """The measured bus bandwidths, one row for each pair of group sizes."""
    source = machine.sources.get("measured_bus_bandwidth_bytes_per_s")
    for (inner, own), value in sorted(machine.measured_bus_bandwidth_bytes_per_s.items()):
        yield FigureRow(
            f"measured_bus_bandwidth_bytes_per_s.{inner}x{own}",
            format_quantity(value, "bytes_per_s"),
            source.provenance if source else None,
            source.text if source else None,
        )
