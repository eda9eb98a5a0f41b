"""How well the fit predicts runs that it has not seen: groups of runs left out, and whole sources.

For every left-out row the factors are fitted again without its group (or source), and its step is predicted anew with
them. Groups are those of `rates.group_of`; ten folds by a checksum of the group's name, so that the answer does not
depend on the order of rows. A stack that occurs in the left-out part alone has no factor then: it takes the level
that all stacks share, and such a device takes 1. `make validate` writes what is found beside the published runs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

from towtank.validation.conformal import fold_of
from towtank.validation.evaluate import Result, likeness
from towtank.validation.express import Expressed, express
from towtank.validation.factors import ANCHOR, Fit, fit
from towtank.validation.figures import Figure, figure_of
from towtank.validation.grouping import group_of, in_group, source_family
from towtank.validation.parallel import Progress, in_parallel
from towtank.validation.rates import Observation, factors_of, predict_at
from towtank.validation.rows import PUBLISHED, Run

FILE = PUBLISHED / "cross_validation.json"
FOLDS = 10


@dataclass(frozen=True, slots=True)
class SourceErrors:
    """Errors of one source with the factors in force, and with factors fitted without it."""

    rows: int
    fitted: float
    left_out: float
    unknown: tuple[str, ...]
    """Stacks and devices of it for which no factor is left."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Errors of step time of the runs, Nanotron sweep apart, as fractions."""

    rows: int
    groups: int
    folds: int
    fitted_median: float
    fitted_mean: float
    grouped_median: float
    grouped_mean: float
    sources_median: float
    sources_mean: float
    sources: Mapping[str, SourceErrors]

    @property
    def ratio(self) -> float:
        """Median error of left-out groups over that of the fit."""
        return self.grouped_median / self.fitted_median


Part = Callable[[str, str], object]
"""Part of the runs that is left out together with a run, from its group and the family of its source."""


def by_fold(group: str, _source: str) -> int:
    """Part of a run in grouped cross-validation."""
    return fold_of(group, FOLDS)


def by_source(_group: str, source: str) -> str:
    """Part of a run where whole sources are left out."""
    return source


def refit_for(
    observations: Sequence[Observation], rows: Sequence[Result], part: Part
) -> list[tuple[Fit, float]]:
    """For each row the fit without the part that it belongs to, and the rate that this gives it."""
    fits: dict[object, Fit] = {}
    found = []
    for result in rows:
        own = part(group_of(result.run), source_family(result.run.source))
        if own not in fits:
            fits[own] = fit([each for each in observations if part(each.group, each.source) != own])
        found.append((fits[own], fits[own].rate(factors_of(result.stack), result.device)))
    return found


def step_times(task: tuple[Run, Sequence[float]]) -> list[float]:
    """Predicted step times in seconds of one run at several rates."""
    run, rates = task
    expressed = express(run)
    assert isinstance(expressed, Expressed), f"{run.id} was expressed before"
    return [expressed.step_share * predict_at(expressed, rate).step_time_s for rate in rates]


def cross_validate(
    observations: Sequence[Observation],
    results: Sequence[Result],
    jobs: int | None = None,
    progress: Progress | None = None,
) -> CrossValidation:
    """Leave out groups and sources. `results` are predictions with the factors in force; of them the complete
    rows count, the erratic sweep apart."""
    rows = [
        row
        for row in results
        if row.run.gate is not False and row.error is not None and not in_group(row, "chaotic")
    ]
    grouped, sources = (refit_for(observations, rows, part) for part in (by_fold, by_source))
    tasks = [(row.run, (one[1], other[1])) for row, one, other in zip(rows, grouped, sources, strict=True)]
    predicted = in_parallel(step_times, tasks, _likeness, jobs, progress)
    in_force = [abs(row.error or 0.0) for row in rows]
    errors = [
        [abs(seconds / (row.run.step_time_s or 1.0) - 1) for seconds in both]
        for row, both in zip(rows, predicted, strict=True)
    ]
    of_groups, of_sources = [one for one, _ in errors], [other for _, other in errors]
    return CrossValidation(
        len(rows),
        len({group_of(row.run) for row in rows}),
        FOLDS,
        median(in_force),
        fmean(in_force),
        median(of_groups),
        fmean(of_groups),
        median(of_sources),
        fmean(of_sources),
        _by_source(rows, in_force, of_sources, [one for one, _ in sources]),
    )


def _likeness(task: tuple[Run, Sequence[float]]) -> tuple[str, ...]:
    return likeness(task[0])


def _by_source(
    rows: Sequence[Result], in_force: Sequence[float], left_out: Sequence[float], fits: Sequence[Fit]
) -> dict[str, SourceErrors]:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(source_family(row.run.source), []).append(place)
    return {
        name: SourceErrors(
            len(own),
            median(in_force[place] for place in own),
            median(left_out[place] for place in own),
            tuple(sorted({name for place in own for name in _unknown(rows[place], fits[place])})),
        )
        for name, own in sorted(places.items())
    }


def _unknown(row: Result, without: Fit) -> list[str]:
    """Stack and device of a row for which a fit has no factor."""
    stack = factors_of(row.stack)
    found = [] if stack in without.stacks else [stack]
    return found if row.device == ANCHOR or row.device in without.devices else [*found, row.device]


def write(found: CrossValidation, path: Path = FILE) -> None:
    """Write the record that reports read."""
    path.write_text(json.dumps(_rounded(asdict(found)), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return round(value, 5) if isinstance(value, float) else value


@lru_cache(maxsize=4)
def recorded(path: Path = FILE) -> CrossValidation:
    """What `make validate` found on the shipped runs.

    Raises:
        OSError: there is no record; `make validate` writes it.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    sources = {
        name: SourceErrors(one["rows"], one["fitted"], one["left_out"], tuple(one["unknown"]))
        for name, one in data.pop("sources").items()
    }
    return CrossValidation(**data, sources=sources)


def cross_validation_figures(found: CrossValidation) -> list[Figure]:
    """Its figures. They belong to the shipped runs, to which factors were fitted, whatever runs a report is on."""
    values = {
        "cross_validation_ratio": found.ratio,
        "cross_validation_median": found.grouped_median,
        "left_out_source_median": found.sources_median,
    }
    return [figure_of(key, value, found.rows) for key, value in values.items()]
