"""The report of a capacity plan: what is on it, section by section."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from towtank.autotune.capacity import choose
from towtank.autotune.capacity.choose import Limits, device_hours, faults_of, one_more_day, pareto
from towtank.autotune.capacity.draws import luck
from towtank.autotune.capacity.intervals import interval_study
from towtank.autotune.capacity.run.records import PARTS
from towtank.autotune.capacity.study import CapacityPlan, NoPlan, Quantiles, Request
from towtank.pages.plan_rows import plan_rows
from towtank.pages.records import Cell, Page, Plot, Section, Table
from towtank.simulator.plan import Plan

GIB = 2.0**30
_DEGREES = (
    "tensor_x", "tensor_y", "tensor_z", "context", "expert", "pipeline", "virtual_stages", "data", "zero_stage",
)  # fmt: skip
_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
_BILLS = (
    ("node-hours", "node_hours"), ("device-hours", "device_hours"), ("energy in kWh", "energy_kwh"),
    ("USD", "cost_usd"), ("t CO2", "carbon_t"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CapacityReport:
    """Everything that the report of a capacity plan shows."""

    request: Request
    found: Sequence[CapacityPlan | NoPlan]
    limits: Limits
    notes: Sequence[str]
    commands: Sequence[str]
    """Lines that reproduce the page."""

    @property
    def plans(self) -> list[CapacityPlan]:
        """Candidates that have a plan."""
        return [one for one in self.found if isinstance(one, CapacityPlan)]


def capacity_page(report: CapacityReport) -> Page:
    """The page of a capacity plan."""
    plans, request = report.plans, report.request
    chosen = choose.choose(plans, report.limits)
    sections = [_summary(report, chosen), _candidates(report, chosen)]
    if plans:
        sections += [
            _candidate_plans(plans),
            Section("Days against device-hours", plot=_front_plot(plans, chosen)),
            Section("Where the time of the run goes", plot=_parts_plot(plans)),
        ]
    if chosen is not None:
        sections.append(Section("The chosen plan", table=Table(("field", "value"), plan_rows(chosen.plan))))
        sections.append(_checkpoints(chosen))
    if plans:
        sections.append(_validation(plans))
    sections += [
        Section("Assumptions", items=_assumptions(report)),
        Section("Unknown", ["What nobody knows is not counted."], items=_unknown(plans)),
        Section("Commands that reproduce this page", commands=report.commands),
    ]
    return Page(
        f"{request.model.name}, {tokens_words(request.tokens)} tokens",
        f"A capacity plan under stack {request.stack.name}, predicted by towtank",
        sections,
    )


def spread(value: Quantiles | None) -> str:
    """Median with the 5 and 95 % quantiles, all in the unit of the median; unknown where it is."""
    if value is None:
        return "unknown"
    size, letter = large_unit(value.median)
    return f"{value.median / size:,.4g}{letter} ({value.low / size:,.4g} to {value.high / size:,.4g})"


def large_unit(value: float) -> tuple[float, str]:
    """The unit that a large number is written in, and its letter: thousands from ten thousand on."""
    units = ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
    return next(((size, letter) for least, size, letter in units if value >= least), (1.0, ""))


def tokens_words(tokens: float) -> str:
    """A number of tokens such as 15.6T."""
    size, letter = large_unit(tokens)
    return f"{tokens / size:,.4g}{letter}"


def _interruptions(plan: CapacityPlan) -> float:
    runs = plan.outcomes.runs
    return sum(run.num_interruptions for run in runs) / len(runs)


def matters_words(plan: CapacityPlan) -> str:
    """The three inputs that matter most, with their rank correlation with the time of the run."""
    least = luck(len(plan.outcomes.runs))
    return ", ".join(
        f"{name} ({rank:+.2f}{'' if abs(rank) > least else ', no more than luck'})"
        for name, rank in plan.matters[:3]
    )


def _name(plan: CapacityPlan) -> str:
    return f"{plan.machine.name}, {plan.devices:,}"


def _summary(report: CapacityReport, chosen: CapacityPlan | None) -> Section:
    request = report.request
    said = [
        f"{request.steps:,} steps of {request.tokens_per_step:,} tokens. "
        "Figures are medians of the simulated runs with their 5 and 95 % quantiles in brackets."
    ]
    if chosen is None:
        items = [
            f"{_name(plan)} devices: {'; '.join(faults_of(plan, report.limits))}" for plan in report.plans
        ]
        return Section("Summary", [*said, "No plan keeps the limits."], items=items)
    if trade := one_more_day(chosen, report.plans):
        said.append(
            f"One more day of deadline saves {trade.device_hours_per_day:,.0f} device-hours: "
            f"{trade.cheaper.devices:,} devices take {trade.more_days:.1f} days longer."
        )
    rows = [
        ("machine", chosen.machine.name),
        ("devices, nodes", f"{chosen.devices:,}, {chosen.nodes:,} and {chosen.job.recovery.spare_nodes:,} spare"),
        ("days", spread(chosen.days)),
        *([("chance to be in time", f"{chosen.chance * 100:.0f} %")] if chosen.chance is not None else []),
        *((title, spread(chosen.billed(name))) for title, name in _BILLS),
        ("step time", f"{chosen.step_time_s:.4g} s ({chosen.step_low_s:.4g} to {chosen.step_high_s:.4g} s)"),
        ("MFU", f"{chosen.mfu * 100:.1f} %"),
        ("memory at the peak", f"{chosen.peak_memory_bytes / GIB:.1f} GiB a device"),
        *([("charge", f"{spread(charged)} {chosen.bills[0].unit}s")]
          if (charged := chosen.billed("allocation_units")) is not None else []),
        ("power in training", "unknown" if chosen.power_w is None else f"{chosen.power_w / 1e6:.4g} MW"),
        ("goodput", f"{chosen.outcomes.mean_goodput * 100:.1f} %"),
        ("interruptions a run", f"{_interruptions(chosen):,.1f}"),
        ("what matters most", matters_words(chosen)),
    ]  # fmt: skip
    return Section("Summary", said, table=Table(("what", "figure"), rows))


def _candidates(report: CapacityReport, chosen: CapacityPlan | None) -> Section:
    front, rows = pareto(report.plans), list[Sequence[Cell]]()
    best = choose.best_of_each(report.plans, report.limits)
    for one in report.found:
        if isinstance(one, NoPlan):
            rows.append((one.machine.name, one.devices, one.why_not, *[""] * (2 + len(_BILLS))))
            continue
        marks = [
            word
            for word, holds in (
                ("chosen", one is chosen), ("best of its machine", one in best and one is not chosen),
                ("on the front", one in front),
            )
            if holds
        ]  # fmt: skip
        broken = faults_of(one, report.limits)
        rows.append(
            (
                one.machine.name, one.devices, "; ".join([*marks, *broken]),
                spread(one.days),
                "" if one.chance is None else f"{one.chance * 100:.0f} %",
                *(spread(one.billed(name)) for _, name in _BILLS),
            )
        )  # fmt: skip
    columns = ("machine", "devices", "standing", "days", "chance", *(title for title, _ in _BILLS))
    return Section("All candidates", table=Table(columns, rows))


def _candidate_plans(plans: Sequence[CapacityPlan]) -> Section:
    """How each candidate splits its devices, and what a step of it is."""
    rows = [
        (
            plan.machine.name, plan.devices, f"{plan.nodes:,} and {plan.job.recovery.spare_nodes:,} spare",
            plan_words(plan.plan), f"{plan.step_time_s:.4g} ({plan.step_low_s:.4g} to {plan.step_high_s:.4g})",
            f"{plan.mfu * 100:.1f} %", f"{plan.peak_memory_bytes / GIB:.1f}",
            f"{plan.outcomes.mean_goodput * 100:.1f} %",
        )
        for plan in plans
    ]  # fmt: skip
    columns = ("machine", "devices", "nodes", "plan", "seconds a step", "MFU", "GiB a device", "goodput")
    return Section("Plans of the candidates", table=Table(columns, rows))


def _front_plot(plans: Sequence[CapacityPlan], chosen: CapacityPlan | None) -> Plot:
    front, bends = pareto(plans), choose.knees(plans)
    traces, rows = [], []
    for machine in dict.fromkeys(plan.machine.name for plan in plans):
        own = sorted(
            (plan for plan in plans if plan.machine.name == machine), key=lambda plan: plan.days.median
        )
        traces.append(_machine_points(machine, own, front, bends, chosen))
        rows += [
            (machine, plan.devices, plan.days.median, device_hours(plan),
             ", ".join(word for word, holds in (("chosen", plan is chosen), ("knee", plan in bends),
                                                ("front", plan in front)) if holds))
            for plan in own
        ]  # fmt: skip
    knee_text = f"; the knee is {knee_words(plans)}" if bends else ""
    return Plot(
        "capacity-front",
        f"Days against device-hours of {len(plans)} plans, {len(front)} of them on the Pareto front{knee_text}. "
        "Stars: chosen, diamonds: knee, filled: on the front.",
        traces,
        {
            "xaxis": {"title": {"text": "days"}, "type": "log", "automargin": True},
            "yaxis": {"title": {"text": "device-hours"}, "type": "log", "automargin": True},
            "height": 460, "showlegend": True, "legend": _LEGEND,
        },
        Table(("machine", "devices", "days", "device-hours", ""), rows),
    )  # fmt: skip


def knee_words(plans: Sequence[CapacityPlan]) -> str:
    """The knee of each machine that has one; nothing where none has."""
    words = []
    for bend in choose.knees(plans):
        most = max(plan.devices for plan in plans if plan.machine.name == bend.machine.name)
        open_end = " or more, which were not looked at" if bend.devices == most else ""
        words.append(f"{bend.devices:,} devices of {bend.machine.name}{open_end}")
    return " and ".join(words)


def _machine_points(
    machine: str,
    own: Sequence[CapacityPlan],
    front: Sequence[CapacityPlan],
    bends: Sequence[CapacityPlan],
    chosen: CapacityPlan | None,
) -> dict[str, Any]:
    """Plans of one machine, by their places on the front."""
    days = [plan.days for plan in own]
    symbols = [
        "star"
        if plan is chosen
        else "diamond"
        if plan in bends
        else "circle"
        if plan in front
        else "circle-open"
        for plan in own
    ]
    return {
        "type": "scatter", "mode": "lines+markers", "name": machine,
        "x": [one.median for one in days], "y": [device_hours(plan) for plan in own],
        "error_x": {
            "type": "data", "symmetric": False, "array": [one.high - one.median for one in days],
            "arrayminus": [one.median - one.low for one in days],
        },
        "marker": {"size": [14 if plan is chosen else 9 for plan in own], "symbol": symbols},
        "text": [f"{plan.devices:,} devices" for plan in own],
    }  # fmt: skip


def _parts_plot(plans: Sequence[CapacityPlan]) -> Plot:
    means = [plan.outcomes.mean_parts_s() for plan in plans]
    totals = [sum(each.values()) for each in means]
    names = [_name(plan) for plan in plans]
    shown = [part for part in PARTS if any(part in each for each in means)]
    shares = {
        part: [each.get(part, 0.0) / total * 100 for each, total in zip(means, totals, strict=True)]
        for part in shown
    }
    worst = min(shares["training"])
    return Plot(
        "capacity-parts",
        f"Bars of the time of {len(plans)} runs by what it is spent on; training is {worst:.1f} % of it or more.",
        [
            {"type": "bar", "orientation": "h", "name": part, "y": names, "x": values}
            for part, values in shares.items()
        ],
        {
            "barmode": "stack", "xaxis": {"title": {"text": "% of the time of the run"}, "automargin": True},
            "yaxis": {"automargin": True}, "height": 180 + 30 * len(plans), "showlegend": True, "legend": _LEGEND,
        },
        Table(
            ("machine, devices", *shown),
            [(name, *(f"{shares[part][row]:.2f} %" for part in shown)) for row, name in enumerate(names)],
        ),
    )  # fmt: skip


def _validation(plans: Sequence[CapacityPlan]) -> Section:
    """What the intervals stand on, and where plans go beyond it."""
    grounds = dict.fromkeys(f"{plan.machine.name}: {plan.validated_on}" for plan in plans)
    beyond = dict.fromkeys(
        f"{plan.machine.name}, beyond what was validated: {text}"
        for plan in plans
        for text in plan.extrapolated
    )
    said = [
        "The interval of a step stands on published runs of its kind (`towtank validate` shows each), that of a "
        "whole run also on published device-hours (docs/totals.md)."
    ]
    return Section("How far to trust it", said, items=[*grounds, *beyond])


def _checkpoints(chosen: CapacityPlan) -> Section:
    """The time between checkpoints that is used, beside the best by simulation and by closed forms."""
    used = chosen.job.checkpoints.interval_steps * chosen.step_time_s
    said = [f"A checkpoint every {used / 60:.3g} min ({chosen.job.checkpoints.mode})."]
    study = interval_study(chosen.job)
    if study is None:
        said.append("There is no best interval without failures and a time of checkpoints.")
        return Section("Checkpoints", said)
    said.append(
        f"Best are {study.best_s / 60:.3g} min by simulation, {study.daly_s / 60:.3g} min by Daly's higher-order "
        f"estimate and {study.young_s / 60:.3g} min by Young's first-order one."
    )
    rows = [(f"{seconds / 60:.3g}", f"{goodput * 100:.2f} %") for seconds, goodput in study.simulated]
    return Section("Checkpoints", said, table=Table(("minutes between checkpoints", "goodput"), rows))


def plan_words(plan: Plan) -> str:
    """Degrees of a plan above 1, micro-batch and recomputation."""
    words = [
        f"{name} {getattr(plan, name)}"
        for name in _DEGREES
        if getattr(plan, name) > (0 if name == "zero_stage" else 1)
    ]
    return ", ".join([*words, f"micro_batch {plan.micro_batch}", f"recompute {plan.recompute}"])


def _assumptions(report: CapacityReport) -> list[str]:
    """Each assumption once, with the candidates that it holds for where it does not for all."""
    plans, holders = report.plans, dict[str, list[CapacityPlan]]()
    for plan in plans:
        for text in plan.assumptions:
            holders.setdefault(text, []).append(plan)
    return [
        *report.notes,
        *(
            text if len(own) == len(plans) else f"{_names(own, plans)}: {text}"
            for text, own in holders.items()
        ),
    ]


def _names(some: Sequence[CapacityPlan], plans: Sequence[CapacityPlan]) -> str:
    """Machines all of whose plans are among some, and the other plans with their devices."""
    names = []
    for machine in dict.fromkeys(plan.machine.name for plan in some):
        own = [plan for plan in some if plan.machine.name == machine]
        if len(own) == sum(plan.machine.name == machine for plan in plans):
            names.append(machine)
        else:
            names.append(f"{machine} with {' and '.join(f'{plan.devices:,}' for plan in own)} devices")
    return "; ".join(names)


def _unknown(plans: Sequence[CapacityPlan]) -> list[str]:
    return list(dict.fromkeys(text for plan in plans for text in plan.unknown)) or [
        "Nothing that is asked for."
    ]
