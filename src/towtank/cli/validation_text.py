"""A validation as a person likes to read it: the answer first, then tables, then the worst rows."""

from collections import Counter
from typing import TYPE_CHECKING

from towtank.cli.text import count, paragraph, seconds, significant, table

if TYPE_CHECKING:
    from towtank.validation.evaluate import Result
    from towtank.validation.report import Report
    from towtank.validation.statistics import Errors

_HEADS = ("runs", "covered", "median", "mean", "bias", "p90", "rank", "constant", "skill")
_LONGEST_NAME = 22
_NOTE = (
    "Errors are |predicted - measured| / measured step time; bias is the median of the signed errors, rank "
    "Spearman's correlation. The constant is the mean error of a constant fraction of peak, fitted per device on "
    "the same rows; skill is our mean error over its. Parameters of stacks and devices were fitted to runs of "
    "these sources."
)
_REASONS = 8


def report_text(report: "Report") -> str:
    """The whole report, without colour."""
    sections = [_headline(report), paragraph(_NOTE, indent=0)]
    sections += [f"By {name}\n{errors_table(rows)}" for name, rows in report.tables.items() if rows]
    sections += [
        text
        for text in (
            _figures(report),
            _choices(report),
            _kernels(report),
            _memory(report),
            _worst(report),
            _refused(report),
        )
        if text
    ]
    return "\n\n".join(sections)


def _headline(report: "Report") -> str:
    results = report.results
    expressed = sum(result.status == "ok" for result in results)
    lines = [
        f"{count(expressed)} of {count(len(results))} runs expressed ({_percent(expressed / len(results))})"
    ]
    for name, errors in (("", report.overall), (", Nanotron sweep apart", report.calm)):
        if errors.median is None or (name and errors.expressed == report.overall.expressed):
            continue
        skill = "" if errors.skill is None else f", skill {errors.skill:.2f}"
        lines.append(
            f"step time of {count(errors.expressed)} runs{name}: median error {_percent(errors.median)}, "
            f"mean {_percent(errors.mean)}, bias {_signed(errors.bias)}{skill}"
        )
    return "\n".join(paragraph(line, indent=0) for line in lines)


def errors_table(rows: "dict[str, Errors] | object") -> str:
    """Errors of several groups as columns."""
    assert isinstance(rows, dict)
    body = [(_short(name), *_cells(errors)) for name, errors in rows.items()]
    return table(body, ("", *_HEADS), right=range(1, len(_HEADS) + 1))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _cells(errors: "Errors") -> tuple[str, ...]:
    return (
        count(errors.rows),
        _percent(errors.coverage),
        _percent(errors.median),
        _percent(errors.mean),
        _signed(errors.bias),
        _percent(errors.p90),
        "-" if errors.spearman is None else f"{errors.spearman:.2f}",
        _percent(errors.null_mean),
        "-" if errors.skill is None else f"{errors.skill:.2f}",
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"


def _figures(report: "Report") -> str:
    rows = [
        (
            f"{figure.value:.3g}" + (f" {figure.unit}" if figure.unit else ""),
            count(figure.rows),
            figure.target,
            figure.verdict,
            figure.text,
        )
        for figure in report.figures
        if figure.value is not None
    ]
    return (
        "Figures and targets\n" + table(rows, ("value", "rows", "target", "reached", ""), right=(0, 1))
        if rows
        else ""
    )


def _choices(report: "Report") -> str:
    from towtank.validation.regret import choices, losses

    rows = [
        (name, count(loss.sweeps), _percent(loss.median), _percent(loss.p90), _percent(loss.worst))
        for name, loss in losses(choices(report.results)).items()
    ]
    if not rows:
        return ""
    heading = (
        "Choice by prediction: how far the measured configuration that is predicted best, of those predicted to fit, is "
        "behind the best measured one of its sweep"
    )
    body = table(rows, ("", "sweeps", "median", "p90", "worst"), right=(1, 2, 3, 4))
    return f"{paragraph(heading, indent=0)}\n{body}"


def _kernels(report: "Report") -> str:
    from towtank.validation.kernel_tables import HEADING, NOT_JUDGED, NOTE

    rows = [
        (
            *(group.kind, group.device, group.precision),
            *(count(group.rows), _percent(group.median), _percent(group.p90)),
        )
        for group in report.kernels
    ]
    if not rows:
        return ""
    body = table(rows, ("", "device", "precision", "kernels", "median", "p90"), right=(3, 4, 5))
    return "\n".join([HEADING, paragraph(f"{NOTE} {NOT_JUDGED}", indent=0), body])


def _memory(report: "Report") -> str:
    from towtank.validation.grouping import grouped, source_family
    from towtank.validation.statistics import memory_errors, quantile

    rows = []
    for name, group in grouped(report.results, lambda result: source_family(result.run.source)).items():
        signed = memory_errors(result for result in group if result.run.gate is not False)
        if signed:
            ordered, absolute = sorted(signed), sorted(map(abs, signed))
            rows.append(
                (
                    name,
                    count(len(signed)),
                    _percent(quantile(absolute, 0.5)),
                    _signed(quantile(ordered, 0.5)),
                    _percent(quantile(absolute, 0.9)),
                )
            )
    return (
        "Peak memory\n" + table(rows, ("", "runs", "median", "bias", "p90"), right=(1, 2, 3, 4))
        if rows
        else ""
    )


def _worst(report: "Report") -> str:
    from towtank.validation.report import worst

    rows = [_worst_row(result) for result in worst(report.results, 12)]
    heads = ("error", "measured", "predicted", "devices", "run", "")
    return "Worst rows, the erratic sweep apart\n" + table(rows, heads, right=(0, 1, 2, 3)) if rows else ""


def _worst_row(result: "Result") -> tuple[str, ...]:
    run = result.run
    layout = ", ".join(
        f"{name} {value}"
        for name, value in (("tp", run.tp), ("pp", run.pp), ("vpp", run.vpp), ("cp", run.cp), ("ep", run.ep))
        if value and value > 1
    )
    return (
        _signed(result.error),
        seconds(run.step_time_s or 0.0),
        seconds(result.predicted_step_time_s or 0.0),
        f"{count(result.num_devices)} {run.device}",
        run.id,
        f"{run.model} {result.precision} {layout}",
    )


def _refused(report: "Report") -> str:
    reasons = Counter(result.reason or "" for result in report.results if result.status != "ok")
    if not reasons:
        return ""
    rows = [(count(number), reason) for reason, number in reasons.most_common(_REASONS)]
    left = sum(reasons.values()) - sum(number for _, number in reasons.most_common(_REASONS))
    more = f"\n  and {significant(left, 1)} more, each in --json" if left else ""
    return f"Not expressed: {count(sum(reasons.values()))} runs\n" + table(rows, right=(0,)) + more
