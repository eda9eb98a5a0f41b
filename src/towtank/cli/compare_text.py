"""What `towtank compare` prints."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from towtank.cli.prediction_text import layout
from towtank.cli.text import count, gibibytes, paragraph, percent, plural, seconds, significant, table

if TYPE_CHECKING:
    from towtank.autotune.reasons.compare import Row
    from towtank.simulator.predict import Prediction

_SMALLEST = 0.0005
"""Rows that are a smaller part of both are summed up."""
_HEADS = ("", "A", "B", "B - A", "")


def compare_text(a: "Prediction", b: "Prediction", names: tuple[str, str]) -> str:
    """Two steps side by side, at most 100 columns wide."""
    from towtank.autotune.reasons.compare import compare

    found = compare(a, b)
    head = [_subject("A", names[0], a), _subject("B", names[1], b)]
    if found.changes:
        head.append(paragraph(f"A -> B: {found.changes}", indent=0))
    memory = (
        f"Memory of the fullest stage (A: stage {a.peak_stage.stage}, B: stage {b.peak_stage.stage})\n"
        + _memory_table(found.memory_bytes)
    )
    return "\n\n".join(
        [
            "\n".join(head),
            _totals(found.totals, a, b),
            "Where the step goes (mean over stages)\n"
            + _seconds_table(found.seconds, a.step_time_s, b.step_time_s),
            memory,
        ]
    )


def _subject(letter: str, name: str, prediction: "Prediction") -> str:
    plan, machine = prediction.plan, prediction.machine
    return paragraph(
        f"{letter}  {name}: {prediction.model.name} on {plural(plan.num_devices, machine.device.unit)} of "
        f"{machine.name} under {prediction.stack.name}, {layout(plan)}, {count(plan.global_batch)} sequences",
        indent=0,
    )


def _change(row: "Row") -> str:
    return f"{100 * row.difference / row.a:+.1f} %" if row.a else ""


def _signed(value: float, printed: Callable[[float], str]) -> str:
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{printed(abs(value))}"


_TOTALS: Sequence[tuple[str, str, Callable[[float], str]]] = (
    ("devices", "devices", count),
    ("step_time_s", "step time", seconds),
    ("bound_s", "lower bound", seconds),
    ("tokens_per_step", "tokens a step", count),
    ("tokens_per_s", "tokens/s", significant),
    ("mfu", "MFU", percent),
    ("hfu", "HFU", percent),
    ("flop_per_s_per_device", "TFLOP/s a device", lambda value: significant(value / 1e12)),
    ("peak_memory_bytes", "memory at the peak", gibibytes),
    ("memory_capacity_bytes", "memory of a device", gibibytes),
)


def _totals(rows: "Sequence[Row]", a: "Prediction", b: "Prediction") -> str:
    by_name = {row.name: row for row in rows}
    cells: list[tuple[str, ...]] = []
    for name, label, printed in _TOTALS:
        row = by_name[name]
        cells.append((label, printed(row.a), printed(row.b), _signed(row.difference, printed), _change(row)))
    fits = ["yes" if prediction.fits else "NO" for prediction in (a, b)]
    cells.append(("fits", *fits, "", ""))
    return table(cells, _HEADS, right=(1, 2, 3, 4))


def _seconds_table(rows: "Sequence[Row]", step_a: float, step_b: float) -> str:
    shown = [row for row in rows if row.a >= _SMALLEST * step_a or row.b >= _SMALLEST * step_b]
    cells = [_seconds_row(row, step_a, step_b) for row in _with_rest(rows, shown)]
    return table(cells, ("", "A", "", "B", "", "B - A"), right=(1, 2, 3, 4, 5))


def _seconds_row(row: "Row", step_a: float, step_b: float) -> tuple[str, ...]:
    return (
        row.name,
        seconds(row.a),
        percent(row.a / step_a),
        seconds(row.b),
        percent(row.b / step_b),
        _signed(row.difference, seconds),
    )


def _memory_table(rows: "Sequence[Row]") -> str:
    cells = [
        (row.name, gibibytes(row.a), gibibytes(row.b), _signed(row.difference, gibibytes), _change(row))
        for row in _with_rest(rows, rows)
    ]
    return table(cells, _HEADS, right=(1, 2, 3, 4))


def _with_rest(rows: "Sequence[Row]", shown: "Sequence[Row]") -> "list[Row]":
    """The rows shown, the sum of the others, and the sum of all."""
    from towtank.autotune.reasons.compare import Row

    kept = {row.name for row in shown}
    rest = [row for row in rows if row.name not in kept]
    result = list(shown)
    if rest:
        result.append(Row(f"{len(rest)} smaller", sum(row.a for row in rest), sum(row.b for row in rest)))
    return [*result, Row("sum", sum(row.a for row in rows), sum(row.b for row in rows))]
