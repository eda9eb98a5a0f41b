"""Load a model: by its name in the zoo, from a YAML file in our format, or from a Hugging Face `config.json`.

The zoo is one YAML file per family. The name of a model starts with the name of its file (`llama` holds
`llama2-7b`; the longest file name that fits wins), so that one name opens one file. A family has
`defaults`, merged under every entry, `models` by name, and `aliases`, which may point into other families.
An entry is a model in our format plus `published_parameters`. A `source` that ends in "recalled" was written
down from memory and confirmed as far as the parameter count tells (not the heads, say).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.files import StrictLoader
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.simulator.models.errors import ModelError, UnknownModel
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.models.schema import broken_rules, model_from_mapping

_ZOO = Path(__file__).parent / "zoo"
_NOT_SHAPE = "published_parameters"


def load_model(
    reference: str | Path, *, sequence: int | None = None, ignore_keys: Iterable[str] = ()
) -> ModelSpec:
    """Load the model that `reference` names, with `sequence` tokens per sequence if given.

    A `Path`, or text with a slash or the ending .yaml, .yml or .json, is a file: YAML in our format, a
    Hugging Face config, or a folder that holds a `config.json`. Any other text is a name of the zoo.
    `ignore_keys` are keys of a Hugging Face config that do not change the shape. Raises `UnknownModel`,
    `ModelError` or `ConfigError`.
    """
    path = Path(reference)
    if isinstance(reference, Path) or _looks_like_path(reference):
        model = _load_file(path, ignore_keys)
    else:
        model = _load_zoo(reference)
    return model if sequence is None else with_changes(model, sequence=sequence)


def list_models() -> list[str]:
    """Return every name and alias of the zoo, sorted."""
    names: set[str] = set()
    for stem in _stems():
        family = _family(stem)
        names |= family.get("models", {}).keys() | family.get("aliases", {}).keys()
    return sorted(names)


def published_parameters(name: str) -> Mapping[str, Any]:
    """Return what the authors of zoo model `name` print: text such as "6.74B" or the exact number.

    Keys: `total` (without MTP modules), `active`, `active_without_embedding`, `mtp`, each only where
    printed, and `nominal: true` where the print is a size class rather than a count.
    """
    entry: Mapping[str, Any] = _entry(name).get(_NOT_SHAPE, {})
    return entry


def with_changes(
    model: ModelSpec, *, sequence: int | None = None, num_layers: int | None = None
) -> ModelSpec:
    """Return `model` with another sequence length in tokens or another number of layers.

    A learned position table that is as long as the sequence stays so, as training codes size it; one that
    is longer keeps its rows. Raises `ModelError` if the result breaks a rule.
    """
    changes: dict[str, Any] = {}
    if num_layers is not None:
        changes["num_layers"] = num_layers
    if sequence is not None:
        changes["sequence"] = sequence
        if model.positions == "learned" and model.max_positions == model.sequence:
            changes["max_positions"] = sequence
    faults = [f"{key} must be positive, but it is {value}" for key, value in changes.items() if value < 1]
    changed = dataclasses.replace(model, **changes)
    faults += broken_rules(changed)
    if faults:
        raise ModelError(
            f"{model.name} cannot be changed so:\n" + "\n".join(f"  {fault}" for fault in faults)
        )
    return changed


def _looks_like_path(reference: str) -> bool:
    return "/" in reference or reference.endswith((".yaml", ".yml", ".json"))


def _load_file(path: Path, ignore_keys: Iterable[str]) -> ModelSpec:
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise ModelError(
            f"no model file at {path}; give a YAML file, a config.json, its folder, or a name of the zoo"
        )
    if path.suffix == ".json":
        from towtank.simulator.models.huggingface import load_config  # not needed for the zoo

        return load_config(path, ignore_keys=ignore_keys)
    data = _read_yaml(path)
    if not isinstance(data, dict):
        raise ModelError(f"{path} must hold a mapping of model keys, but it holds {type(data).__name__}")
    data.setdefault("name", path.stem)
    data.pop(_NOT_SHAPE, None)
    return model_from_mapping(data, str(path))


def _load_zoo(name: str) -> ModelSpec:
    entry = {key: value for key, value in _entry(name).items() if key != _NOT_SHAPE}
    return model_from_mapping(entry, f"model {name} of the zoo")


def _entry(name: str) -> dict[str, Any]:
    stem = _stem_of(name)
    family = _family(stem) if stem else {}
    alias = family.get("aliases", {}).get(name)
    if alias is not None:
        return _entry(alias)
    if name not in family.get("models", {}):
        raise UnknownModel(f"no model {name!r} in the zoo{did_you_mean(name, list_models())}")
    return {"name": name, **_merged(family.get("defaults", {}), family["models"][name])}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        under = out.get(key)
        out[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return out


@cache
def _stems() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _ZOO.glob("*.yaml")))


def _stem_of(name: str) -> str:
    return max((stem for stem in _stems() if name.startswith(stem)), key=len, default="")


@cache
def _family(stem: str) -> dict[str, Any]:
    family: dict[str, Any] = _read_yaml(_ZOO / f"{stem}.yaml")
    return family


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not YAML: {error}") from error
