"""Quantities with their unit in the text: parse them into SI floats and print them for people.

The only place that knows prefixes. k M G T P E are powers of 1000, Ki to Ei powers of 1024; B is a byte,
b or bit an eighth of it. A number without a unit is never a quantity.
"""

import difflib
import math
import re
from decimal import Decimal
from typing import Final, Literal

from towtank.hardware_profiles.errors import UnitError

Dimension = Literal["bytes", "bytes_per_s", "flop", "flop_per_s", "seconds", "watts", "usd_per_hour"]

_LARGE: Final = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SMALL: Final = {"n": -9, "u": -6, "µ": -6, "m": -3, "": 0}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LONG_TIMES: Final = {"min": 60, "h": 3600, "d": 86400}
_QUANTITY: Final = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)\s*(\S.*)?")

_EXAMPLES: Final[dict[Dimension, str]] = {
    "bytes": "80 GiB",
    "bytes_per_s": "25 GB/s",
    "flop": "1e24 FLOP",
    "flop_per_s": "312 TFLOP/s",
    "seconds": "5 us",
    "watts": "400 W",
    "usd_per_hour": "1.5 USD/h",
}


def unit_names(dimension: Dimension) -> list[str]:
    """Every way to write a unit of `dimension`."""
    return [name for name, (kind, _) in _UNITS.items() if kind == dimension]


def _unit_table() -> dict[str, tuple[Dimension, Decimal]]:
    """Every unit with its dimension and its size in SI (bytes, seconds, FLOP, watts; dollars an hour)."""
    table: dict[str, tuple[Dimension, Decimal]] = {"USD/h": ("usd_per_hour", Decimal(1))}
    large = {prefix: Decimal(10) ** power for prefix, power in _LARGE.items()}
    binary = {prefix: Decimal(2) ** power for prefix, power in _BINARY.items()}
    for prefix, factor in {**large, **binary}.items():
        for base, size in (("B", Decimal(1)), ("bit", Decimal("0.125")), ("b", Decimal("0.125"))):
            table[f"{prefix}{base}"] = ("bytes", factor * size)
            table[f"{prefix}{base}/s"] = ("bytes_per_s", factor * size)
    for prefix, factor in large.items():
        table[f"{prefix}FLOP"] = ("flop", factor)
        table[f"{prefix}FLOP/s"] = ("flop_per_s", factor)
        table[f"{prefix}W"] = ("watts", factor)
    table["mW"] = ("watts", Decimal("0.001"))
    for prefix, power in _SMALL.items():
        table[f"{prefix}s"] = ("seconds", Decimal(10) ** power)
    for unit, seconds in _LONG_TIMES.items():
        table[unit] = ("seconds", Decimal(seconds))
    return table


_UNITS: Final = _unit_table()


def parse_quantity(text: object, dimension: Dimension) -> float:
    """Return the SI value of `text`, such as 2.5e10 for "25 GB/s" with dimension "bytes_per_s".

    USD/h stays dollars an hour. Raises `UnitError` for a bare number, an unknown unit or one of another
    dimension, a negative value, and a value that a float cannot hold.
    """
    if not isinstance(text, str):
        raise UnitError(
            f"a quantity is text with a unit, got {text!r}; write it like {_EXAMPLES[dimension]!r}"
        )
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise UnitError(f"{text!r} is not a number and a unit; write it like {_EXAMPLES[dimension]!r}")
    number, unit = match.groups()
    if unit is None:
        raise UnitError(f"{text!r} has no unit; write it like {_EXAMPLES[dimension]!r}")
    factor = _factor(text, unit, dimension)
    value = float(Decimal(number) * factor)
    if value < 0:
        raise UnitError(f"{text!r} is negative; a quantity here is zero or more")
    if math.isinf(value):
        raise UnitError(f"{text!r} is too large for a float")
    return value


def _factor(text: str, unit: str, dimension: Dimension) -> Decimal:
    """Size of `unit` in SI; the errors tell an unknown unit from one of another dimension."""
    known = _UNITS.get(unit)
    if known is None:
        raise UnitError(f"{text!r} has the unknown unit {unit!r}{_suggestion(unit, dimension)}")
    if known[0] != dimension:
        raise UnitError(
            f"{text!r} is a quantity of {known[0]}, but {dimension} is needed; "
            f"write it like {_EXAMPLES[dimension]!r}"
        )
    return known[1]


def _suggestion(unit: str, dimension: Dimension) -> str:
    """Text that names the unit that was probably meant."""
    right = unit_names(dimension)
    same_letters = [name for name in right if name.lower() == unit.lower()]
    nearest = same_letters or difflib.get_close_matches(unit, right, n=3, cutoff=0.5)
    if not nearest:
        return f"; write it like {_EXAMPLES[dimension]!r}"
    return f"; did you mean {' or '.join(repr(name) for name in nearest[:3])}?"


def _scaled(value: float, steps: dict[str, float], unit: str, digits: int) -> str:
    """Value in the largest step of which it holds at least one after rounding, such as "25 GB/s"."""
    if value == 0 or not math.isfinite(value):
        base = next(prefix for prefix, size in steps.items() if size == 1)
        return f"{value:g} {base}{unit}"
    texts = {prefix: f"{value / size:.{digits}g}" for prefix, size in steps.items()}
    # Steps rise, so the last that fits is the largest; below all of them the smallest has to do.
    fitting = [prefix for prefix, text in texts.items() if abs(float(text)) >= 1] or [next(iter(steps))]
    text = texts[fitting[-1]]
    if "e+" in text:  # %g turns to an exponent above the largest step, and at 1020 with three digits
        text = f"{float(text):.0f}"
    return f"{text} {fitting[-1]}{unit}"


_DECIMAL_STEPS: Final = {prefix: 10.0**power for prefix, power in _LARGE.items()}
_BINARY_STEPS: Final = {"": 1.0, **{prefix: 2.0**power for prefix, power in _BINARY.items()}}
_TIME_STEPS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def format_bytes(value_bytes: float, *, digits: int = 4) -> str:
    """Print a memory size in binary units, such as "80 GiB"."""
    return _scaled(value_bytes, _BINARY_STEPS, "B", digits)


def format_rate(value_per_s: float, unit: Literal["B/s", "FLOP/s"], *, digits: int = 4) -> str:
    """Print a rate in decimal units, such as "25 GB/s" or "312 TFLOP/s"."""
    return _scaled(value_per_s, _DECIMAL_STEPS, unit, digits)


def format_flop(value_flop: float, *, digits: int = 4) -> str:
    """Print a number of operations, such as "1.5 EFLOP"."""
    return _scaled(value_flop, _DECIMAL_STEPS, "FLOP", digits)


def format_seconds(value_s: float, *, digits: int = 4) -> str:
    """Print a time in the largest unit that fits, from "3.4 us" to "12.5 d"."""
    return _scaled(value_s, _TIME_STEPS, "", digits)


def format_watts(value_w: float, *, digits: int = 4) -> str:
    """Print a power, such as "400 W" or "2.65 MW"."""
    return _scaled(value_w, {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}, "W", digits)


def format_quantity(value: float, dimension: Dimension) -> str:
    """Print an SI value of `dimension` with its unit; `parse_quantity` reads it back to four digits."""
    if dimension == "bytes":
        return format_bytes(value)
    if dimension == "bytes_per_s":
        return format_rate(value, "B/s")
    if dimension == "flop_per_s":
        return format_rate(value, "FLOP/s")
    if dimension == "flop":
        return format_flop(value)
    if dimension == "seconds":
        return format_seconds(value)
    return format_watts(value) if dimension == "watts" else f"{value:.4g} USD/h"
