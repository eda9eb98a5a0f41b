"""Stacks from YAML: `from:` inheritance, unit strings, strict keys, all faults at once."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.calibration import calibration
from towtank.hardware_profiles.errors import UnitError
from towtank.hardware_profiles.files import StrictLoader
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.units import Dimension, parse_quantity
from towtank.simulator.edge import read_record
from towtank.simulator.errors import StackError
from towtank.simulator.stacks.records import Stack

_FOLDER = Path(__file__).parent

_QUANTITIES: dict[str, Dimension] = {
    "launch_overhead": "seconds", "step_overhead": "seconds", "communication.meeting_time": "seconds",
    "host.tensor_call": "seconds", "host.tensor_call_in_pipeline": "seconds",
    "memory.context": "bytes", "memory.shard_buckets": "bytes",
}  # fmt: skip
_UNIT_SUFFIX = {"seconds": "_s", "bytes": "_bytes"}


def list_stacks() -> list[str]:
    """Names of the shipped stacks."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@lru_cache(maxsize=64)
def load_stack(name: str) -> Stack:
    """Load a stack by name, or from a YAML file by path.

    Raises:
        StackError: no such stack, or its file breaks rules (all of them are listed).
    """
    data = _inherited(name, ())
    faults: list[str] = []
    for key, dimension in _QUANTITIES.items():
        _convert(data, key, dimension, faults)
    _fill_efficiency(data, faults)
    stack, found = read_record(Stack, data)
    if faults + found:
        lines = "\n".join(f"  - {fault}" for fault in faults + found)
        raise StackError(f"stack {name} is not a stack:\n{lines}")
    result: Stack = stack
    return result


@lru_cache(maxsize=64)
def fitted_as(name: str) -> str | None:
    """Name under which the calibration holds the compute efficiency of a stack; None where its file has a number."""
    efficiency = _inherited(name, ()).get("fitted", {}).get("compute_efficiency")
    return efficiency if isinstance(efficiency, str) else None


def _fill_efficiency(data: dict[str, Any], faults: list[str]) -> None:
    """Replace the name of a fitted stack by its rate, and say in `source` what that rests on."""
    fitted = data.get("fitted")
    name = fitted.get("compute_efficiency") if isinstance(fitted, dict) else None
    if not isinstance(fitted, dict) or not isinstance(name, str):
        return  # a number, or the record reader reports what is missing
    found = calibration().stacks.get(name)
    if found is None:
        known = sorted(calibration().stacks)
        faults.append(
            f"fitted.compute_efficiency = {name!r} must be a number or a stack of calibrations/training.yaml"
            f"{did_you_mean(name, known)} (known: {', '.join(known)})"
        )
        fitted["compute_efficiency"] = 1.0  # so that the record reader finds the other faults
        return
    fitted["compute_efficiency"] = found.rate
    own = "" if name == data.get("name") else f"not fitted to runs of this stack; that of {name}: "
    basis = f"compute efficiency fitted to {found.rows} published dense runs"
    fitted["source"] = "; ".join(
        part for part in (own + basis, fitted.get("source")) if isinstance(part, str)
    )


def _path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    path = _FOLDER / f"{name}.yaml"
    if not path.is_file():
        hint = did_you_mean(name, list_stacks())
        raise StackError(f"no stack is named {name!r}{hint} (known: {', '.join(list_stacks())})")
    return path


def _inherited(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
    if name in chain:
        raise StackError(
            f"stacks inherit in a circle: {' -> '.join((*chain, name))}; break it at one `from:`"
        )
    path = _path(name)
    try:
        data = yaml.load(path.read_bytes().decode("utf-8"), Loader=StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StackError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise StackError(f"{path}: must be a mapping of stack fields")
    parent = data.pop("from", None)
    if parent is None:
        return data
    return _merged(_inherited(str(parent), (*chain, name)), data)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _convert(data: dict[str, Any], key: str, dimension: Dimension, faults: list[str]) -> None:
    """Replace a unit string by an SI number under the record's field name."""
    *outer, name = key.split(".")
    target: Any = data
    for part in outer:
        target = target.get(part, {}) if isinstance(target, dict) else {}
    if not isinstance(target, dict) or name not in target:
        return  # the record reader reports what is missing
    try:
        target[name + _UNIT_SUFFIX[dimension]] = parse_quantity(target.pop(name), dimension)
    except UnitError as error:
        faults.append(f"{key}: {error}")
