"""`towtank validate`: how wrong predictions are on published runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.failure import InputError

if TYPE_CHECKING:
    from towtank.validation.evaluate import Result
    from towtank.validation.report import Report
    from towtank.validation.rows import Run

EXAMPLES = """\
\b
Examples:
  towtank validate --where 'device == "h100-80gb-sxm" and gpus >= 64'
  towtank validate --runs my-runs.csv --json errors.json --html errors.html
"""

_RunsFile = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        metavar="FILE",
        help="CSV of runs with the columns of ours; default: those that ship.",
        show_default=False,
    ),
]
_Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPR",
        help="Only rows for which EXPR holds, in the words of pandas.",
        show_default=False,
    ),
]
_JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write summary and every row as JSON.", show_default=False),
]
_HtmlFile = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with plots and tables.", show_default=False),
]
_Jobs = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", min=1, help="Processes; default: one a core.", show_default=False),
]


def validate(
    runs: _RunsFile = None,
    where: _Where = None,
    json: _JsonFile = None,
    html: _HtmlFile = None,
    jobs: _Jobs = None,
) -> None:
    """Predict published measured runs and print the errors, by device, source, precision and scale.

    A row that cannot be expressed as a plan is counted and says why.
    """
    from towtank.cli.text import emit
    from towtank.cli.validation_text import report_text
    from towtank.validation.evaluate import evaluate, progress_bar
    from towtank.validation.kernel_tables import kernel_errors
    from towtank.validation.report import report_on
    from towtank.validation.rows import FAILED, RUNS, read_runs

    chosen = _chosen(runs or RUNS, where)
    results = evaluate(chosen, jobs, progress_bar)
    whole = not (runs or where)
    failed: list[Result] = evaluate(read_runs(FAILED), jobs) if whole else []
    report = report_on(results, failed, kernel_errors() if whole else ())
    if json is not None:
        _write_json(report, json)
    if html is not None:
        _write_html(report, html)
    emit(report_text(report))
    for option, path in (("JSON", json), ("page", html)):
        if path is not None:
            emit(f"\n{option}: {path}")


def _chosen(path: Path, where: str | None) -> "list[Run]":
    from towtank.validation.report import select
    from towtank.validation.rows import RunsError, read_runs

    try:
        found = read_runs(path)
    except RunsError as error:
        raise InputError(f"--runs {error}") from error
    if where is None:
        return found
    try:
        chosen = select(found, where)
    except ValueError as error:
        raise InputError(f"--where {error}") from error
    if not chosen:
        raise InputError(f"--where {where!r} holds for none of the {len(found):,} rows; loosen it")
    return chosen


def _write_json(report: "Report", path: Path) -> None:
    import json

    from towtank.validation.report import to_mapping

    _write(json.dumps(to_mapping(report), indent=1, allow_nan=False) + "\n", "--json", path)


def _write_html(report: "Report", path: Path) -> None:
    from towtank.validation.page import page

    _write(page(report), "--html", path)


def _write(text: str, option: str, path: Path) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written: {error.strerror or error}") from error
