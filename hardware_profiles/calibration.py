"""Fitted rates of stacks and devices inside training steps; apart from specifications and measurements.

The file is written by `python -m towtank.validation.fit --write` and by nobody else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from towtank.hardware_profiles.errors import InvalidProfile
from towtank.hardware_profiles.files import SHIPPED, read

FILE = SHIPPED / "calibrations" / "training.yaml"
BOUNDS = (0.2, 1.5)
"""Rates that a fit may give, and a file may hold."""
_KEYS = {"rate", "interval_90", "rows", "groups", "sources"}


@dataclass(frozen=True, slots=True)
class FittedRate:
    """Rate inside training steps over the rate of the profile, and the runs that it was fitted to."""

    rate: float
    interval_90: tuple[float, float] | None
    """90 % of the fits to resampled groups of runs lie inside; None: not free (the anchor, or too few runs)."""
    rows: int
    groups: int
    """Groups of source, model and mapping that the rows belong to."""
    sources: tuple[str, ...]
    """Families of sources that the rows come from."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Content of a calibration file."""

    fit: Mapping[str, Any]
    """How it was fitted: rows, groups, free_parameters, resamples, bounds, level."""
    stacks: Mapping[str, FittedRate]
    devices: Mapping[str, FittedRate]


NOT_FITTED = FittedRate(1.0, None, 0, 0, ())


def training_rate(device: str, path: Path = FILE) -> FittedRate:
    """Fitted rate of a device, or `NOT_FITTED`.

    Raises:
        InvalidProfile: the calibration file is wrong.
    """
    return calibration(path).devices.get(device, NOT_FITTED)


@lru_cache(maxsize=8)
def calibration(path: Path = FILE) -> Calibration:
    """Read a calibration file.

    Raises:
        InvalidProfile: the file is wrong; all faults are listed.
    """
    data = read(path)
    faults: list[str] = []
    stacks, devices = (_rates(data.get(kind), kind, faults) for kind in ("stacks", "devices"))
    if not isinstance(data.get("fit"), dict):
        faults.append("fit must say how the rates were fitted")
    if faults:
        raise InvalidProfile(path, faults)
    return Calibration(data["fit"], stacks, devices)


def _rates(entries: object, kind: str, faults: list[str]) -> dict[str, FittedRate]:
    if not isinstance(entries, dict):
        faults.append(f"{kind} must be a mapping of names to fitted rates")
        return {}
    rates: dict[str, FittedRate] = {}
    for name, entry in entries.items():
        where = f"{kind}.{name}"
        if not isinstance(entry, dict) or set(entry) != _KEYS:
            faults.append(f"{where} must have exactly the keys {', '.join(sorted(_KEYS))}")
        elif not isinstance(entry["rate"], float | int) or not BOUNDS[0] <= entry["rate"] <= BOUNDS[1]:
            faults.append(
                f"{where}.rate = {entry['rate']!r}, but it must be a number from {BOUNDS[0]} to {BOUNDS[1]}"
            )
        else:
            rates[str(name)] = _rate(entry)
    return rates


def _rate(entry: Mapping[str, Any]) -> FittedRate:
    interval = entry["interval_90"]
    return FittedRate(
        float(entry["rate"]),
        None if interval is None else (float(interval[0]), float(interval[1])),
        int(entry["rows"]),
        int(entry["groups"]),
        tuple(str(source) for source in entry["sources"]),
    )
