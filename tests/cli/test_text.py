import pytest

from towtank.cli import text


@pytest.mark.parametrize(
    ("value_s", "printed"),
    [
        (0.0, "0 s"), (92.139, "92.14 s"), (1.0, "1.000 s"), (0.99996, "1.000 s"), (0.5, "500.0 ms"),
        (0.0123456, "12.35 ms"), (1.5e-6, "1.500 us"), (2e-9, "0.002000 us"), (12345.6, "12,346 s"),
    ],
)  # fmt: skip
def test_seconds(value_s: float, printed: str) -> None:
    assert text.seconds(value_s) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [(0, "0"), (9.99996, "10.00"), (0.05, "0.05000"), (123456, "123,456"), (-2.5, "-2.500")],
)
def test_significant(value: float, printed: str) -> None:
    assert text.significant(value) == printed


def test_parameters_and_sizes() -> None:
    assert [text.parameters(n) for n in (405853388800, 1.008e12, 125e6, 900)] == [
        "405.9B",
        "1.008T",
        "125M",
        "900",
    ]
    assert text.gibibytes(80 * 2**30) == "80.0 GiB"
    assert text.percent(0.4375) == "43.8 %"


def test_bar_is_rounded_and_stays_in_its_width() -> None:
    lengths = [len(text.bar(fraction, 10)) for fraction in (-1.0, 0.0, 0.04, 0.06, 0.5, 1.0, 2.0)]
    assert lengths == [0, 0, 0, 1, 5, 10, 10]


def test_table_aligns_and_wraps_its_last_column() -> None:
    printed = text.table([("a", "1", "x " * 60), ("bbb", "22", "y")], ("name", "no", "what"), right=(1,))
    lines = printed.splitlines()
    assert lines[0] == "  name  no  what"
    assert lines[1].startswith("  a      1  x x")
    assert lines[2].startswith(" " * 12 + "x")
    assert lines[-1] == "  bbb   22  y"
    assert max(map(len, lines)) <= text.WIDTH
    assert text.table([]) == ""


def test_paragraph_does_not_break_names() -> None:
    name = "bigscience-workshop/bigscience:jz/frameworks/megatron-lm.md"
    assert name in text.paragraph("word " * 17 + name)
