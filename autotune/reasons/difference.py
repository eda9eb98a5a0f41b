"""How much longer one step takes than another, by what the time is spent on."""

from collections.abc import Mapping

from towtank.autotune.reasons.words import exposed, percent, seconds, words
from towtank.simulator.plan import Plan

_NAMED = 3
"""Most rows that a sentence names on either side."""
_TELLING = 0.1
"""Rows below this part of the difference are not worth a word."""
AS_FAST = 5e-4
"""Steps that differ by less than this fraction count as equally fast: it prints as 0.0 %."""


def step_difference(step_s: Mapping[str, float], other_s: Mapping[str, float]) -> dict[str, float]:
    """Seconds that a step spends more than another on each row of their breakdowns, the largest first.

    Breakdowns sum to their steps, so the differences sum to the difference of the steps.
    """
    kinds = dict.fromkeys((*step_s, *other_s))
    found = {kind: step_s.get(kind, 0.0) - other_s.get(kind, 0.0) for kind in kinds}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def slower_text(
    plan: Plan, step_time_s: float, winner: Plan, winner_step_s: float, difference_s: Mapping[str, float]
) -> str:
    """`14 % slower: data-parallel all-reduce exposed 210 ms longer, pipeline bubble +90 ms`.

    Names what the plan loses most on, then what it wins back, as far as it matters.
    """
    change = step_time_s / winner_step_s - 1
    if abs(change) < AS_FAST:
        return "as fast"
    sign = 1.0 if change > 0 else -1.0
    least = _TELLING * abs(step_time_s - winner_step_s)
    telling = [(kind, value) for kind, value in difference_s.items() if abs(value) >= least]
    losses = sorted(((k, v) for k, v in telling if v * sign > 0), key=lambda item: -abs(item[1]))
    gains = sorted(((k, v) for k, v in telling if v * sign < 0), key=lambda item: -abs(item[1]))
    text = f"{percent(abs(change))} {'slower' if change > 0 else 'faster'}: "
    text += (
        ", ".join(_part(kind, value, plan, winner) for kind, value in losses[:_NAMED]) or "many small parts"
    )
    if gains:
        text += "; but " + ", ".join(_part(kind, value, plan, winner) for kind, value in gains[:_NAMED])
    return text


def _part(kind: str, value_s: float, plan: Plan, winner: Plan) -> str:
    """One row: exposed communication is longer or shorter, everything else has a sign.

    The row is named by the plan that spends more on it: a collective that the other one does not have is its.
    """
    name = words(kind, plan if value_s > 0 else winner)
    if exposed(kind):
        return f"{name} exposed {seconds(abs(value_s))} {'longer' if value_s > 0 else 'less'}"
    return f"{name} {'+' if value_s > 0 else '-'}{seconds(abs(value_s))}"
