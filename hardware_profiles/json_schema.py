"""JSON Schemas (draft 2020-12) of profile files, for editors and for people who write profiles elsewhere.

They are made from the tables in `fields.py` and committed in schema/; a test holds that both agree. Write
them anew with `python -m towtank.hardware_profiles.json_schema`. What a schema cannot say (a source must be
listed, a name must be that of the file) is checked by the loader alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from towtank.hardware_profiles.fields import (
    OPTIONAL,
    DeviceReference,
    Field,
    Figure,
    Figures,
    Kind,
    Section,
    Text,
    fields_of,
)
from towtank.hardware_profiles.parse import PROFILE_NAME, SOURCE_KEY, UNKNOWN
from towtank.hardware_profiles.records import Provenance
from towtank.hardware_profiles.units import unit_names

Schema = dict[str, Any]

FOLDER: Final = Path(__file__).parent / "schema"
_NUMBER: Final = r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?"
_TEXT: Final[Schema] = {"type": "string", "minLength": 1}


def schema(kind: Kind) -> Schema:
    """The schema of the files in folder `kind`."""
    if kind == "networks":
        both = {**fields_of(kind, "devices"), **fields_of(kind, "nodes")}
        return _document(kind, both, ["name", "description"])
    fields = fields_of(kind)
    complete = [key for key in fields if key not in OPTIONAL]
    document = _document(kind, fields, ["name", "description"])
    # A file that inherits states only what differs.
    document["if"] = {"not": {"required": ["from"]}}
    document["then"] = {"required": complete}
    return document


def _document(kind: Kind, fields: Mapping[str, Field], required: list[str]) -> Schema:
    name = {"type": "string", "pattern": f"^{PROFILE_NAME}$"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"towtank profile in {kind}/",
        **_object(
            fields, required, {"name": name, "from": _TEXT, "aliases": {"type": "array", "items": name}}
        ),
        "$defs": {"source": _source(), "provenance": {"enum": list(get_args(Provenance))}},
    }


def _object(fields: Mapping[str, Field], required: list[str], header: Schema) -> Schema:
    properties = {**header, **{key: _field(field) for key, field in fields.items()}}
    if "name" in header:
        table = {"type": "object", "propertyNames": {"pattern": f"^{SOURCE_KEY}$"}}
        properties["sources"] = {**table, "additionalProperties": {"$ref": "#/$defs/source"}}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _source() -> Schema:
    return {
        "type": "object",
        "properties": {"text": _TEXT, "provenance": {"$ref": "#/$defs/provenance"}},
        "required": ["text", "provenance"],
        "additionalProperties": False,
    }


def _field(field: Field) -> Schema:
    """Schema of the value of one field."""
    match field:
        case Text(choices):
            return {"enum": list(choices)} if choices else _TEXT
        case Figure():
            return _figure(field)
        case Figures():
            each = {key: Figure(field.dimension, key, may_be_unknown=False) for key in field.keys}
            return {"anyOf": [{"const": UNKNOWN}, _object(each, [], {})]}
        case Section():
            return _object(field.fields, [], {"from": _TEXT})
        case DeviceReference():
            changed = _object(fields_of("devices"), ["from"], {"from": _TEXT})
            return {"anyOf": [_TEXT, changed]}
        case _:
            return {"anyOf": [{"const": UNKNOWN}, {"type": "array", "items": _bandwidth_row()}]}


def _figure(field: Figure) -> Schema:
    """A figure with its source, or `unknown` where it may be."""
    known: Schema = {
        "type": "object",
        "properties": {"value": _value(field), "source": _TEXT, "provenance": {"$ref": "#/$defs/provenance"}},
        "required": ["value", "source"],
        "additionalProperties": False,
    }
    return {"anyOf": [{"const": UNKNOWN}, known]} if field.may_be_unknown else known


def _value(field: Figure) -> Schema:
    """A number, or text of a number with a unit of the right dimension."""
    match field.dimension:
        case "count":
            return {"type": "integer", "minimum": 0 if field.may_be_zero else 1}
        case "fraction":
            return {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
        case "ratio":
            return {"type": "number", "exclusiveMinimum": 0}
        case dimension:
            return {"type": "string", "pattern": f"^{_NUMBER} *({'|'.join(unit_names(dimension))})$"}


def _bandwidth_row() -> Schema:
    span = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[1-9][0-9]*\.\.$"}]}
    row = _figure(Figure("bytes_per_s", "", may_be_unknown=False))
    properties = {"inner": span, "own": span, **row["properties"]}
    return {**row, "properties": properties, "required": ["inner", "own", "value", "source"]}


def render(kind: Kind) -> str:
    """Text of the committed schema file."""
    return json.dumps(schema(kind), indent=1, ensure_ascii=False) + "\n"


def path_of(kind: Kind) -> Path:
    """File that holds the schema of folder `kind`."""
    return FOLDER / f"{kind.removesuffix('s')}.schema.json"


if __name__ == "__main__":
    for each in get_args(Kind):
        path_of(each).write_text(render(each), encoding="utf-8")
