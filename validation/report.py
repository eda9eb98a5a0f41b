"""A validation as a whole: figures, tables and rows, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from towtank.hardware_profiles.calibration import calibration
from towtank.hardware_profiles.curves.left_out import KernelErrors
from towtank.validation.cross_validation import cross_validation_figures, recorded
from towtank.validation.evaluate import Result
from towtank.validation.figures import Figure, figures
from towtank.validation.grouping import KEYS, grouped, in_group, scale_order, sweeps
from towtank.validation.intervals import Interval, interval
from towtank.validation.kernel_tables import kernel_figures
from towtank.validation.regret import choices, choices_to_mapping
from towtank.validation.rows import Run
from towtank.validation.samples import interval_figures
from towtank.validation.statistics import (
    Errors,
    best_plan_loss,
    errors_of,
    memory_errors,
    rank_correlation,
)

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What a validation found."""

    results: tuple[Result, ...]
    failed: tuple[Result, ...]
    overall: Errors
    calm: Errors
    """The same without the sweep whose times are erratic."""
    tables: Mapping[str, Mapping[str, Errors]]
    """Errors by group, for each of the keys of `grouping.KEYS`; the erratic sweep is a source of its own and in no
    other table."""
    figures: tuple[Figure, ...]
    kernels: tuple[KernelErrors, ...] = ()
    """Errors of the kernel curves on left-out shapes."""


def report_on(
    results: Sequence[Result], failed: Sequence[Result] = (), kernels: Sequence[KernelErrors] = ()
) -> Report:
    """Sum up results; `failed` are runs that did not succeed, for the memory model, `kernels` the errors of kernel
    curves. Tables and figures are over rows whose gate is not 0."""
    rows = [result for result in results if result.run.gate is not False]
    calm = [result for result in rows if not in_group(result, "chaotic")]
    tables = {name: _table(name, rows if name == "source" else calm) for name in KEYS}
    return Report(
        tuple(results),
        tuple(failed),
        errors_of(rows),
        errors_of(calm),
        tables,
        (
            *figures(results, failed),
            *kernel_figures(kernels),
            *interval_figures(results),
            *cross_validation_figures(recorded()),
        ),
        tuple(kernels),
    )


def _table(name: str, rows: Sequence[Result]) -> dict[str, Errors]:
    timed = [result for result in rows if result.run.step_time_s is not None]
    # a row that is not expressed has no stack, scale or model of its own
    known = timed if name in ("device", "source") else [result for result in timed if result.status == "ok"]
    groups = grouped(known, KEYS[name])
    order = (
        sorted(groups, key=scale_order)
        if name == "devices"
        else sorted(groups, key=lambda key: -len(groups[key]))
    )
    return {key: errors_of(groups[key]) for key in order}


def worst(results: Sequence[Result], count: int = 15) -> list[Result]:
    """Rows with the largest errors, the erratic sweep apart."""
    judged = [
        result
        for result in results
        if result.error is not None and result.run.gate is not False and not in_group(result, "chaotic")
    ]
    return sorted(judged, key=lambda result: -abs(result.error or 0.0))[:count]


def interval_of(result: Result) -> Interval | None:
    """Interval of a predicted row; None where nothing was predicted."""
    if result.features is None or result.predicted_step_time_s is None:
        return None
    return interval(result.features, result.predicted_step_time_s)


def to_mapping(report: Report) -> dict[str, Any]:
    """The report as JSON: schema 1, a summary and every row of the file."""
    return {
        "schema": SCHEMA,
        "summary": _summary(report),
        "rows": [_row(result) for result in report.results],
    }


def _summary(report: Report) -> dict[str, Any]:
    expressed = sum(result.status == "ok" for result in report.results)
    found = [abs(error) for error in memory_errors(report.results)]
    return {
        "rows": len(report.results),
        "expressed": expressed,
        "coverage": expressed / len(report.results) if report.results else 0.0,
        "step_time": errors_mapping(report.overall),
        "step_time_without_erratic_sweep": errors_mapping(report.calm),
        "peak_memory": {"rows": len(found), "mean": sum(found) / len(found) if found else None},
        "tables": {
            name: {key: errors_mapping(errors) for key, errors in table.items()}
            for name, table in report.tables.items()
        },
        "sweeps": {
            name: {
                "rows": len(sweep),
                "spearman_of_rate": rank_correlation(sweep),
                "best_plan_loss": best_plan_loss(sweep),
            }
            for name, sweep in sweeps(report.results).items()
        },
        "choices": choices_to_mapping(choices(report.results)),
        "kernel_tables": [asdict(group) for group in report.kernels],
        "figures": [asdict(figure) for figure in report.figures],
        "cross_validation_of_shipped_runs": asdict(recorded()),
        "calibration": asdict(calibration()),
    }


def errors_mapping(errors: Errors) -> dict[str, Any]:
    """Errors as JSON; fractions."""
    return {
        **asdict(errors),
        "coverage": errors.coverage,
        "skill": errors.skill,
        "skill_median": errors.skill_median,
    }


def _row(result: Result) -> dict[str, Any]:
    """One row. The predicted peak is of what the source's figure counts, where it prints one; `fits` always goes by
    the whole need, `predicted_device_memory_bytes`."""
    one = interval_of(result)
    measured = result.measured_peak_memory_bytes
    return {
        "id": result.run.id,
        "status": result.status,
        "reason": result.reason,
        "predicted_step_time_s": result.predicted_step_time_s,
        "measured_step_time_s": result.run.step_time_s,
        "error": result.error,
        "interval_90_s": [one.low_s, one.high_s] if one else None,
        "extrapolated": bool(one.extrapolated) if one else None,
        "extrapolated_because": list(one.extrapolated) if one else [],
        "predicted_peak_memory_bytes": (
            result.predicted_peak_memory_bytes if measured is None else result.comparable_memory_bytes
        ),
        "measured_peak_memory_bytes": measured,
        "predicted_device_memory_bytes": result.predicted_peak_memory_bytes,
        "fits": result.fits,
        "stack": result.stack or None,
        "machine": result.machine or None,
        "assumptions": list(result.assumptions),
    }


def select(runs: Sequence[Run], expression: str) -> list[Run]:
    """The runs for which a pandas expression over the columns holds, such as `device == "b200" and gpus >= 64`.

    Numbers are numbers and `gate`, `gated_mlp`, `sequence_parallel`, `flash_attention` are 1 or 0; blank cells hold
    in no comparison.

    Raises:
        ValueError: the expression is not one, names no column, or does not answer yes or no for each row.
    """
    import pandas as pd

    from towtank.validation.rows import as_columns, columns

    table = pd.DataFrame(as_columns(runs))
    for name in table.columns:
        if table[name].map(lambda cell: cell is None or isinstance(cell, bool | int | float)).all():
            table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    try:
        answer = table.eval(expression, engine="python", parser="pandas")
        # a name such as `gate` alone is a column of numbers, not of answers
        if not isinstance(answer, pd.Series) or answer.dtype != bool:
            raise ValueError("it does not say yes or no for each row")
    except Exception as error:  # pandas raises whatever its parser meets
        raise ValueError(
            f"{expression!r} is not a condition on rows ({' '.join(str(error).split()) or type(error).__name__}); "
            f'write such as device == "h100-80gb-sxm" and gpus >= 64; columns: {", ".join(columns())}'
        ) from error
    return [run for run, chosen in zip(runs, answer, strict=True) if chosen]
