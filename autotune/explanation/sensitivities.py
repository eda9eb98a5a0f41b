"""How much of the step time changes with each property of the machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from towtank.autotune.explanation.knobs import KNOBS, Knob
from towtank.hardware_profiles.records import Machine
from towtank.simulator.predict import Prediction, predict

STEP = 0.01
"""A property is raised and lowered by so much."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Change of the step time with 1 % more of one property, at the present machine."""

    knob: Knob
    elasticity: float | None
    """-0.8: 1 % more of it makes the step 0.8 % shorter. None: the machine's profile does not know the property."""


def sensitivities(prediction: Prediction, profile_dirs: Sequence[Path] = ()) -> tuple[Sensitivity, ...]:
    """Elasticities of the step time of this plan, the largest first.

    The mean of the difference with 1 % more, (t(1.01 x) - t(x)) / 0.01, and the central one,
    (t(1.01 x) - t(0.99 x)) / 0.02, over t(x): of a time that goes as 1 / x the first is 1 % less than the second.
    That of memory is 0: more of it makes no step faster, but other plans possible.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that the prediction needs.
    """
    found = [
        Sensitivity(
            knob,
            None if _is_unknown(prediction.machine, knob) else _elasticity(prediction, knob, profile_dirs),
        )
        for knob in KNOBS
    ]
    return tuple(sorted(found, key=lambda one: -abs(one.elasticity or 0.0)))


def _is_unknown(machine: Machine, knob: Knob) -> bool:
    """Whether the profile has no figure that the knob turns, or no time follows it."""
    return not knob.acts_on(machine) or knob.turn(machine, 1 + STEP) == machine


def _elasticity(prediction: Prediction, knob: Knob, profile_dirs: Sequence[Path]) -> float:
    def seconds(factor: float) -> float:
        machine = knob.turn(prediction.machine, factor)
        return predict(
            prediction.model, machine, prediction.plan, stack=prediction.stack, profile_dirs=profile_dirs
        ).step_time_s

    now, more, less = prediction.step_time_s, seconds(1 + STEP), seconds(1 - STEP)
    return ((more - now) / STEP + (more - less) / (2 * STEP)) / 2 / now
