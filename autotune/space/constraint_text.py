"""Constraints from texts: `--fix tensor_x=4|8`, `--min data=2`, `--max pipeline=16`, `--free rank_order`."""

from collections.abc import Sequence
from typing import Any, get_args

from towtank.autotune.constraints import Constraints
from towtank.autotune.errors import TuningError
from towtank.autotune.space.dimensions import BY_NAME, LARGEST_COUNT
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Precision, Recompute, ScheduleName

_NAMES: dict[str, tuple[str, ...]] = {
    "context_kind": ("ring", "all-to-all"),
    "schedule": get_args(ScheduleName),
    "recompute": get_args(Recompute),
    "precision": get_args(Precision),
}
_SWITCHES = {"true": True, "false": False}
_FROM_ZERO = ("zero_stage", "cached_layers")


def read_constraints(
    fix: Sequence[str] = (), least: Sequence[str] = (), most: Sequence[str] = (), free: Sequence[str] = ()
) -> Constraints:
    """Constraints from the texts of repeated options; `free` may be `all`.

    Raises:
        TuningError: unknown fields, wrong values, fields given twice, limits that contradict, all at once.
    """
    faults: list[str] = []
    fixed = {name: _fixed(name, text, faults) for name, text in _pairs("--fix", fix, faults).items()}
    smallest = {
        name: _count("--min", name, text, faults) for name, text in _pairs("--min", least, faults).items()
    }
    largest = {
        name: _count("--max", name, text, faults) for name, text in _pairs("--max", most, faults).items()
    }
    wide = {name for text in free for name in (BY_NAME if text == "all" else (text,))}
    faults += [_unknown("--free", name) for name in sorted(wide - set(BY_NAME))]
    if not faults:
        faults = _contradictions(fixed, smallest, largest, wide if "all" not in free else set())
    if faults:
        raise TuningError(faults, "constraints")
    return Constraints(fixed, smallest, largest, frozenset(wide - set(fixed)))


def _unknown(option: str, name: str) -> str:
    return f"{option} {name}: no such dimension{did_you_mean(name, BY_NAME)} (known: {', '.join(BY_NAME)})"


def _pairs(option: str, texts: Sequence[str], faults: list[str]) -> dict[str, str]:
    """Fields and the texts of their values."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name or not value:
            faults.append(f"{option} {text!r} is not FIELD=VALUE, such as {option} tensor_x=8")
        elif name not in BY_NAME:
            faults.append(_unknown(option, name))
        elif name in found:
            hint = f"; write {name}={found[name]}|{value} for either" if option == "--fix" else ""
            faults.append(f"{option} {name} is given twice: {found[name]} and {value}{hint}")
        else:
            found[name] = value
    return found


def _fixed(name: str, text: str, faults: list[str]) -> tuple[Any, ...]:
    """Values of `--fix`, those between bars."""
    found = []
    for part in text.split("|"):
        try:
            found.append(_value(name, part.strip()))
        except ValueError as error:
            faults.append(f"--fix {name}={part.strip()}: {error}")
    return tuple(dict.fromkeys(found))


def _value(name: str, text: str) -> Any:
    """One value of a dimension; raises ValueError with what it must be."""
    kind = BY_NAME[name].kind
    if kind == "count":
        return _number(name, text)
    if kind == "switch":
        if text not in _SWITCHES:
            raise ValueError("must be true or false")
        return _SWITCHES[text]
    if kind == "order":
        order = tuple(part.strip() for part in text.strip("[]").split(","))
        if sorted(order) != sorted(DEFAULT_RANK_ORDER):
            raise ValueError(
                f"must name each of {', '.join(DEFAULT_RANK_ORDER)} once, innermost first, by commas"
            )
        return order
    known = _NAMES[name]
    if text not in known:
        raise ValueError(f"must be one of {', '.join(known)}{did_you_mean(text, known)}")
    return text


def _number(name: str, text: str) -> int:
    smallest = 0 if name in _FROM_ZERO else 1
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not smallest <= number <= LARGEST_COUNT:
        raise ValueError(f"must be a whole number from {smallest} to {LARGEST_COUNT}")
    return number


def _count(option: str, name: str, text: str, faults: list[str]) -> int:
    """A limit of a count."""
    if BY_NAME[name].kind != "count":
        counts = ", ".join(each.name for each in BY_NAME.values() if each.kind == "count")
        faults.append(f"{option} {name}: it has no order; limits are for {counts}; use --fix {name}=...")
        return 0
    try:
        return _number(name, text)
    except ValueError as error:
        faults.append(f"{option} {name}={text}: {error}")
        return 0


def _contradictions(
    fixed: dict[str, tuple[Any, ...]], least: dict[str, int], most: dict[str, int], free: set[str]
) -> list[str]:
    """Constraints that no value can meet, or that take each other back."""
    faults = [
        f"--min {name}={least[name]} is above --max {name}={most[name]}; no value lies between"
        for name in least
        if name in most and least[name] > most[name]
    ]
    for name, wanted in fixed.items():
        limits = (least.get(name, -1), most.get(name, 1 << 62))
        if (name in least or name in most) and not any(limits[0] <= each <= limits[1] for each in wanted):
            given = "|".join(map(str, wanted))
            faults.append(f"--fix {name}={given} lies outside of its --min or --max; drop one of them")
    faults += [
        f"--free {name} and --fix {name} contradict; drop one of them" for name in sorted(free & set(fixed))
    ]
    return faults
