"""From the mapping in a profile file to checked values; every fault of a file is kept, not only one."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from towtank.hardware_profiles.errors import InvalidProfile, UnitError
from towtank.hardware_profiles.fields import (
    DEVICE,
    HEADER,
    BandwidthTable,
    DeviceReference,
    Field,
    Figure,
    Figures,
    Section,
    Text,
)
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.records import Provenance, Source
from towtank.hardware_profiles.units import parse_quantity
from towtank.hardware_profiles.values import BandwidthRule, DeviceUse, Quantity, Span, Value, Values

UNKNOWN: Final = "unknown"
SOURCE_KEY: Final = r"[a-z0-9][a-z0-9_-]*"
PROFILE_NAME: Final = r"[a-z0-9][a-z0-9.-]*"
_FIGURE_KEYS: Final = {"value", "source"}
_SPAN: Final = re.compile(r"([1-9][0-9]*)(\.\.)?")


SectionBase = Callable[[str, str], Mapping[str, Value]]
"""Values of a file of networks/ by name, given what it must join."""


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What one file says itself, before inheritance."""

    values: Values
    sources: Mapping[str, Source]


def parse_file(
    path: Path,
    document: Mapping[str, Any],
    fields: Mapping[str, Field],
    inherited: Mapping[str, Source],
    section_base: SectionBase,
) -> tuple[ParsedFile, list[str]]:
    """Values of one file and its faults. `inherited` are the sources of the files that it comes `from`."""
    parser = _Parser(section_base)
    parser.header(path, document)
    parser.sources = {**inherited, **parser.source_table(document.get("sources", {}))}
    body = {key: value for key, value in document.items() if key not in HEADER}
    values = parser.mapping(body, fields, "", HEADER)
    return ParsedFile(values, parser.sources), parser.faults


class _Parser:
    """Holds the faults found so far and the sources that figures may name."""

    def __init__(self, section_base: SectionBase) -> None:
        self.faults: list[str] = []
        self.sources: Mapping[str, Source] = {}
        self.faulty_sources: set[str] = set()
        self.section_base = section_base

    def header(self, path: Path, document: Mapping[str, Any]) -> None:
        """Check name, from and aliases."""
        name = document.get("name")
        if name != path.stem:
            self.faults.append(f"name: must be the name of the file, {path.stem!r}, got {name!r}")
        if not re.fullmatch(PROFILE_NAME, path.stem):
            self.faults.append(f"name: {path.stem!r} must be lower-case letters, digits, dots and dashes")
        base = document.get("from", "")
        if not isinstance(base, str):
            self.faults.append(f"from: the name of one profile of the same folder is needed, got {base!r}")
        listed = document.get("aliases", [])
        if not isinstance(listed, list) or not all(
            isinstance(alias, str) and re.fullmatch(PROFILE_NAME, alias) for alias in listed
        ):
            self.faults.append(f"aliases: a list of lower-case names is needed, got {listed!r}")

    def source_table(self, table: object) -> dict[str, Source]:
        """The `sources:` of a file: key to text and provenance."""
        if not isinstance(table, dict):
            self.faults.append(f"sources: a mapping of keys to text and provenance is needed, got {table!r}")
            return {}
        found: dict[str, Source] = {}
        for key, entry in table.items():
            before = len(self.faults)
            place = f"sources.{key}"
            if not isinstance(key, str) or not re.fullmatch(SOURCE_KEY, key):
                self.faults.append(f"{place}: a key is lower-case letters, digits, - and _")
            elif not isinstance(entry, dict) or set(entry) != {"text", "provenance"}:
                self.faults.append(f"{place}: write {{text: ..., provenance: ...}}, got {entry!r}")
            elif self.check_provenance(entry["provenance"], place) and self.check_text(entry["text"], place):
                found[key] = Source(entry["text"], entry["provenance"])
            if len(self.faults) > before:
                self.faulty_sources.add(str(key))
        return found

    def check_text(self, text: object, place: str) -> bool:
        """Whether `text` is text and not empty; a fault if not."""
        good = isinstance(text, str) and bool(text.strip())
        if not good:
            self.faults.append(f"{place}: text is needed, got {text!r}")
        return good

    def check_provenance(self, provenance: object, place: str) -> bool:
        """Whether `provenance` is one of the four; a fault if not."""
        good = provenance in get_args(Provenance)
        if not good:
            self.faults.append(
                f"{place}: provenance is one of {', '.join(get_args(Provenance))}, got {provenance!r}"
            )
        return good

    def mapping(
        self, body: Mapping[Any, Any], fields: Mapping[str, Field], place: str, others: tuple[str, ...]
    ) -> Values:
        """Values of the known keys of `body`; unknown keys are faults."""
        values: Values = {}
        for key, raw in body.items():
            here = f"{place}{key}"
            if key not in fields:
                self.faults.append(f"{here}: unknown key{did_you_mean(key, (*fields, *others))}")
                continue
            value = self.field(raw, fields[key], here)
            if value is not None:
                values[key] = value
        return values

    def field(self, raw: object, field: Field, place: str) -> Value | None:
        """Value of one field; None after a fault."""
        match field:
            case Text(choices):
                return self.text(raw, choices, place)
            case Figure():
                return self.figure(raw, field, place)
            case Figures():
                return self.figures(raw, field, place)
            case Section():
                return self.section(raw, field, place)
            case DeviceReference():
                return self.device(raw, place)
            case BandwidthTable():
                return self.bandwidth_table(raw, place)

    def text(self, raw: object, choices: tuple[str, ...], place: str) -> str | None:
        """Text, one of `choices` where there are any."""
        if not self.check_text(raw, place):
            return None
        if choices and raw not in choices:
            self.faults.append(f"{place}: must be one of {', '.join(choices)}, got {raw!r}")
            return None
        return str(raw).strip()

    def figure(self, raw: object, field: Figure, place: str) -> Quantity | None:
        """A figure, or `unknown` where the field may be that."""
        if raw == UNKNOWN:
            if field.may_be_unknown:
                return Quantity(None, None)
            self.faults.append(f"{place}: cannot be unknown, since nothing can be predicted without it")
            return None
        if not isinstance(raw, dict) or not _FIGURE_KEYS <= set(raw) <= {*_FIGURE_KEYS, "provenance"}:
            self.faults.append(f"{place}: write {{value: ..., source: ...}} or unknown, got {raw!r}")
            return None
        source = self.source(raw, place)
        value = self.number(raw["value"], field, place)
        return None if value is None or source is None else Quantity(value, source)

    def source(self, raw: Mapping[str, Any], place: str) -> Source | None:
        """Source of a figure: a key of `sources:`, or text of its own with a provenance beside it."""
        text = raw["source"]
        if not self.check_text(text, f"{place}.source"):
            return None
        if "provenance" in raw and not self.check_provenance(raw["provenance"], place):
            return None
        if text in self.sources:
            listed = self.sources[text]
            return Source(listed.text, raw.get("provenance", listed.provenance))
        if "provenance" in raw and not re.fullmatch(SOURCE_KEY, text):
            return Source(text, raw["provenance"])
        if text in self.faulty_sources:
            return None  # told once, where the source stands
        self.faults.append(
            f"{place}: {text!r} is no key of sources{did_you_mean(text, self.sources)}; "
            f"add it there, or write the source as text with a provenance beside it"
        )
        return None

    def number(self, raw: object, field: Figure, place: str) -> float | None:
        """The SI value of a figure; None after a fault."""
        if field.dimension == "count" or field.dimension == "fraction" or field.dimension == "ratio":
            return self.plain_number(raw, field, place)
        try:
            value = parse_quantity(raw, field.dimension)
        except UnitError as error:
            self.faults.append(f"{place}: {error}")
            return None
        if value == 0 and not field.may_be_zero:
            self.faults.append(f"{place}: must be greater than zero, got {raw!r}")
            return None
        return value

    def plain_number(self, raw: object, field: Figure, place: str) -> float | None:
        """A count, a fraction or a ratio."""
        least = 0 if field.may_be_zero else 1
        rule, good = {
            "count": (f"a whole number from {least}", isinstance(raw, int) and raw >= least),
            "fraction": ("a number above 0 and at most 1", isinstance(raw, int | float) and 0 < raw <= 1),
            "ratio": ("a number above 0", isinstance(raw, int | float) and 0 < raw < math.inf),
        }[str(field.dimension)]
        if not good or isinstance(raw, bool) or not isinstance(raw, int | float):
            self.faults.append(f"{place}: {rule} is needed, got {raw!r}")
            return None
        return raw

    def figures(self, raw: object, field: Figures, place: str) -> Values | None:
        """Figures by key. `unknown` empties what a base file says."""
        if raw == UNKNOWN:
            return {UNKNOWN: Quantity(None, None)}
        if not isinstance(raw, dict):
            self.faults.append(f"{place}: a mapping of {', '.join(field.keys)} is needed, got {raw!r}")
            return None
        each: dict[str, Field] = {
            key: Figure(field.dimension, key, may_be_unknown=False) for key in field.keys
        }
        return self.mapping(raw, each, f"{place}.", ())

    def section(self, raw: object, field: Section, place: str) -> Values | None:
        """A section: what the file of networks/ says that it is `from`, then its own fields."""
        if not isinstance(raw, dict):
            self.faults.append(f"{place}: a mapping is needed, got {raw!r}")
            return None
        own = self.mapping(
            {key: value for key, value in raw.items() if key != "from"}, field.fields, f"{place}.", ("from",)
        )
        if "from" not in raw:
            return own
        if not self.check_text(raw["from"], f"{place}.from"):
            return None
        return {**self.section_base(raw["from"], field.joins), **own}

    def device(self, raw: object, place: str) -> DeviceUse | None:
        """A device by name, or by `from` with changed figures."""
        if isinstance(raw, str) and raw.strip():
            return DeviceUse(raw.strip().lower(), {})
        if not isinstance(raw, dict) or not isinstance(raw.get("from"), str):
            self.faults.append(
                f"{place}: the name of a device, or a mapping with from: NAME, is needed, got {raw!r}"
            )
            return None
        changes = {key: value for key, value in raw.items() if key != "from"}
        return DeviceUse(raw["from"].strip().lower(), self.mapping(changes, DEVICE, f"{place}.", ("from",)))

    def bandwidth_table(self, raw: object, place: str) -> tuple[BandwidthRule, ...] | None:
        """Rows of a measured bus bandwidth table; `unknown` empties what a base file says."""
        if raw == UNKNOWN:
            return ()
        if not isinstance(raw, list):
            self.faults.append(f"{place}: a list of {{inner, own, value, source}} is needed, got {raw!r}")
            return None
        rules = [self.bandwidth_rule(row, f"{place}[{number}]") for number, row in enumerate(raw)]
        return tuple(rule for rule in rules if rule is not None)

    def bandwidth_rule(self, raw: object, place: str) -> BandwidthRule | None:
        """One row of a measured bus bandwidth table."""
        if not isinstance(raw, dict) or not {"inner", "own"} <= set(raw):
            self.faults.append(
                f"{place}: write {{inner: 1, own: 16.., value: ..., source: ...}}, got {raw!r}"
            )
            return None
        inner, own = self.span(raw["inner"], f"{place}.inner"), self.span(raw["own"], f"{place}.own")
        rest = {key: value for key, value in raw.items() if key not in ("inner", "own")}
        quantity = self.figure(rest, Figure("bytes_per_s", "", may_be_unknown=False), place)
        if inner is None or own is None or quantity is None:
            return None
        if quantity.value is None or quantity.source is None:
            return None
        return BandwidthRule(inner, own, quantity.value, quantity.source)

    def span(self, raw: object, place: str) -> Span | None:
        """A group size such as 4, or `16..` for every power of two from 16 on."""
        match = _SPAN.fullmatch(str(raw))
        if match is None or isinstance(raw, bool | float):
            self.faults.append(
                f"{place}: a size such as 4, or 16.. for powers of two from 16 on, got {raw!r}"
            )
            return None
        first = int(match[1])
        if match[2] and first & (first - 1):
            self.faults.append(f"{place}: {raw!r} must start at a power of two")
            return None
        return Span(first, bool(match[2]))


def fail(path: Path, faults: list[str]) -> None:
    """Raise all faults of one file as one error; nothing where there are none."""
    if faults:
        raise InvalidProfile(path, faults)
