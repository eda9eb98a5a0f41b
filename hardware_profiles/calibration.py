"""Fitted rates of devices inside training steps; apart from specifications and measurements."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from towtank.hardware_profiles.errors import InvalidProfile
from towtank.hardware_profiles.files import SHIPPED, read

FILE = SHIPPED / "calibrations" / "training.yaml"
_KEYS = {"rate", "rows", "source"}


@dataclass(frozen=True, slots=True)
class TrainingRate:
    """Rate inside training steps over the rate of the profile; `rows` is the number of runs it was fitted to."""

    rate: float
    rows: int
    source: str


NOT_FITTED = TrainingRate(1.0, 0, "not fitted")


def training_rate(device: str, path: Path = FILE) -> TrainingRate:
    """Fitted rate of a device, or `NOT_FITTED`.

    Raises:
        InvalidProfile: the calibration file is wrong.
    """
    return _rates(path).get(device, NOT_FITTED)


@lru_cache(maxsize=8)
def _rates(path: Path) -> dict[str, TrainingRate]:
    faults: list[str] = []
    rates: dict[str, TrainingRate] = {}
    for device, entry in read(path)["devices"].items():
        if not isinstance(entry, dict) or set(entry) != _KEYS:
            faults.append(f"devices.{device} must have exactly the keys {', '.join(sorted(_KEYS))}")
        elif not 0 < entry["rate"] <= 1.5:
            faults.append(f"devices.{device}.rate = {entry['rate']}, but it must lie in (0, 1.5]")
        else:
            rates[str(device)] = TrainingRate(float(entry["rate"]), int(entry["rows"]), str(entry["source"]))
    if faults:
        raise InvalidProfile(path, faults)
    return rates
