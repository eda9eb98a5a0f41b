"""AxoNN's ranking of grids as a person likes to read it."""

from typing import TYPE_CHECKING

from towtank.cli.text import count, gibibytes, paragraph, percent, seconds, table

if TYPE_CHECKING:
    from pathlib import Path

    from towtank.autotune.axonn_method import AxonnRanking, GridRow

_HEADS = ("AxoNN", "simulated", "x", "y", "z", "data", "communication", "step", "memory", "micro-batch")


def axonn_answer(ranking: "AxonnRanking", output: "Path | None", json: bool) -> None:
    """Print a ranking; `output` is where the fastest of its first grids was written; None: nowhere."""
    from towtank.cli.text import emit, emit_json

    if json:
        from towtank.autotune.axonn_method import axonn_to_mapping

        emit_json(axonn_to_mapping(ranking) | ({} if output is None else {"output": str(output)}))
        return
    emit(axonn_text(ranking))
    if output is not None:
        emit(f"\nplan: {output} (the fastest of AxoNN's first {len(ranking.rows)} grids)")


def axonn_text(ranking: "AxonnRanking") -> str:
    """Both rankings, the simulator's choice and what it gains over tensor parallelism in the node with HSDP."""
    from towtank.autotune.axonn_method import difference_in_choice

    heading = (
        f"AxoNN's communication model ranks {count(ranking.num_feasible)} grids (x·y·z at least "
        f"{ranking.min_tensor}); its bandwidths are {ranking.bandwidths}"
    )
    shown = list(ranking.rows)
    if all(row.grid != ranking.chosen.grid for row in shown):
        shown.append(ranking.chosen)
    order = sorted(shown, key=lambda row: row.step_time_s)
    rows = [_row(row, order.index(row) + 1) for row in shown]
    parts = [
        paragraph(heading, indent=0) + "\n" + table(rows, _HEADS, right=range(9)),
        paragraph(f"{difference_in_choice(ranking)}.", indent=0),
        paragraph(_gain(ranking), indent=0),
    ]
    notes = [
        *(f"number {row.rank}: {row.why_not}" for row in _first_of_each_reason(shown)),
        *(f"theoretical bandwidths: {text}" for text in ranking.assumptions),
    ]
    if notes:
        parts.append("Mind\n" + "\n".join(paragraph(f"- {text}") for text in notes))
    return "\n\n".join(parts)


def _first_of_each_reason(rows: "list[GridRow]") -> "list[GridRow]":
    """The first row of each reason why grids do not run."""
    found = {row.why_not: row for row in reversed(rows) if row.why_not}
    return sorted(found.values(), key=lambda row: row.rank)


def _row(row: "GridRow", place: int) -> tuple[str, ...]:
    grid = row.grid
    degrees = tuple(map(str, (grid.x, grid.y, grid.z, grid.data)))
    communication = seconds(row.communication.total_s)
    if row.prediction is None:
        return (str(row.rank), "-", *degrees, communication, "-", "-", "does not run")
    plan = row.prediction.plan
    cached = f", {plan.cached_layers} layers cached" if plan.cached_layers else ""
    return (
        str(row.rank),
        str(place),
        *degrees,
        communication,
        seconds(row.prediction.step_time_s),
        gibibytes(row.prediction.peak_memory_bytes),
        f"{plan.micro_batch}{cached}",
    )


def _gain(ranking: "AxonnRanking") -> str:
    if ranking.baseline is None or ranking.gain is None:
        return "No grid with tensor parallelism in the node and HSDP is among them."
    base = ranking.baseline.grid
    return (
        f"Tensor parallelism in the node plus HSDP (x {base.x}, z {base.z}, data {base.data}) takes "
        f"{seconds(ranking.baseline.step_time_s)}: the best grid is {percent(ranking.gain)} faster."
    )
