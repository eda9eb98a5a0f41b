"""How far a study or a Pareto front is, on the standard error stream, where a person watches."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from towtank.cli.text import count

if TYPE_CHECKING:
    from towtank.autotune.study.records import Finished, Measure, StudyCounts


@contextmanager
def study_bar(
    total: int, measures: "Sequence[Measure]"
) -> "Iterator[Callable[[StudyCounts, Finished | None], None]]":
    """A bar with the counts of a study and its best so far."""
    with _bar("plans tried") as update:

        def show(counts: "StudyCounts", best: "Finished | None") -> None:
            update(min(counts.finished, total), total, study_words(counts, best, measures))

        yield show


@contextmanager
def front_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar with the plans of a space that were looked at."""
    with _bar("plans") as update:
        yield lambda done, of: update(done, of, f"{count(done)} of {count(of)}")


def study_words(counts: "StudyCounts", best: "Finished | None", measures: "Sequence[Measure]") -> str:
    """Counts of a study under way, such as `96 tried, 3 do not fit, 4 running, best 61.20 s`."""
    from towtank.cli.tune_study_text import figure

    words = [f"{count(counts.finished)} tried", f"{count(counts.infeasible)} do not fit"]
    words += [f"{count(counts.running)} running"] if counts.running else []
    words += [f"{count(counts.retried)} begun again"] if counts.retried else []
    words += [f"best {figure(measures[0], best.outcome.values[0])}"] if best is not None else []
    return ", ".join(words)


@contextmanager
def _bar(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar for the time of the block; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda done, of, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task(description, total=None, words="")

        def update(done: int, of: int, words: str) -> None:
            bar.update(line, completed=done, total=of, words=words)

        yield update
