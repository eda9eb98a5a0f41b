"""Searches played against recorded times: how many measurements until a tile within 5 % of the best is found.

`python -m towtank.autotune.tiles.replay` prints the table. The model knows nothing of the shape that is searched: its
rates are fitted to the others.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from statistics import median

from towtank.autotune.tiles.captures import Record, load, shipped
from towtank.autotune.tiles.cpu_model import Cpu
from towtank.autotune.tiles.fit import left_out, recorded_cpu
from towtank.autotune.tiles.search import Budget, Found, key_of, search

WITHIN = 1.05
SEEDS = range(20)


@dataclass(frozen=True, slots=True)
class Replay:
    """Measurements that searches of one shape took, as medians over seeds."""

    shape: tuple[int, ...]
    tiles: int
    good: int
    """Tiles within 5 % of the best."""
    search: float
    random: float
    """Of tiles measured in random order."""


class _Reached(Exception):  # noqa: N818 - ends a search that has what it needs
    pass


def trials_of_search(records: Sequence[Record], predicted: Sequence[float], seed: int) -> int:
    """Measurements until the search has a tile within 5 % of the best."""
    times = {key_of(each.tile): each.least_s for each in records}
    model = {key_of(each.tile): time for each, time in zip(records, predicted, strict=True)}
    goal = WITHIN * min(times.values())

    def check(found: Found) -> None:
        if found.best[1] <= goal:
            trials.append(len(found.measured))
            raise _Reached

    trials: list[int] = []
    with suppress(_Reached):
        search(
            [each.tile for each in records],
            lambda tile: model[key_of(tile)],
            lambda tile: times[key_of(tile)],
            Budget(trials=len(records)),
            seed=seed,
            progress=check,
        )
    return trials[0]


def trials_of_random(records: Sequence[Record], seed: int) -> int:
    """The same for tiles in random order."""
    times = [each.least_s for each in records]
    goal = WITHIN * min(times)
    Random(seed).shuffle(times)
    return next(number for number, time in enumerate(times, 1) if time <= goal)


def replays(name: str, cpu: Cpu, seeds: Sequence[int] = SEEDS) -> Iterator[Replay]:
    """Searches of every shape of a capture."""
    capture = load(name)
    for shape, predicted, _ in left_out(capture, cpu):
        records = capture.of(shape)
        goal = WITHIN * min(each.least_s for each in records)
        yield Replay(
            shape,
            len(records),
            sum(each.least_s <= goal for each in records),
            median(trials_of_search(records, list(predicted), seed) for seed in seeds),
            median(trials_of_random(records, seed) for seed in seeds),
        )


def main() -> None:
    """Print the table."""
    for name in shipped():
        print(f"{name}: measurements until a tile within 5 % of the best, medians over {len(SEEDS)} seeds")
        print("shape           tiles  within 5 %  search  random order")
        for each in replays(name, recorded_cpu()):
            shape = "x".join(map(str, each.shape))
            print(f"{shape:15} {each.tiles:5d}  {each.good:10d}  {each.search:6.1f}  {each.random:12.1f}")


if __name__ == "__main__":
    main()
