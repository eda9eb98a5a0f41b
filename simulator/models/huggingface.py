"""Read a Hugging Face `config.json` as a model.

`huggingface.yaml` lists for each architecture the keys that shape it, those that do not, and the defaults of
transformers. A key in no list is an error, because it might change the shape; `ignore_keys` overrules that.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.nearest import did_you_mean
from towtank.simulator.models.errors import ConfigError, ModelError
from towtank.simulator.models.huggingface_shapes import SHAPES
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.models.schema import model_from_mapping

_TABLES = Path(__file__).parent / "huggingface.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_config(path: Path, *, ignore_keys: Iterable[str] = ()) -> ModelSpec:
    """Read the `config.json` at `path`; the model is named after its folder, or its own file if named
    otherwise."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} must hold a JSON object, but it holds {type(config).__name__}")
    name = path.resolve().parent.name if path.stem == "config" else path.stem
    return model_from_config(config, name=name, where=str(path), ignore_keys=ignore_keys)


def model_from_config(
    config: Mapping[str, Any], *, name: str, where: str = "config", ignore_keys: Iterable[str] = ()
) -> ModelSpec:
    """Turn the content of a `config.json` into a model. `sequence` is the longest length that it allows in
    tokens.

    Raises `ConfigError` with one line per fault: unknown architecture, unknown or missing keys, shapes not
    modelled, values that contradict each other.
    """
    architecture = _architecture(config, where)
    faults: list[str] = []
    values = _values(
        config, _tables()["architectures"][architecture], set(ignore_keys), architecture, "", faults
    )
    if faults:
        raise ConfigError(_message(where, faults))
    shape: Callable[[dict[str, Any]], dict[str, Any]] = SHAPES[architecture]
    try:
        data = {"name": name, "source": f"{architecture} config.json", **shape(values)}
        return model_from_mapping(data, where)
    except ConfigError as error:
        raise ConfigError(_message(where, [str(error)])) from error
    except ModelError as error:
        raise ConfigError(str(error)) from error
    except (TypeError, ZeroDivisionError) as error:  # a shape key holds text, null or 0
        raise ConfigError(
            _message(where, [f"a shape key holds no usable number ({error}): {values}"])
        ) from error


def known_architectures() -> list[str]:
    """Return the architectures that can be read, sorted."""
    return sorted(_tables()["architectures"])


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = yaml.load(_TABLES.read_text(encoding="utf-8"), Loader=_LOADER)
    return tables


def _architecture(config: Mapping[str, Any], where: str) -> str:
    stated = config.get("architectures")
    if not isinstance(stated, list) or len(stated) != 1 or not isinstance(stated[0], str):
        raise ConfigError(f"{where} must name one architecture under `architectures`, but has {stated!r}")
    known = known_architectures()
    if stated[0] not in known:
        raise ConfigError(
            f"{where} has the unknown architecture {stated[0]!r}{did_you_mean(stated[0], known)}; known are "
            f"{', '.join(known)}. Write the model in a YAML file of our format instead"
        )
    return stated[0]


def _message(where: str, faults: list[str]) -> str:
    return f"{where} cannot be read as a model:\n" + "\n".join(f"  {fault}" for fault in faults)


def _values(
    config: Mapping[str, Any],
    table: Mapping[str, Any],
    ignore: set[str],
    architecture: str,
    prefix: str,
    faults: list[str],
) -> dict[str, Any]:
    """Return the shape keys with values or defaults; append to `faults` what the table does not allow."""
    common = _tables()["common"]
    fixed = common["fixed"] | table.get("fixed", {})
    nested = table.get("nested", {})
    required, defaults = table.get("required", []), table.get("defaults", {})
    known = {*required, *defaults, *fixed, *nested, *common["ignored"], *table.get("ignored", [])}
    for key, value in config.items():
        if key not in known and key not in ignore:
            faults.append(
                f"key {prefix}{key} is not known for {architecture}{did_you_mean(key, known)}; "
                f"if it does not change the shape, ignore it (ignore_keys, --ignore-config-key {key})"
            )
        elif key in fixed and value not in fixed[key] and key not in ignore:
            allowed = " or ".join(json.dumps(item) for item in fixed[key])
            faults.append(f"{prefix}{key} must be {allowed}, but it is {json.dumps(value)}: not modelled")
    faults += [f"missing key {prefix}{key}" for key in required if key not in config]
    values: dict[str, Any] = defaults | {key: config[key] for key in (*required, *defaults) if key in config}
    for key, inner in nested.items():
        part = config.get(key) or {}
        if isinstance(part, Mapping):
            values[key] = _values(part, inner, ignore, architecture, f"{prefix}{key}.", faults)
        else:
            faults.append(f"{prefix}{key} must be a mapping, but it is {part!r}")
    return values
