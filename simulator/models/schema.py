"""Strict edge of the model format: a mapping read from YAML becomes a `ModelSpec`, or every fault at once.

The keys are the field names of the records. What follows from other keys may be left out: `kv_heads` (=
heads), `head_dim` (= hidden / heads), `norm_bias` (a layernorm has one, an rmsnorm not), `max_positions` of
a model without a learned table (0). Everything else without a default in the records must be stated.
"""

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from towtank.hardware_profiles.nearest import did_you_mean
from towtank.simulator.models.errors import ModelError
from towtank.simulator.models.records import Attention, Experts, LatentAttention, Mlp, ModelSpec

_MAY_BE_ZERO = {"max_positions", "shared_hidden", "first_dense_layers", "mtp_layers", "activation_parameters"}


def model_from_mapping(data: Mapping[str, Any], where: str) -> ModelSpec:
    """Build a model from `data`; `where` names the file or entry in messages.

    Raises `ModelError` with one line per fault: unknown or missing keys, wrong types, broken rules.
    """
    faults: list[str] = []
    model: ModelSpec | None = _record(ModelSpec, _derived(data), "", faults)
    if model is not None:
        faults += broken_rules(model)
    if faults or model is None:
        raise ModelError(f"{where} is not a model:\n" + "\n".join(f"  {fault}" for fault in faults))
    return model


def broken_rules(model: ModelSpec) -> list[str]:
    """Return one sentence per rule that the values of `model` break together."""
    faults = []
    attention, experts = model.attention, model.experts
    if isinstance(attention, Attention) and attention.heads % attention.kv_heads:
        faults.append(
            f"attention.heads must be a multiple of attention.kv_heads, but {attention.heads} is not one of "
            f"{attention.kv_heads}; every group of queries shares one key head"
        )
    if experts is not None and experts.top_k > experts.num_experts:
        faults.append(
            f"experts.top_k <= experts.num_experts must hold, but top_k is {experts.top_k} and num_experts "
            f"{experts.num_experts}"
        )
    if experts is not None and experts.first_dense_layers >= model.num_layers:
        faults.append(
            f"experts.first_dense_layers < num_layers must hold, but {experts.first_dense_layers} of "
            f"{model.num_layers} layers are dense; leave `experts` out of a dense model"
        )
    if experts is not None and experts.imbalance < 1.0:
        faults.append(
            f"experts.imbalance >= 1 must hold (busiest over mean load), but it is {experts.imbalance}"
        )
    if model.positions == "learned" and model.max_positions < 1:
        faults.append("max_positions must be stated for learned positions: the rows of the table")
    if model.positions == "learned" and 0 < model.max_positions < model.sequence:
        faults.append(
            f"sequence <= max_positions must hold for learned positions, but {model.sequence} tokens need "
            f"more than the {model.max_positions} rows of the table; set max_positions too"
        )
    return faults


def _derived(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what follows from other keys (module docstring); anything odd is left for the type check."""
    out = dict(data)
    if out.get("norm") in ("layernorm", "rmsnorm"):
        out.setdefault("norm_bias", out["norm"] == "layernorm")
    if out.get("positions") in ("rope", "alibi"):
        out.setdefault("max_positions", 0)
    out.setdefault("experts", None)
    attention, hidden = out.get("attention"), out.get("hidden")
    if isinstance(attention, Mapping) and "kv_rank" not in attention:
        attention = dict(attention)
        heads = attention.get("heads")
        if _is_count(heads):
            attention.setdefault("kv_heads", heads)
            if _is_count(hidden) and hidden % heads == 0:
                attention.setdefault("head_dim", hidden // heads)
        out["attention"] = attention
    return out


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0


@cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record)


def _record(record: type, data: Mapping[Any, Any], path: str, faults: list[str]) -> Any:
    """Build `record` from `data`, or return None and append to `faults`; `path` is '' or 'key.'."""
    before = len(faults)
    required = {f.name for f in dataclasses.fields(record) if f.default is dataclasses.MISSING}
    hints = _hints(record)
    faults += [f"unknown key {path}{key}{did_you_mean(str(key), hints)}" for key in data if key not in hints]
    faults += [f"missing key {path}{name}" for name in hints if name in required and name not in data]
    values = {name: _value(hints[name], data[name], path, name, faults) for name in hints if name in data}
    return None if len(faults) > before else record(**values)


def _value(hint: Any, value: Any, path: str, name: str, faults: list[str]) -> Any:
    where = path + name
    if name == "attention" and isinstance(value, Mapping):
        return _record(LatentAttention if "kv_rank" in value else Attention, value, where + ".", faults)
    if name == "experts" and isinstance(value, Mapping):
        return _record(Experts, value, where + ".", faults)
    if hint is Mlp and isinstance(value, Mapping):
        return _record(Mlp, value, where + ".", faults)
    if get_origin(hint) is tuple:
        return _windows(value, where, faults)
    if not _fits(hint, value):
        faults.append(f"{where} must be {_describe(hint)}, but it is {value!r}")
    elif type(value) in (int, float) and value <= 0 and not (value == 0 and name in _MAY_BE_ZERO):
        faults.append(f"{where} must be positive, but it is {value}")
    return float(value) if hint is float and type(value) is int else value


def _windows(value: Any, where: str, faults: list[str]) -> tuple[int | None, ...]:
    if isinstance(value, list) and value and all(window is None or _is_count(window) for window in value):
        return tuple(value)
    faults.append(f"{where} must be a list of token counts or null, at least one, but it is {value!r}")
    return (None,)


def _fits(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(part, value) for part in get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in get_args(hint))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, "a mapping")
