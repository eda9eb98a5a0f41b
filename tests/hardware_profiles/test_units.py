import math

import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.hardware_profiles.errors import ProfileError, UnitError
from towtank.hardware_profiles.units import (
    Dimension,
    format_bytes,
    format_flop,
    format_quantity,
    format_rate,
    format_seconds,
    format_watts,
    parse_quantity,
    unit_names,
)

DIMENSIONS: list[Dimension] = [
    "bytes",
    "bytes_per_s",
    "flop",
    "flop_per_s",
    "seconds",
    "watts",
    "usd_per_hour",
]


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("25 GB/s", "bytes_per_s", 25e9),
        ("25GB/s", "bytes_per_s", 25e9),
        (" 25 GB/s ", "bytes_per_s", 25e9),
        ("312 TFLOP/s", "flop_per_s", 312e12),
        ("80 GiB", "bytes", 80 * 1024**3),
        ("80 GB", "bytes", 80e9),
        ("5 us", "seconds", 5e-6),
        ("5 µs", "seconds", 5e-6),
        ("400 W", "watts", 400.0),
        ("2.65 MW", "watts", 2.65e6),
        ("200 Gbit/s", "bytes_per_s", 25e9),
        ("200 Gb/s", "bytes_per_s", 25e9),
        ("1.5 USD/h", "usd_per_hour", 1.5),
        ("1e24 FLOP", "flop", 1e24),
        ("2 d", "seconds", 172800.0),
        ("0 s", "seconds", 0.0),
        ("0.3 us", "seconds", 3e-7),  # not 0.3 * 1e-6, which is one unit in the last place off
    ],
)
def test_value_is_exact(text: str, dimension: Dimension, value: float) -> None:
    assert parse_quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "part"),
    [
        ("25", "bytes", "'25' has no unit"),
        (25, "bytes", "a quantity is text with a unit, got 25"),
        (None, "bytes", "got None"),
        ("", "bytes", "not a number and a unit"),
        ("GB", "bytes", "not a number and a unit"),
        ("nan s", "seconds", "not a number and a unit"),
        ("inf s", "seconds", "not a number and a unit"),
        ("1e999 s", "seconds", "too large"),
        ("1e9999999999 s", "seconds", "unknown unit"),
        ("-1 s", "seconds", "negative"),
        ("80 GiB", "seconds", "a quantity of bytes, but seconds is needed"),
        ("80 GB", "bytes_per_s", "a quantity of bytes, but bytes_per_s is needed"),
        ("25 gb/s", "bytes_per_s", "did you mean 'GB/s' or 'Gb/s'?"),
        ("80 KB", "bytes", "did you mean 'kB' or 'kb'?"),
        ("312 TFLOPS", "flop_per_s", "'TFLOP/s'"),
        ("3 parsec", "seconds", "unknown unit 'parsec'"),
        ("3 GB GB", "bytes", "unknown unit 'GB GB'"),
    ],
)
def test_wrong_quantity_says_what_is_wrong(text: object, dimension: Dimension, part: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_quantity(text, dimension)
    assert part in str(caught.value)
    assert isinstance(caught.value, ProfileError)


@pytest.fixture(scope="module")
def registry() -> "pint.UnitRegistry[float]":
    units: pint.UnitRegistry[float] = pint.UnitRegistry()
    units.define("FLOP = [operation]")
    units.define("USD = [money]")
    return units


SI_UNIT = {
    "bytes": "byte",
    "bytes_per_s": "byte/s",
    "flop": "FLOP",
    "flop_per_s": "FLOP/s",
    "seconds": "s",
    "watts": "W",
    "usd_per_hour": "USD/h",
}


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_unit_agrees_with_pint(dimension: Dimension, registry: "pint.UnitRegistry[float]") -> None:
    # pint reads b as barn in places, so that it is spelled for it; everything else is the same text.
    for unit in unit_names(dimension):
        spelled = unit
        if dimension.startswith("bytes"):
            head, _, tail = unit.partition("/")
            if head.endswith("b"):
                spelled = head[:-1] + "bit" + (f"/{tail}" if tail else "")
        expected = registry.Quantity(1.0, spelled).to(SI_UNIT[dimension]).magnitude
        assert parse_quantity(f"1 {unit}", dimension) == pytest.approx(expected, rel=1e-12), unit


@given(
    number=st.floats(min_value=1e-3, max_value=1e9, allow_nan=False),
    choice=st.sampled_from([(d, u) for d in DIMENSIONS for u in unit_names(d)]),
)
def test_value_is_proportional_to_its_number(number: float, choice: tuple[Dimension, str]) -> None:
    dimension, unit = choice
    one = parse_quantity(f"1 {unit}", dimension)
    assert parse_quantity(f"{number!r} {unit}", dimension) == pytest.approx(number * one, rel=1e-12)


@given(value=st.floats(min_value=1e-12, max_value=1e26), dimension=st.sampled_from(DIMENSIONS))
def test_printed_quantity_reads_back(value: float, dimension: Dimension) -> None:
    text = format_quantity(value, dimension)
    smallest = 0.001 if dimension not in ("seconds",) else 1e-12
    if value >= smallest:
        assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-3)


@given(text=st.text(max_size=12), dimension=st.sampled_from(DIMENSIONS))
def test_any_text_is_a_finite_quantity_or_a_unit_error(text: str, dimension: Dimension) -> None:
    try:
        value = parse_quantity(text, dimension)
    except UnitError:
        return
    assert value >= 0
    assert math.isfinite(value)


def test_printed_forms() -> None:
    assert format_bytes(80 * 2**30) == "80 GiB"
    assert format_bytes(2**30 - 1) == "1 GiB"  # rounds up into the next prefix, not to 1024 MiB
    assert format_bytes(1023 * 2**20, digits=3) == "1020 MiB"
    assert format_bytes(0) == "0 B"
    assert format_rate(25e9, "B/s") == "25 GB/s"
    assert format_rate(312e12, "FLOP/s") == "312 TFLOP/s"
    assert format_rate(989.4e12, "FLOP/s") == "989.4 TFLOP/s"
    assert format_flop(1.5e18) == "1.5 EFLOP"
    assert format_seconds(3.4e-6) == "3.4 us"
    assert format_seconds(90) == "1.5 min"
    assert format_seconds(0) == "0 s"
    assert format_seconds(86400 * 20000) == "20000 d"
    assert format_watts(2.65e6) == "2.65 MW"
    assert format_watts(-3e3) == "-3 kW"
    assert format_seconds(math.inf) == "inf s"
