"""Work on many rows in several processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from os import cpu_count
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_CHUNK = 48
"""Rows of one task: enough to share cached shapes and schedules, few enough to balance workers."""
_WORTH_A_POOL = 64
"""Fewer rows are done sooner than workers start."""

Progress = Callable[[int, int], None]
"""Called with rows done and rows in all."""


def in_parallel(
    work: Callable[[T], R],
    items: Sequence[T],
    likeness: Callable[[T], Any],
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[R]:
    """`work` on every item, in the order of the items; `jobs` processes share it (None: one a core).

    `work` is a function of a module, so that workers find it. Items that sort together by `likeness` share machines,
    shapes and schedules, which a worker keeps.
    """
    jobs = min(jobs or cpu_count() or 1, max(1, len(items) // 8))
    tell = progress or (lambda done, total: None)
    if jobs == 1 or len(items) < _WORTH_A_POOL:
        return list(_one_by_one(work, items, tell))
    order = sorted(range(len(items)), key=lambda index: likeness(items[index]))
    chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
    results: dict[int, R] = {}
    # spawned, not forked: a caller may have threads, and workers must see the same modules either way
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        tasks = {pool.submit(_chunk, work, [items[index] for index in chunk]): chunk for chunk in chunks}
        for task in as_completed(tasks):
            results.update(zip(tasks[task], task.result(), strict=True))
            tell(len(results), len(items))
    return [results[index] for index in range(len(items))]


def _one_by_one(work: Callable[[T], R], items: Sequence[T], tell: Progress) -> Iterator[R]:
    for number, item in enumerate(items, start=1):
        yield work(item)
        tell(number, len(items))


def _chunk(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [work(item) for item in items]
