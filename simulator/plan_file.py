"""Plans from files and from the command line, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.files import StrictLoader
from towtank.simulator.edge import read_record
from towtank.simulator.errors import PlanError
from towtank.simulator.plan import Plan

SCHEMA = 1


def plan_from_mapping(data: Mapping[str, Any], subject: str = "plan") -> Plan:
    """Build a plan from a mapping of its fields.

    Raises:
        PlanError: unknown keys or wrong types, all at once.
    """
    values = dict(data)
    version = values.pop("schema", SCHEMA)
    faults = (
        [] if version == SCHEMA else [f"schema {version!r} is not known; this towtank reads schema {SCHEMA}"]
    )
    plan, found = read_record(Plan, values)
    if faults + found:
        raise PlanError(faults + found, subject)
    result: Plan = plan
    return result


def load_plan(path: str | Path, settings: Mapping[str, Any] | None = None) -> Plan:
    """Read a plan file; `settings` replace some of its values.

    Raises:
        PlanError: the file cannot be read or is not a plan.
    """
    subject = str(path)
    try:
        data = yaml.load(Path(path).read_bytes().decode("utf-8"), Loader=StrictLoader)
    except OSError as error:
        raise PlanError([f"cannot be read: {error.strerror}"], subject) from error
    except UnicodeDecodeError as error:
        raise PlanError([f"byte {error.start} is not UTF-8; save the file as UTF-8"], subject) from error
    except yaml.YAMLError as error:
        raise PlanError([f"is not YAML: {' '.join(str(error).split())}"], subject) from error
    if not isinstance(data, dict):
        raise PlanError(["must be a mapping of plan fields such as `tensor_x: 8`"], subject)
    return plan_from_mapping(_merge(data, settings or {}), subject)


def _merge(data: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(data)
    for key, value in settings.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged


def parse_settings(text: str) -> dict[str, Any]:
    """Read `tensor_x=8,overlap.pipeline=true,stage_layers=[3,3]` into a mapping.

    Raises:
        PlanError: a part without `=`, a key given twice, a value that is not YAML.
    """
    faults: list[str] = []
    settings: dict[str, Any] = {}
    for part in _split(text):
        key, sign, value = part.partition("=")
        key = key.strip()
        if not sign or not key:
            faults.append(f"{part.strip()!r} is not KEY=VALUE, such as tensor_x=8")
            continue
        try:
            parsed = yaml.load(value, Loader=StrictLoader)
        except yaml.YAMLError:
            faults.append(f"{key}: {value!r} is not a value")
            continue
        target, name = settings, key
        if "." in key:
            outer, _, name = key.partition(".")
            nested = settings.setdefault(outer, {})
            if not isinstance(nested, dict):
                faults.append(f"{outer} is given both as a value and with parts")
                continue
            target = nested
        if name in target:
            faults.append(f"{key} is given twice")
        target[name] = parsed
    if faults:
        raise PlanError(faults, "settings")
    return settings


def _split(text: str) -> list[str]:
    """Split at commas that are not inside brackets."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += letter in "[{"
        depth -= letter in "]}"
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [part for part in [*parts, current] if part.strip()]


def plan_to_mapping(plan: Plan) -> dict[str, Any]:
    """Fields of a plan that differ from the defaults, in the order of the record."""
    default = asdict(Plan())
    mapping: dict[str, Any] = {"schema": SCHEMA}
    for key, value in asdict(plan).items():
        if value == default[key]:
            continue
        if isinstance(value, dict):
            value = {name: switch for name, switch in value.items() if switch is not None}
        mapping[key] = list(value) if isinstance(value, tuple) else value
    return mapping


def dump_plan(plan: Plan) -> str:
    """Text of a plan file."""
    return yaml.safe_dump(plan_to_mapping(plan), sort_keys=False)
