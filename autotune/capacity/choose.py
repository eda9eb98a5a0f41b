"""Which of several capacity plans: within a deadline, a budget and a power limit; what is best in each sense."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from towtank.autotune.capacity.study import CapacityPlan

Figure = Callable[[CapacityPlan], float | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan must keep; None: no limit."""

    deadline_s: float | None = None
    least_chance: float = 0.9
    budget_usd: float | None = None
    power_w: float | None = None
    """Of all devices while they train."""


def days(plan: CapacityPlan) -> float:
    """Median days."""
    return plan.days.median


def cost(plan: CapacityPlan) -> float | None:
    """Median cost in USD where the price is known."""
    found = plan.billed("cost_usd")
    return None if found is None else found.median


def node_hours(plan: CapacityPlan) -> float:
    """Median node-hours."""
    found = plan.billed("node_hours")
    assert found is not None  # node-hours need no figure of the profile
    return found.median


def energy(plan: CapacityPlan) -> float | None:
    """Median energy in kWh where it is known."""
    found = plan.billed("energy_kwh")
    return None if found is None else found.median


def faults_of(plan: CapacityPlan, limits: Limits) -> list[str]:
    """Limits that a plan breaks, or that cannot be judged, as sentences."""
    faults = []
    if limits.deadline_s is not None and plan.chance is not None and plan.chance < limits.least_chance:
        faults.append(
            f"meets {limits.deadline_s / 86400:g} days in {plan.chance * 100:.0f} % of the runs, "
            f"{limits.least_chance * 100:.0f} % are asked"
        )
    for name, value, limit, unit in (
        ("cost", cost(plan), limits.budget_usd, "USD"),
        ("power", plan.power_w, limits.power_w, "W"),
    ):
        if limit is not None and value is None:
            faults.append(f"{name} is unknown, so its limit of {limit:,.0f} {unit} cannot be judged")
        elif limit is not None and value is not None and value > limit:
            faults.append(f"{name} {value:,.0f} {unit} is over the limit of {limit:,.0f} {unit}")
    return faults


def pareto(plans: Sequence[CapacityPlan]) -> list[CapacityPlan]:
    """Plans that no other beats in time, money (else device-hours) and energy at once.

    A figure that is unknown for any of the plans is not compared.
    """
    figures: list[Figure] = [days, cost if priced(plans) else device_hours]
    if all(energy(plan) is not None for plan in plans):
        figures.append(energy)
    values = [tuple(figure(plan) or 0.0 for figure in figures) for plan in plans]
    return [
        plan
        for plan, own in zip(plans, values, strict=True)
        if not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in values)
    ]


def device_hours(plan: CapacityPlan) -> float:
    """Median device-hours."""
    found = plan.billed("device_hours")
    assert found is not None  # device-hours need no figure of the profile
    return found.median


def knee(plans: Sequence[CapacityPlan]) -> CapacityPlan | None:
    """The plan of a front of one machine from which more devices begin to cost more than they save in time.

    The least product of time and device-hours: on either side a percent less of one costs more than a percent of the
    other. None for fewer than three plans.
    """
    if len(plans) < 3:
        return None
    return min(plans, key=lambda plan: days(plan) * device_hours(plan))


def knees(plans: Sequence[CapacityPlan]) -> list[CapacityPlan]:
    """The knee of each machine's part of the front that has one."""
    front = pareto(plans)
    machines = dict.fromkeys(plan.machine.name for plan in front)
    found = (knee([plan for plan in front if plan.machine.name == machine]) for machine in machines)
    return [plan for plan in found if plan is not None]


@dataclass(frozen=True, slots=True)
class Trade:
    """What more time would save: the next cheaper plan of a machine."""

    cheaper: CapacityPlan
    more_days: float
    fewer_device_hours: float

    @property
    def device_hours_per_day(self) -> float:
        """Device-hours saved for one more day."""
        return self.fewer_device_hours / self.more_days


def one_more_day(chosen: CapacityPlan, plans: Sequence[CapacityPlan]) -> Trade | None:
    """What the deadline costs: the slower plan of the same machine that saves most device-hours a day; None: none."""
    trades = [
        Trade(other, days(other) - days(chosen), device_hours(chosen) - device_hours(other))
        for other in plans
        if other.machine.name == chosen.machine.name
        and days(other) > days(chosen)
        and device_hours(other) < device_hours(chosen)
    ]
    return max(trades, key=lambda trade: trade.device_hours_per_day, default=None)


def choose(plans: Sequence[CapacityPlan], limits: Limits) -> CapacityPlan | None:
    """Of the plans that keep all limits the cheapest, by money where every price is known, else by device-hours."""
    kept = [plan for plan in plans if not faults_of(plan, limits)]
    if priced(kept):
        return min(kept, key=lambda plan: cost(plan) or 0.0, default=None)
    return min(kept, key=device_hours, default=None)


def priced(plans: Sequence[CapacityPlan]) -> bool:
    """Whether the price of every plan is known."""
    return all(cost(plan) is not None for plan in plans)


def best_of_each(plans: Sequence[CapacityPlan], limits: Limits) -> list[CapacityPlan]:
    """Of each machine the plan that `choose` takes; the soonest where none keeps the limits."""
    machines = dict.fromkeys(plan.machine.name for plan in plans)
    own = ([plan for plan in plans if plan.machine.name == machine] for machine in machines)
    return [choose(some, limits) or min(some, key=days) for some in own]
