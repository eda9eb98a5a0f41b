"""Plans from files and from the command line, and back.

A plan file holds fields of the plan and may name the job it is for: `model`, `machine` and `stack`, written as on the
command line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.files import StrictLoader
from towtank.simulator.edge import read_record
from towtank.simulator.errors import PlanError
from towtank.simulator.plan import Plan

SCHEMA = 1
JOB_KEYS = ("model", "machine", "stack")
"""Keys of a plan file that are no fields of the plan: what the plan is for."""


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan and the job that its file names; None: the file does not say."""

    plan: Plan
    model: str | None = None
    """Name of the zoo or path, as written."""
    machine: str | None = None
    """Machine with its options, such as dgx-h100:nodes=64."""
    stack: str | None = None


def plan_from_mapping(data: Mapping[str, Any], subject: str = "plan") -> Plan:
    """Build a plan from a mapping of its fields.

    Raises:
        PlanError: unknown keys or wrong types, all at once.
    """
    plan, faults = _read(data, ())
    if plan is None or faults:
        raise PlanError(faults, subject)
    return plan


def plan_file_from_mapping(
    data: Mapping[str, Any], settings: Mapping[str, Any] | None = None, subject: str = "plan"
) -> PlanFile:
    """Build a plan and the job it is for from the mapping of a plan file; `settings` replace fields of the plan.

    Raises:
        PlanError: unknown keys or wrong types, all at once.
    """
    named = {key: data[key] for key in JOB_KEYS if data.get(key) is not None}
    fields = {key: value for key, value in data.items() if key not in JOB_KEYS}
    changes = {key: value for key, value in (settings or {}).items() if key not in JOB_KEYS}
    plan, faults = _read(_merge(fields, changes), JOB_KEYS)
    faults += [f"{key} is no field of the plan; give --{key}" for key in settings or {} if key in JOB_KEYS]
    faults += [
        f"{key} = {value!r} must be text, as on the command line"
        for key, value in named.items()
        if not isinstance(value, str) or not value.strip()
    ]
    if plan is None or faults:
        raise PlanError(faults, subject)
    return PlanFile(plan, **named)


def _read(data: Mapping[str, Any], more_keys: tuple[str, ...]) -> tuple[Plan | None, list[str]]:
    values = dict(data)
    version = values.pop("schema", SCHEMA)
    faults = (
        [] if version == SCHEMA else [f"schema {version!r} is not known; this towtank reads schema {SCHEMA}"]
    )
    plan, found = read_record(Plan, values, more_keys)
    return plan, faults + found


def load_plan(path: str | Path, settings: Mapping[str, Any] | None = None) -> Plan:
    """Read the plan of a plan file; `settings` replace some of its values.

    Raises:
        PlanError: the file cannot be read or is not a plan.
    """
    return load_plan_file(path, settings).plan


def load_plan_file(path: str | Path, settings: Mapping[str, Any] | None = None) -> PlanFile:
    """Read a plan file; `settings` replace some of the plan's values.

    Raises:
        PlanError: the file cannot be read or is not a plan.
    """
    return plan_file_from_mapping(read_plan_mapping(path), settings, str(path))


def read_plan_mapping(path: str | Path) -> dict[str, Any]:
    """Read the mapping that a plan file holds, whatever its keys.

    Raises:
        PlanError: the file cannot be read or holds no mapping.
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
    except RecursionError as error:
        raise PlanError(["nests too deeply to be a plan"], subject) from error
    if not isinstance(data, dict):
        raise PlanError(["must be a mapping of plan fields such as `tensor_x: 8`"], subject)
    return data


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
        except (yaml.YAMLError, RecursionError):
            shown = value if len(value) < 100 else f"{value[:97]}..."
            faults.append(f"{key}: {shown!r} is not a value")
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


def dump_plan(
    plan: Plan, *, model: str | None = None, machine: str | None = None, stack: str | None = None
) -> str:
    """Text of a plan file, with the job that it is for as far as it is given."""
    fields = plan_to_mapping(plan)
    named = {key: value for key, value in zip(JOB_KEYS, (model, machine, stack), strict=True) if value}
    return yaml.safe_dump({"schema": fields.pop("schema"), **named, **fields}, sort_keys=False)
