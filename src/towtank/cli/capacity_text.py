"""Capacity plans as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from towtank.autotune.capacity import choose
from towtank.autotune.capacity.choose import Limits, best_of_each, faults_of, knees, one_more_day, pareto
from towtank.autotune.capacity.draws import luck
from towtank.autotune.capacity.facts import charge_source
from towtank.autotune.capacity.intervals import interval_study
from towtank.autotune.capacity.study import CapacityPlan, NoPlan, Quantiles, Request
from towtank.cli.text import gibibytes, paragraph, percent, plural, seconds, significant, table
from towtank.pages.capacity_report import knee_words, large_unit, matters_words, plan_words, tokens_words

SCHEMA = 2


def capacity_text(
    request: Request, found: Sequence[CapacityPlan | NoPlan], limits: Limits, notes: Sequence[str]
) -> str:
    """All of a capacity plan: the table, the choice, and what it stands on."""
    plans = [one for one in found if isinstance(one, CapacityPlan)]
    chosen = choose.choose(plans, limits)
    parts = [
        f"{request.model.name}, {tokens_words(request.tokens)} tokens in {request.steps:,} steps of "
        f"{request.tokens_per_step:,} tokens, under stack {request.stack.name}",
        table(_rows(found, plans, limits)) if found else "",
        "5 to 95 % of the simulated runs in brackets; * on the front of time, money (else device-hours) and energy;\n"
        "> the choice: the cheapest that keeps the limits; + that of its machine, the soonest where none keeps them",
        "\n".join(_plan_line(plan) for plan in plans),
        "\n".join(
            paragraph(f"no plan for {one.devices:,} devices of {one.machine.name}: {one.why_not}")
            for one in found
            if isinstance(one, NoPlan)
        ),
        _choice(chosen, plans, limits),
    ]
    for plan in best_of_each(plans, limits):
        parts.append(_stands_on(plan, notes))
    return "\n\n".join(part for part in parts if part)


def _plan_line(plan: CapacityPlan) -> str:
    spares = plan.job.recovery.spare_nodes
    nodes = plural(plan.nodes, "node") + (f" and {spares:,} spare" if spares else "")
    return paragraph(
        f"{plan.machine.name}, {plan.devices:,} ({nodes}): {plan_words(plan.plan)}; "
        f"{seconds(plan.step_time_s)} a step, MFU {percent(plan.mfu)}, {gibibytes(plan.peak_memory_bytes)} a device"
    )


def _rows(
    found: Sequence[CapacityPlan | NoPlan], plans: Sequence[CapacityPlan], limits: Limits
) -> list[tuple[str, ...]]:
    chosen, best, front = choose.choose(plans, limits), best_of_each(plans, limits), pareto(plans)
    rows: list[tuple[str, ...]] = [
        ("", "machine", "devices", "days", "chance", "node-hours", "MWh", "USD", "t CO2")
    ]
    for one in found:
        if isinstance(one, NoPlan):
            rows.append(("", one.machine.name, f"{one.devices:,}", "no plan", *[""] * 5))
            continue
        mark = (">" if one is chosen else "+" if one in best else "") + ("*" if one in front else "")
        rows.append(
            (
                mark, one.machine.name, f"{one.devices:,}", spread(one.days),
                "" if one.chance is None else f"{one.chance * 100:.0f} %", spread(one.billed("node_hours")),
                spread(one.billed("energy_kwh"), 1e-3), spread(one.billed("cost_usd")),
                spread(one.billed("carbon_t")),
            )
        )  # fmt: skip
    return rows


def spread(value: Quantiles | None, scale: float = 1.0) -> str:
    """Median with the 5 and 95 % quantiles, all in thousands or millions where large; unknown where it is."""
    if value is None:
        return "unknown"
    size, letter = large_unit(value.median * scale)
    low, middle, high = (
        significant(part * scale / size, 3) for part in (value.low, value.median, value.high)
    )
    return f"{middle}{letter} [{low}, {high}]"


def _choice(chosen: CapacityPlan | None, plans: Sequence[CapacityPlan], limits: Limits) -> str:
    if chosen is None:
        lines = ["no plan keeps the limits:"]
        lines += [
            f"- {plan.machine.name}, {plan.devices:,} devices: {'; '.join(faults_of(plan, limits))}"
            for plan in plans
        ]
        return "\n".join(paragraph(line) for line in lines) if plans else "no plan fits"
    lines = [f"the choice: {chosen.devices:,} devices of {chosen.machine.name}: {plan_words(chosen.plan)}"]
    if not choose.priced(plans):
        lines[0] += (
            " (fewest device-hours, as prices are not all known; an hour of one device is not that of another)"
        )
    lines += [
        f"not {plan.devices:,} devices of {plan.machine.name}: {'; '.join(faults)}"
        for plan in plans
        if (faults := faults_of(plan, limits))
    ]
    if trade := one_more_day(chosen, plans):
        lines.append(
            f"one more day of deadline saves {trade.device_hours_per_day:,.0f} device-hours "
            f"({trade.cheaper.devices:,} devices, {trade.more_days:.1f} days longer)"
        )
    else:
        lines.append(
            "one more day of deadline saves nothing: no slower plan of this machine takes fewer device-hours"
        )
    if found := knee_words(plans):
        lines.append(f"the knee of days against device-hours: {found}")
    return "\n".join(paragraph(line) for line in lines)


def _run_lines(plan: CapacityPlan) -> list[str]:
    """How the run goes: its time by parts, interruptions, checkpoints, and what it depends on."""
    parts, runs = plan.outcomes.mean_parts_s(), plan.outcomes.runs
    held = sum(parts.values())
    interruptions = sum(run.num_interruptions for run in runs) / len(runs)
    lines = [
        "time of the run: " + ", ".join(f"{name} {percent(value / held)}" for name, value in parts.items()),
        f"goodput {percent(plan.outcomes.mean_goodput)}, {interruptions:,.1f} interruptions a run",
    ]
    if study := interval_study(plan.job):
        lines.append(
            f"checkpoints: the best of the simulated intervals is {study.best_s / 60:.3g} min (Young "
            f"{study.young_s / 60:.3g}, Daly {study.daly_s / 60:.3g} min); used are "
            f"{plan.job.checkpoints.interval_steps * plan.step_time_s / 60:.3g} min"
        )
    if plan.matters:
        lines.append(f"what matters most: {matters_words(plan)}")
    return lines


def _stands_on(plan: CapacityPlan, notes: Sequence[str]) -> str:
    lines = [paragraph(f"{plan.machine.name}, {plan.devices:,} devices: {plan_words(plan.plan)}")]
    lines += [paragraph(f"- {text}") for text in _run_lines(plan)]
    lines.append(paragraph("it stands on"))
    if (charged := plan.billed("allocation_units")) is not None:
        lines.append(
            paragraph(
                f"- a charge of {spread(charged)} {plan.bills[0].unit}s ({charge_source(plan.machine.name)})"
            )
        )
    lines += [paragraph(f"- {text}") for text in (*notes, *plan.assumptions)]
    lines.append(
        paragraph(
            f"- a step of {seconds(plan.step_low_s)} to {seconds(plan.step_high_s)} in 90 % of the cases, by "
            f"{plan.validated_on}"
        )
    )
    lines += [paragraph(f"- extrapolated: {text}") for text in plan.extrapolated]
    lines += [paragraph(f"- unknown: {text}") for text in plan.unknown]
    return "\n".join(lines)


def capacity_to_mapping(
    request: Request, found: Sequence[CapacityPlan | NoPlan], limits: Limits, notes: Sequence[str]
) -> dict[str, Any]:
    """A capacity plan as a JSON document."""
    plans = [one for one in found if isinstance(one, CapacityPlan)]
    chosen = choose.choose(plans, limits)
    marks = {"on_front": pareto(plans), "knee": knees(plans), "best_of_machine": best_of_each(plans, limits)}
    return {
        "schema": SCHEMA,
        "model": request.model.name,
        "tokens": request.tokens,
        "steps": request.steps,
        "global_batch": request.global_batch,
        "tokens_per_step": request.tokens_per_step,
        "ramp": [{"global_batch": batch, "tokens": tokens} for batch, tokens in request.ramp],
        "stack": request.stack.name,
        "limits": asdict(limits),
        "runs": request.uncertainty.runs,
        "seed": request.uncertainty.seed,
        "assumptions": list(notes),
        "chosen": None if chosen is None else found.index(chosen),
        "one_more_day": None if chosen is None else _trade(chosen, found),
        "checkpoint_intervals": None if chosen is None else _intervals(chosen),
        "candidates": [
            {
                **_candidate(one, limits),
                **{name: one in marked for name, marked in marks.items()},
                "checkpoint_intervals": _intervals(one) if one in marks["best_of_machine"] else None,
            }
            if isinstance(one, CapacityPlan)
            else {"machine": one.machine.name, "devices": one.devices, "why_not": one.why_not}
            for one in found
        ],
    }


def _trade(chosen: CapacityPlan, found: Sequence[CapacityPlan | NoPlan]) -> dict[str, Any] | None:
    """What one more day of deadline saves; None: nothing."""
    trade = one_more_day(chosen, [one for one in found if isinstance(one, CapacityPlan)])
    if trade is None:
        return None
    return {
        "cheaper": found.index(trade.cheaper),
        "more_days": trade.more_days,
        "fewer_device_hours": trade.fewer_device_hours,
        "device_hours_per_day": trade.device_hours_per_day,
    }


def _intervals(plan: CapacityPlan) -> dict[str, Any] | None:
    """The best time between checkpoints by simulation and by closed forms; None where there is no best."""
    study = interval_study(plan.job)
    if study is None:
        return None
    return {
        "young_s": study.young_s,
        "daly_s": study.daly_s,
        "best_simulated_s": study.best_s,
        "simulated": [{"interval_s": seconds, "goodput": goodput} for seconds, goodput in study.simulated],
    }


def _candidate(plan: CapacityPlan, limits: Limits) -> dict[str, Any]:
    billed = {}
    for name in ("node_hours", "device_hours", "allocation_units", "energy_kwh", "cost_usd", "carbon_t"):
        value = plan.billed(name)
        billed[name] = None if value is None else asdict(value)
    runs = plan.outcomes.runs
    return {
        "machine": plan.machine.name,
        "devices": plan.devices,
        "nodes": plan.nodes,
        "spare_nodes": plan.job.recovery.spare_nodes,
        "plan": asdict(plan.plan),
        "step_time_s": plan.step_time_s,
        "step_interval_90_s": [plan.step_low_s, plan.step_high_s],
        "mfu": plan.mfu,
        "peak_memory_bytes": plan.peak_memory_bytes,
        "days": asdict(plan.days),
        "chance": plan.chance,
        **billed,
        "allocation_unit": plan.bills[0].unit,
        "allocation_source": charge_source(plan.machine.name) or None,
        "goodput": plan.outcomes.mean_goodput,
        "parts_s": plan.outcomes.mean_parts_s(),
        "power_w": plan.power_w,
        "interruptions": sum(run.num_interruptions for run in runs) / len(runs),
        "checkpoint_interval_steps": plan.job.checkpoints.interval_steps,
        "checkpoint_interval_s": plan.job.checkpoints.interval_steps * plan.step_time_s,
        "checkpoint_mode": plan.job.checkpoints.mode,
        "matters": [
            {"input": name, "rank_correlation": rank, "beyond_luck": abs(rank) > luck(len(runs))}
            for name, rank in plan.matters
        ],
        "validated_on": plan.validated_on,
        "breaks": faults_of(plan, limits),
        "assumptions": list(plan.assumptions),
        "extrapolated": list(plan.extrapolated),
        "unknown": list(plan.unknown),
    }
