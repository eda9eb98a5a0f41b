"""The figures that say how good the project is, each beside its target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from towtank.validation.evaluate import Result
from towtank.validation.grouping import definitions, grouped, in_group, is_narrow, resolution, sweeps
from towtank.validation.regret import choices, loss_of
from towtank.validation.statistics import (
    best_half,
    best_plan_loss,
    errors_of,
    flagged_as_failing,
    memory_errors,
    pairs_ordered,
    predicted_to_fit,
    rank_correlation,
    slope_per_doubling,
)

_ENOUGH = 10
"""Rows from which a device is judged on its own."""
_SMALLEST_SWEEP = 3
_LIMITS = {"at_most", "at_least", "within", "between"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in its own unit (percent where `unit` is %), how many rows it stands on, and its target."""

    key: str
    text: str
    value: float | None
    rows: int
    unit: str
    target: str
    reached: bool | None
    """None where there are no rows, or no target."""

    @property
    def verdict(self) -> str:
        """Whether the target is reached, as a word; a dash where there is none."""
        return "-" if self.reached is None else "yes" if self.reached else "no"


Measured = tuple[float | None, int]
"""A value (a fraction where the unit is % or points) and the number of rows."""


def figures(results: Sequence[Result], failed: Sequence[Result] = ()) -> list[Figure]:
    """All figures of groups.yaml that follow from the rows; `failed` are runs that did not succeed.

    Rows with gate = 0 are left out; a file without that column counts whole.
    """
    rows = [result for result in results if result.run.gate is not False]
    values = {name: measure(rows) for name, measure in _MEASURES.items()}
    values["failed_flagged"] = (flagged_as_failing(failed), len(failed))
    wanted = definitions()["figures"]
    return [figure_of(key, value, count) for key, (value, count) in values.items() if key in wanted]


def figure_of(key: str, value: float | None, rows: int) -> Figure:
    """A figure beside its target. `value` is a fraction where the unit is % or points."""
    spec: Mapping[str, Any] = definitions()["figures"][key]
    if value is not None and spec["unit"] in ("%", "points"):
        value *= 100
    return Figure(
        key,
        spec["text"],
        value,
        rows,
        spec["unit"],
        _target(spec),
        None if value is None else _reached(spec, value),
    )


def _target(spec: Mapping[str, Any]) -> str:
    if not _LIMITS & spec.keys():
        return "-"
    if "at_most" in spec:
        return f"at most {spec['at_most']}"
    if "at_least" in spec:
        return f"at least {spec['at_least']}"
    if "within" in spec:
        return f"within +/-{spec['within']}"
    return f"{spec['between'][0]} to {spec['between'][1]}"


def _reached(spec: Mapping[str, Any], value: float) -> bool | None:
    if not _LIMITS & spec.keys():
        return None
    if "at_most" in spec:
        return bool(value <= spec["at_most"])
    if "at_least" in spec:
        return bool(value >= spec["at_least"])
    if "within" in spec:
        return bool(abs(value) <= spec["within"])
    return bool(spec["between"][0] <= value <= spec["between"][1])


def _coverage(rows: Sequence[Result]) -> Measured:
    return (fmean(result.status == "ok" for result in rows), len(rows)) if rows else (None, 0)


def _calm(rows: Sequence[Result]) -> list[Result]:
    """Without the sweep whose times are erratic."""
    return [result for result in rows if not in_group(result, "chaotic")]


def dense(rows: Sequence[Result]) -> list[Result]:
    """Dense rows, the erratic sweep apart."""
    # a row that is not expressed has no model; its columns tell whether it has experts
    return [result for result in _calm(rows) if not (result.moe or result.run.moe_experts)]


def _median(rows: Sequence[Result]) -> Measured:
    errors = errors_of(rows)
    return errors.median, errors.expressed


def _mean(rows: Sequence[Result]) -> Measured:
    errors = errors_of(rows)
    return errors.mean, errors.expressed


def _skill(rows: Sequence[Result]) -> Measured:
    errors = errors_of(rows)
    return errors.skill, errors.expressed


def device_medians(rows: Sequence[Result]) -> dict[str, Measured]:
    """Median error of each device with enough rows, the erratic sweep apart."""
    groups = grouped(_calm(rows), lambda result: result.run.device)
    found = {device: _median(group) for device, group in groups.items()}
    return {device: measured for device, measured in found.items() if measured[1] >= _ENOUGH}


def _worst_device(rows: Sequence[Result]) -> Measured:
    found = [measured for measured in device_medians(rows).values() if measured[0] is not None]
    return max(found, key=lambda measured: measured[0] or 0.0, default=(None, 0))


def _chaotic_sweeps(rows: Sequence[Result]) -> list[list[Result]]:
    return list(sweeps(result for result in rows if in_group(result, "chaotic")).values())


def _nanotron_best_half(rows: Sequence[Result]) -> Measured:
    return _median([result for sweep in _chaotic_sweeps(rows) for result in best_half(sweep)])


def _median_over(found: Sequence[float | None]) -> Measured:
    values = [value for value in found if value is not None]
    return (median(values), len(values)) if values else (None, 0)


def _nanotron_spearman(rows: Sequence[Result]) -> Measured:
    return _median_over([rank_correlation(sweep) for sweep in _chaotic_sweeps(rows)])


def _ranking(rows: Sequence[Result]) -> Measured:
    return _median_over([rank_correlation(sweep) for sweep in sweeps(rows).values()])


def _best_plan(rows: Sequence[Result]) -> Measured:
    return _median_over(
        [best_plan_loss(sweep) for sweep in sweeps(rows).values() if len(sweep) >= _SMALLEST_SWEEP]
    )


def _regret_median(rows: Sequence[Result]) -> Measured:
    found = choices(rows)
    return (loss_of(found).median, len(found)) if found else (None, 0)


def _regret_p90(rows: Sequence[Result]) -> Measured:
    found = choices(rows)
    return (loss_of(found).p90, len(found)) if found else (None, 0)


def _pairs(rows: Sequence[Result]) -> Measured:
    counts = [pairs_ordered(sweep, resolution(name)) for name, sweep in sweeps(_calm(rows)).items()]
    right, total = sum(one for one, _ in counts), sum(all_ for _, all_ in counts)
    return (right / total, total) if total else (None, 0)


def _slope(rows: Sequence[Result]) -> Measured:
    calm = _calm(rows)
    return slope_per_doubling(calm), sum(
        result.error is not None and result.num_devices >= 64 for result in calm
    )


def _memory(rows: Sequence[Result]) -> Measured:
    found = [abs(error) for error in memory_errors(rows)]
    return (median(found), len(found)) if found else (None, 0)


def _successful(rows: Sequence[Result]) -> Measured:
    own = [result for result in rows if in_group(result, "chaotic")]
    return predicted_to_fit(own), len(own)


def _of_group(name: str) -> Callable[[Sequence[Result]], Measured]:
    return lambda rows: _mean([result for result in rows if in_group(result, name)])


_MEASURES: Mapping[str, Callable[[Sequence[Result]], Measured]] = {
    "coverage": _coverage,
    "dense_median": lambda rows: _median(dense(rows)),
    "dense_mean": lambda rows: _mean(dense(rows)),
    "dense_skill": lambda rows: _skill(dense(rows)),
    "worst_device_median": _worst_device,
    "nanotron_best_half_median": _nanotron_best_half,
    "nanotron_spearman": _nanotron_spearman,
    "moe_median": lambda rows: _median([result for result in rows if result.moe]),
    "narrow_median": lambda rows: _median([result for result in rows if is_narrow(result)]),
    "scale_slope": _slope,
    "pairs_ordered": _pairs,
    "ranking_spearman": _ranking,
    "best_plan_loss": _best_plan,
    "regret_median": _regret_median,
    "regret_p90": _regret_p90,
    "regret_p90_calm": lambda rows: _regret_p90(_calm(rows)),
    "memory_median": _memory,
    "successful_fit": _successful,
    "selective_mean": _of_group("selective_table_5"),
    "sc21_mean": _of_group("sc21_table_1"),
}
