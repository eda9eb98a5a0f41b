"""Strict edge: a mapping from a file or the command line becomes a frozen record, or every fault at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from towtank.hardware_profiles.nearest import did_you_mean


@cache
def _adapter(record: type) -> TypeAdapter[Any]:
    for part in [record, *_nested(record)]:
        # records stay free of validation; pydantic reads this attribute of a plain dataclass
        part.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[attr-defined]
    return TypeAdapter(record)


def _nested(record: type) -> list[type]:
    return [hint for hint in get_type_hints(record).values() if isinstance(hint, type) and is_dataclass(hint)]


def read_record(
    record: type, data: Mapping[str, Any], more_keys: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """Build `record` from `data`; return it, or None, and the faults as sentences.

    `more_keys`: what the caller knows besides the fields of the record, for the message on an unknown key.
    """
    try:
        return _adapter(record).validate_json(json.dumps(data)), []
    except ValidationError as error:
        return None, [_sentence(record, dict(fault), more_keys) for fault in error.errors()]
    except (TypeError, ValueError) as error:  # dates and sets, lists that hold themselves
        return None, [f"holds something that is no number, text, list or mapping: {error}"]


def _known_keys(record: type, path: tuple[Any, ...]) -> list[str]:
    for key in path[:-1]:
        record = get_type_hints(record)[key]
    return [field.name for field in fields(record)]


def _sentence(record: type, fault: dict[str, Any], more_keys: Sequence[str]) -> str:
    path = tuple(part for part in fault["loc"] if isinstance(part, str | int))
    where = ".".join(str(part) for part in path)
    kind, value = fault["type"], fault.get("input")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = [*(more_keys if len(path) == 1 else ()), *_known_keys(record, path)]
        return f"unknown key {where}{did_you_mean(str(path[-1]), known)} (known: {', '.join(known)})"
    if kind in ("missing", "missing_argument"):
        return f"missing key {where}"
    message = str(fault["msg"]).removeprefix("Input ")
    return f"{where} = {value!r}: {message[:1].lower()}{message[1:]}"
