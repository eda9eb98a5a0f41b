"""A report as one HTML page that needs nothing from elsewhere."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from towtank.hardware_profiles.calibration import FittedRate, calibration
from towtank.validation.cross_validation import CrossValidation, recorded
from towtank.validation.figures import Figure
from towtank.validation.kernel_tables import HEADING, NOT_JUDGED, NOTE
from towtank.validation.pictures import drivers, scatter
from towtank.validation.report import Report, worst
from towtank.validation.statistics import Errors

_TEMPLATE = Path(__file__).with_name("page.html")
_TEXTS = {"model", "assumptions", "sources", "no factor left"}
_HEADS = ("runs", "expressed", "median", "mean", "bias", "p90", "rank", "constant", "skill")


def page(report: Report) -> str:
    """The page."""
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        headline=escape(headline(report)),
        scatter=scatter(report.results, labels=True),
        figures=_figures(report.figures),
        tables="\n".join(
            f"<h2>By {escape(name)}</h2><div class='scroll'>{_errors(rows)}</div>"
            for name, rows in report.tables.items()
            if rows
        ),
        kernels=_kernels(report),
        drivers=drivers(report.results),
        fit=escape(fit_sentence()),
        parameters=_parameters(),
        left_out=_left_out(recorded()),
        worst=_worst(report),
        refused=_refused(report),
    )


def headline(report: Report) -> str:
    """One sentence on how many runs were predicted and how well."""
    expressed = sum(result.status == "ok" for result in report.results)
    text = f"{expressed:,} of {len(report.results):,} runs could be expressed. "
    if report.calm.median is None or report.calm.mean is None:
        return text
    return text + (
        f"Step time of {report.calm.expressed:,} of them (complete rows, the erratic Nanotron sweep apart): median "
        f"error {100 * report.calm.median:.1f} %, mean {100 * report.calm.mean:.1f} %."
    )


def cells(errors: Errors) -> tuple[str, ...]:
    """Errors as text, in the order of the heads."""
    return (
        f"{errors.rows:,}",
        percent(errors.coverage),
        percent(errors.median),
        percent(errors.mean),
        percent(errors.bias, sign=True),
        percent(errors.p90),
        "-" if errors.spearman is None else f"{errors.spearman:.2f}",
        percent(errors.null_mean),
        "-" if errors.skill is None else f"{errors.skill:.2f}",
    )


def percent(value: float | None, *, sign: bool = False) -> str:
    """A fraction as percent, or a dash."""
    if value is None:
        return "-"
    return f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML."""
    head = "".join(f"<th class='{'text' if text in _TEXTS else 'number'}'>{text}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, kind: str = "") -> str:
    mark = f" class='{kind}'" if kind else ""
    return f"<td{mark}>{escape(text)}</td>"


def _errors(rows: "dict[str, Errors] | object") -> str:
    assert isinstance(rows, dict)
    return _table(
        ("", *_HEADS),
        ([_cell(name), *(_cell(text) for text in cells(errors))] for name, errors in rows.items()),
    )


def _figures(figures: Sequence[Figure]) -> str:
    rows = [
        [
            _cell(figure.text, "text"),
            _cell(f"{figure.value:.3g} {figure.unit}"),
            _cell(f"{figure.rows:,}"),
            _cell(figure.target),
            _cell(figure.verdict, figure.verdict if figure.reached is not None else ""),
        ]
        for figure in figures
        if figure.value is not None
    ]
    return _table(("", "value", "rows", "target", "reached"), rows)


def _kernels(report: Report) -> str:
    if not report.kernels:
        return ""
    rows = [
        [
            *(_cell(text, "text") for text in (group.kind, group.device, group.precision)),
            *(_cell(text) for text in (f"{group.rows:,}", percent(group.median), percent(group.p90))),
        ]
        for group in report.kernels
    ]
    heads = ("", "device", "precision", "kernels", "median", "p90")
    text = escape(f"{NOTE} {NOT_JUDGED}")
    return f"<h2>{HEADING}</h2><p>{text}</p><div class='scroll'>{_table(heads, rows)}</div>"


def fit_sentence() -> str:
    """How the factors in force were fitted."""
    fit = calibration().fit
    low, high = fit["level_interval_90"]
    return (
        f"{fit['free_parameters']} free parameters, fitted to {fit['rows']:,} rows in {fit['groups']:,} groups of "
        f"source, model and mapping; each within {fit['bounds'][0]:g} to {fit['bounds'][1]:g}. Stacks are drawn to "
        f"a level of {fit['level']:.3f} (90 %: {low:.3f} to {high:.3f}), devices to 1. "
        "What has no interval is not free."
    )


def _parameters() -> str:
    def row(kind: str, name: str, one: FittedRate) -> list[str]:
        interval = "-" if one.interval_90 is None else f"{one.interval_90[0]:.3f} to {one.interval_90[1]:.3f}"
        numbers = (kind, f"{one.rate:.3f}", interval, f"{one.rows:,}", f"{one.groups:,}")
        return [_cell(name), *(_cell(text) for text in numbers), _cell(", ".join(one.sources), "text")]

    found = calibration()
    rows = [row("stack", name, one) for name, one in found.stacks.items()]
    rows += [row("device", name, one) for name, one in found.devices.items()]
    return _table(("", "of", "rate", "90 % interval", "rows", "groups", "sources"), rows)


def _left_out(found: CrossValidation) -> str:
    rows = [
        [
            _cell(name),
            _cell(f"{one.rows:,}"),
            _cell(percent(one.fitted)),
            _cell(percent(one.left_out)),
            _cell(", ".join(one.unknown), "text"),
        ]
        for name, one in sorted(found.sources.items(), key=lambda item: -item[1].rows)
    ]
    return _table(("source", "rows", "median in force", "median without it", "no factor left"), rows)


def _worst(report: Report) -> str:
    rows = [
        [
            _cell(result.run.id),
            _cell(percent(result.error, sign=True)),
            _cell(f"{result.run.step_time_s:.4g} s"),
            _cell(f"{result.predicted_step_time_s:.4g} s"),
            _cell(f"{result.num_devices:,} {result.run.device}"),
            _cell(f"{result.run.model}, {result.precision}, {result.stack}", "text"),
            _cell("; ".join(result.assumptions), "text"),
        ]
        for result in worst(report.results, 25)
    ]
    return _table(("run", "error", "measured", "predicted", "devices", "model", "assumptions"), rows)


def _refused(report: Report) -> str:
    reasons = Counter(result.reason or "" for result in report.results if result.status != "ok")
    rows = [[_cell(reason, "text"), _cell(f"{number:,}")] for reason, number in reasons.most_common()]
    return _table(("reason", "runs"), rows)
