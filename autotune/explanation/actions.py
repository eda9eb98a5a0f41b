"""What to do next about a step: plans one step away that are better, in words."""

import math

from towtank.autotune.reasons.difference import AS_FAST
from towtank.autotune.reasons.survey import JudgedNeighbour, Survey
from towtank.simulator.predict import Prediction

GIB = 2.0**30


def actions(own: Prediction, survey: Survey) -> list[str]:
    """Changes of the plan that make the step faster, the best first; for a plan that does not fit, those that make it
    fit. The last may need more memory than there is, and says how much."""
    lines = [f"{each.change}: {_gain(each.prediction, own)}" for each in next_plans(own, survey)]
    beyond = survey.out_of_reach
    if beyond is not None and beyond.prediction.step_time_s < own.step_time_s:
        other = beyond.prediction
        missing = max(other.peak_memory_bytes - other.memory_capacity_bytes, 0.0)
        # rounded up: with so much it does fit
        more = math.ceil(missing / GIB * 10) / 10
        lines.append(f"with {more:,.1f} GiB more memory a device, {beyond.change}: {_pace(other, own)}")
    return lines


def next_plans(own: Prediction, survey: Survey) -> list[JudgedNeighbour]:
    """Plans one step away that fit and are faster, the fastest first; where the plan itself does not fit, all that
    fit."""
    return [
        each
        for each in survey.best
        if not own.fits or each.prediction.step_time_s < own.step_time_s * (1 - AS_FAST)
    ]


def nothing_next(own: Prediction, survey: Survey) -> str:
    """What is said where there is no action."""
    return f"none of {survey.legal:,} legal plans one step away {'is faster' if own.fits else 'fits'}"


def _gain(other: Prediction, own: Prediction) -> str:
    if own.fits:
        return _pace(other, own)
    return f"fits ({other.peak_memory_bytes / GIB:,.1f} GiB), {_pace(other, own)}"


def _pace(other: Prediction, own: Prediction) -> str:
    """How much shorter or longer the other step is, as a share of this one."""
    change = 1 - other.step_time_s / own.step_time_s
    if abs(change) < AS_FAST:
        return "as fast"
    return f"{100 * abs(change):.1f} % {'faster' if change > 0 else 'slower'}"
