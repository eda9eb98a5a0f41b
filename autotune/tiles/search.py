"""Search for the fastest tile: Optuna proposes, a model weeds out, and what is left is measured.

Each measurement corrects the predictions of the tiles that are like it. A proposal is run only if it may be faster
than the best so far, by its corrected prediction less the doubt in it; else the study is told that prediction.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from towtank.autotune.tiles.correction import Correction
from towtank.kernels.records import Tile

if TYPE_CHECKING:
    import optuna

FIRST = 5
"""Tiles that are measured, the most promising first, before the study proposes any: it needs some to start from."""
OPTIMISM = 1.0
"""Standard deviations of a prediction's doubt that count in favour of a tile."""
PROPOSALS = 10
"""Proposals in a row that may be weeded out; then the most promising tile that is left is measured."""

Predict = Callable[[Tile], float]
Measure = Callable[[Tile], float | None]
"""Seconds of a tile; None where it may not be used."""
Key = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """When a search ends."""

    seconds: float = float("inf")
    trials: int = 1_000_000
    """Measurements."""


@dataclass(slots=True)
class Found:
    """What a search has measured, in order."""

    measured: dict[Key, float] = field(default_factory=dict)
    refused: list[Tile] = field(default_factory=list)
    """Tiles that did not pass validation."""
    weeded: int = 0
    """Proposals that the model spared us."""

    @property
    def best(self) -> tuple[Tile, float]:
        """The fastest tile and its seconds.

        Raises:
            ValueError: nothing was measured.
        """
        key = min(self.measured, key=self.measured.__getitem__)
        return dict(key), self.measured[key]

    def fastest(self, number: int) -> list[Tile]:
        """Tiles by time, the fastest first."""
        return [dict(key) for key in sorted(self.measured, key=self.measured.__getitem__)[:number]]


def key_of(tile: Tile) -> Key:
    """A tile as something that can be looked up, whatever the order of its parameters."""
    return tuple(sorted(tile.items()))


def search(
    tiles: Sequence[Tile],
    predict: Predict,
    measure: Measure,
    budget: Budget,
    *,
    seed: int = 0,
    known: Iterable[tuple[Tile, float]] = (),
    progress: Callable[[Found], None] = lambda found: None,
) -> Found:
    """Measure promising tiles until the budget is spent or none is left.

    Args:
        tiles: the space, the default first; all have the same parameters.
        predict: seconds by a model, or anything that is larger for slower tiles.
        measure: runs a tile that has been validated.
        budget: wall-clock seconds and measurements; what is `known` counts for neither.
        seed: of the study.
        known: measurements of an earlier search of the same, which is gone on with.
        progress: called after each measurement.
    """
    end = time.monotonic() + budget.seconds
    run = _Run(tiles, predict, seed)
    for tile, seconds in known:
        run.tell(tile, seconds)
    spent = 0
    while run.left and spent < budget.trials and (spent == 0 or time.monotonic() < end):
        tile = run.propose()
        run.tell(tile, measure(tile))
        spent += 1
        progress(run.found)
    return run.found


class _Run:
    """State of one search."""

    def __init__(self, tiles: Sequence[Tile], predict: Predict, seed: int) -> None:
        self._tiles = {key_of(tile): place for place, tile in enumerate(tiles)}
        self._correction = Correction(tiles, [predict(tile) for tile in tiles])
        self._seconds = self._correction.seconds()
        self.left = dict.fromkeys(self._tiles)
        self.found = Found()
        self._seed = seed
        self._choices = {name: sorted({tile[name] for tile in tiles}) for name in tiles[0]}
        self._study: optuna.Study | None = None

    def propose(self) -> Tile:
        """The next tile to measure."""
        if len(self.found.measured) < FIRST:
            return self._most_promising()
        study = self._ensure_study()
        limit = self.found.best[1]
        for _ in range(PROPOSALS):
            trial = study.ask()
            tile = {name: trial.suggest_categorical(name, values) for name, values in self._choices.items()}
            key = key_of(tile)
            if key in self.found.measured:
                study.tell(trial, self.found.measured[key])
            elif key not in self.left:  # parameters that do not go together, or a tile that may not be used
                study.tell(trial, state=_pruned())
            elif self._seconds[self._tiles[key]] < limit:
                study.tell(trial, state=_pruned())  # its measurement is added by `tell`
                return tile
            else:
                self.found.weeded += 1
                study.tell(trial, float(self._seconds[self._tiles[key]]))
        return self._most_promising()

    def _most_promising(self) -> Tile:
        keys = list(self.left)
        return dict(keys[int(self._seconds[[self._tiles[key] for key in keys]].argmin())])

    def tell(self, tile: Tile, seconds: float | None) -> None:
        """Note a measurement, or that the tile may not be used."""
        key = key_of(tile)
        if key not in self._tiles:
            return
        self.left.pop(key, None)
        if seconds is None:
            self.found.refused.append(tile)
            return
        self.found.measured[key] = seconds
        self._correction.add(self._tiles[key], seconds)
        self._seconds = self._correction.seconds(OPTIMISM)
        if self._study is not None:
            self._add(self._study, tile, seconds)

    def _ensure_study(self) -> "optuna.Study":
        if self._study is None:
            import optuna

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            sampler = optuna.samplers.TPESampler(seed=self._seed, n_startup_trials=FIRST)
            self._study = optuna.create_study(sampler=sampler)
            for key, seconds in self.found.measured.items():
                self._add(self._study, dict(key), seconds)
        return self._study

    def _add(self, study: "optuna.Study", tile: Mapping[str, int], seconds: float) -> None:
        import optuna

        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(values)
            for name, values in self._choices.items()
        }
        study.add_trial(
            optuna.trial.create_trial(params=dict(tile), distributions=distributions, value=seconds)
        )


def _pruned() -> "optuna.trial.TrialState":
    import optuna

    return optuna.trial.TrialState.PRUNED
