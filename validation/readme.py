"""`python -m towtank.validation.readme`: predict all published runs, then write what rests on the errors.

Written are the intervals that predictions carry, the margins of memory that the search keeps, the record of the
cross-validation, the picture, and the tables between the markers of the README.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from towtank.validation import cross_validation, memory_margin
from towtank.validation.evaluate import Result, evaluate, progress_bar
from towtank.validation.figures import Figure
from towtank.validation.grouping import interval_settings
from towtank.validation.intervals import FILE, to_mapping
from towtank.validation.kernel_tables import kernel_errors
from towtank.validation.page import percent
from towtank.validation.pictures import scatter
from towtank.validation.rates import fitted_runs, observe
from towtank.validation.report import Report, report_on
from towtank.validation.rows import FAILED, RUNS, read_runs
from towtank.validation.samples import samples_of
from towtank.validation.statistics import Errors

START, END = "<!-- accuracy:start -->", "<!-- accuracy:end -->"
PICTURE = Path("docs/accuracy.svg")
_ROOT = Path(__file__).resolve().parent.parent
_FEW = 10
"""Groups with fewer rows are not listed: a median of three says little."""


def accuracy_text(report: Report) -> str:
    """What the README shows between its markers."""
    results = report.results
    complete = [result for result in results if result.run.gate is not False]
    expressed = sum(result.status == "ok" for result in complete)
    return "\n".join(
        [
            f"`towtank validate` predicts {len(results):,} published runs, none of them measured by us; "
            f"{expressed:,} of the {len(complete):,} complete ones can be expressed as a plan "
            f"({percent(expressed / len(complete))}).",
            "",
            f"![predicted against measured step time]({PICTURE})",
            "",
            *_table("device", report),
            "",
            "Errors of step time; *constant* is a constant fraction of peak fitted per device on the same rows, and "
            "*skill* our mean error over its. The Nanotron sweep is left out of the table: a third of it is erratic. "
            "`towtank validate` prints the rest: by source, framework, precision, scale, and the worst rows.",
            "",
            *_figure_lines(report.figures),
        ]
    )


def _table(name: str, report: Report) -> list[str]:
    lines = [f"| {name} | runs | median | mean | bias | constant | skill |", "|---|--:|--:|--:|--:|--:|--:|"]
    return lines + [
        _line(key, errors) for key, errors in report.tables[name].items() if errors.expressed >= _FEW
    ]


def _line(name: str, errors: Errors) -> str:
    skill = "-" if errors.skill is None else f"{errors.skill:.2f}"
    cells = (
        percent(errors.median),
        percent(errors.mean),
        percent(errors.bias, sign=True),
        percent(errors.null_mean),
        skill,
    )
    return f"| {name} | {errors.expressed:,} | {' | '.join(cells)} |"


def _figure_lines(figures: Sequence[Figure]) -> list[str]:
    lines = ["| figure | value | rows | target | reached |", "|---|--:|--:|---|---|"]
    return lines + [
        f"| {one.text} | {one.value:.3g} {one.unit} | {one.rows:,} | {one.target} | {one.verdict} |"
        for one in figures
        if one.value is not None
    ]


def between_markers(document: str, text: str) -> str:
    """The document with `text` between its markers.

    Raises:
        ValueError: the markers are missing or in the wrong order.
    """
    start, end = document.find(START), document.find(END)
    if start < 0 or end < start:
        raise ValueError(
            f"README.md must hold {START} and, after it, {END}; put them where the error table belongs"
        )
    return f"{document[: start + len(START)]}\n{text}\n{document[end:]}"


def write_intervals(results: Sequence[Result]) -> None:
    """Write the file of intervals that predictions read."""
    FILE.write_text(
        json.dumps(to_mapping(samples_of(results), interval_settings()), indent=1) + "\n", encoding="utf-8"
    )


def main() -> int:
    """Run the validation and write; 0 if all went well."""
    runs = read_runs(RUNS)
    results = evaluate(runs, progress=progress_bar)
    write_intervals(results)
    memory_margin.write(results)
    observations = observe(fitted_runs(runs), progress=progress_bar)
    cross_validation.write(cross_validation.cross_validate(observations, results, progress=progress_bar))
    report = report_on(results, evaluate(read_runs(FAILED)), kernel_errors())
    (_ROOT / PICTURE.parent).mkdir(exist_ok=True)
    (_ROOT / PICTURE).write_text(scatter(results, labels=False) + "\n", encoding="utf-8")
    readme = _ROOT / "README.md"
    try:
        readme.write_text(
            between_markers(readme.read_text(encoding="utf-8"), accuracy_text(report)), encoding="utf-8"
        )
    except ValueError as error:
        print(f"towtank: {error}", file=sys.stderr)
        return 2
    files = (FILE, memory_margin.FILE, cross_validation.FILE)
    written = (*(file.relative_to(_ROOT) for file in files), PICTURE, readme.name)
    print(f"written: {', '.join(map(str, written))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
