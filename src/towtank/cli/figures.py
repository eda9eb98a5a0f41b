"""Every figure of a profile with its source, as `show` prints it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towtank.hardware_profiles.catalogue import FigureRow


def print_figures(rows: "Sequence[FigureRow]", json: bool) -> None:
    """Print figures with sources as a table, sources numbered below it, or as JSON."""
    from towtank.cli.text import emit, emit_json, paragraph, table

    if json:
        from dataclasses import asdict

        emit_json({"figures": [asdict(row) for row in rows]})
        return
    numbers: dict[tuple[str, str], int] = {}
    cells = []
    for row in rows:
        mark = ""
        if row.source is not None and row.provenance is not None:
            mark = f"[{numbers.setdefault((row.provenance, row.source), len(numbers) + 1)}]"
        cells.append((row.field, row.value, row.provenance or "", mark))
    emit(table(cells))
    if numbers:
        emit(
            "\nsources\n"
            + "\n".join(paragraph(f"[{n}] {text} ({kind})") for (kind, text), n in numbers.items())
        )
