"""How far a search is, on the standard error stream, where a person watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towtank.cli.text import count, seconds

if TYPE_CHECKING:
    from towtank.autotune.search.records import Progress, Report

_WORDS = {
    "plans": "legal plans",
    "probes": "first plans",
    "memory": "memory",
    "memory and bounds": "memory and bounds",
    "simulation": "simulated",
    "finalists": "finalists by the reference engine",
}


@contextmanager
def search_bar() -> "Iterator[Report]":
    """A bar for the time of a search; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("tune", total=None, words="")

        def show(progress: "Progress") -> None:
            known = progress.stage == "simulation" or (
                progress.stage in ("memory", "memory and bounds") and progress.done > 0
            )
            bar.update(
                line,
                description=_WORDS[progress.stage],
                completed=progress.done if known else 0,
                total=progress.of if known else None,
                words=progress_words(progress),
            )

        yield show


def progress_words(progress: "Progress") -> str:
    """Counts of a search under way, such as `96 of 1,204, best 61.20 s`."""
    words = []
    if progress.stage in ("memory", "memory and bounds") and not progress.done:
        words.append(f"of {count(progress.of)} plans")
    elif progress.stage in ("memory", "memory and bounds", "simulation"):
        words.append(f"{count(progress.done)} of {count(progress.of)}")
    if progress.best_s is not None:
        words.append(f"best {seconds(progress.best_s)}")
    return ", ".join(words)
