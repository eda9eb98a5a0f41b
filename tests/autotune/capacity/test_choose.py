"""Fronts and choices of plans that are nothing but their figures."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from towtank.autotune.capacity.choose import Limits, choose, knees, pareto


@dataclass(frozen=True)
class _Figures:
    """What `choose` reads of a plan."""

    median_days: float
    device_hours: float
    energy_kwh: float | None
    cost_usd: float | None
    name: str
    chance: float = 1.0
    power_w: float | None = None

    @property
    def days(self) -> Any:
        return SimpleNamespace(median=self.median_days)

    @property
    def machine(self) -> Any:
        return SimpleNamespace(name=self.name)

    def billed(self, figure: str) -> Any:
        value = getattr(self, figure)
        return None if value is None else SimpleNamespace(median=value)


_few = st.integers(1, 5).map(float)
_plans: Any = st.lists(
    st.builds(_Figures, _few, _few, st.none() | _few, st.none() | _few, st.sampled_from("ab")), max_size=8
)


def _compared(plans: list[_Figures]) -> list[tuple[float, ...]]:
    """The figures of each plan that are known of all."""
    names = ["cost_usd" if all(one.cost_usd is not None for one in plans) else "device_hours"]
    names += ["energy_kwh"] * all(one.energy_kwh is not None for one in plans)
    return [(one.median_days, *(getattr(one, name) for name in names)) for one in plans]


@given(_plans)
def test_nothing_on_the_front_is_beaten_and_all_else_is(plans: list[_Figures]) -> None:
    front = {id(plan) for plan in pareto(plans)}
    values = _compared(plans)
    for plan, own in zip(plans, values, strict=True):
        beaten = any(
            all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in values
        )
        assert (id(plan) in front) != beaten


@given(_plans, st.integers(1, 5))
def test_the_choice_keeps_the_budget_and_nothing_kept_is_cheaper(plans: list[_Figures], budget: int) -> None:
    chosen = choose(plans, Limits(budget_usd=budget))
    kept = [one for one in plans if one.cost_usd is not None and one.cost_usd <= budget]
    assert (chosen is None) == (not kept)
    assert chosen is None or (chosen in kept and chosen.cost_usd == min(one.cost_usd or 0.0 for one in kept))


def test_the_knee_of_a_machine_is_where_a_percent_of_time_costs_a_percent() -> None:
    # products of days and device-hours: 100, 80, 120; of the other machine there are too few
    plans = [_Figures(days, hours, None, None, "a") for days, hours in ((10, 10), (5, 16), (4, 30))]
    other = _Figures(1, 1000, None, None, "b")
    assert knees([*plans, other]) == [plans[1]]
