"""Checked values of a profile file, as they are between the YAML and the records."""

from collections.abc import Mapping
from dataclasses import dataclass

from towtank.hardware_profiles.records import Source


@dataclass(frozen=True, slots=True)
class Quantity:
    """An SI value with its source; both None where the file says `unknown`."""

    value: float | None
    source: Source | None


@dataclass(frozen=True, slots=True)
class Span:
    """One group size, or every power of two from it on."""

    first: int
    open: bool


@dataclass(frozen=True, slots=True)
class BandwidthRule:
    """Measured bus bandwidth for spans of (product of inner groups, own size)."""

    inner: Span
    own: Span
    value_bytes_per_s: float
    source: Source


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """A device of a machine with the figures that differ there."""

    name: str
    changes: Mapping[str, "Value"]


Value = str | Quantity | DeviceUse | tuple[BandwidthRule, ...] | Mapping[str, "Value"]
Values = dict[str, Value]
