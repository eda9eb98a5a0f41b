"""Room that predicted peak memory needs: how far measured peaks are above predicted ones, from published runs.

Counted are runs whose predicted need fills a good part of the device, but not all of it. On an emptier one the
allocator keeps blocks that it would give back, and its reserved memory says little. On a fuller one a run that needs
more than predicted fails and is none of the rows: the error would be cut off. The margin is the 90th percentile of
measured over predicted peak, less 1, of the stack where it has enough runs, else of all runs.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from towtank.validation.evaluate import Result
from towtank.validation.grouping import definitions, group_of, grouped, source_family
from towtank.validation.statistics import quantile

FILE = Path(__file__).parent / "published" / "memory_margins.json"
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class MemoryMargin:
    """A share of the predicted peak that is kept free, and what it stands on."""

    share: float
    """0 or more; a plan is taken where predicted peak x (1 + share) fits."""
    rows: int
    """Published runs with a measured peak."""
    groups: int
    """Groups of (source, model, mapping) among them."""
    sources: tuple[str, ...]
    of: str
    """The stack that the runs are of, or `all stacks`."""


ALL = "all stacks"


def counted(results: Iterable[Result]) -> list[Result]:
    """Runs with a measured peak whose predicted need fills enough of the device; rows whose gate is 0 left out."""
    least, most = definitions()["memory_margin"]["filled"]
    return [
        result
        for result in results
        if result.memory_error is not None
        and result.run.gate is not False
        and result.predicted_peak_memory_bytes is not None
        and result.capacity_bytes is not None
        and least <= result.predicted_peak_memory_bytes / result.capacity_bytes <= most
    ]


def margin_from(rows: Sequence[Result], of: str = ALL) -> MemoryMargin:
    """The margin that these rows (at least one, each with a measured peak) lead to."""
    excess = sorted(1 / (1 + (result.memory_error or 0.0)) - 1 for result in rows)
    return MemoryMargin(
        share=round(max(0.0, quantile(excess, definitions()["memory_margin"]["quantile"])), _DIGITS),
        rows=len(rows),
        groups=len({group_of(result.run) for result in rows}),
        sources=tuple(sorted({source_family(result.run.source) for result in rows})),
        of=of,
    )


def to_mapping(results: Sequence[Result]) -> dict[str, Any]:
    """Content of the file that the search reads: margins of all stacks and of each with enough rows."""
    settings: Mapping[str, Any] = definitions()["memory_margin"]
    rows = counted(results)
    stacks = {
        stack: margin_from(group, stack)
        for stack, group in sorted(grouped(rows, lambda result: result.stack).items())
        if len(group) >= settings["enough_rows"]
    }
    return {
        "note": "written by `make validate` from the published runs with a measured peak; see "
        "validation/memory_margin.py",
        "settings": dict(settings),
        "margins": [asdict(margin) for margin in (margin_from(rows), *stacks.values())],
    }


def write(results: Sequence[Result]) -> None:
    """Write the file that the search reads."""
    FILE.write_text(json.dumps(to_mapping(results), indent=1) + "\n", encoding="utf-8")


@cache
def _shipped() -> Mapping[str, MemoryMargin]:
    data = json.loads(FILE.read_text(encoding="utf-8"))
    found = [MemoryMargin(**{**one, "sources": tuple(one["sources"])}) for one in data["margins"]]
    return {margin.of: margin for margin in found}


def memory_margin(stack: str) -> MemoryMargin:
    """The margin for plans of a stack, from the shipped validation.

    Raises:
        OSError: the file of margins is missing; `make validate` writes it.
    """
    found = _shipped()
    return found.get(stack, found[ALL])
