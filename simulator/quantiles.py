"""How much steps differ: quantiles of the step time where devices and interfaces differ, by Monte Carlo."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.records import known
from towtank.simulator.cost.model import CostModel
from towtank.simulator.network.surroundings import Surroundings
from towtank.simulator.predict import Prediction, timed
from towtank.simulator.waiting import compute_times, slowest_samples

_PACES = 5
"""Speeds of the slowest device at which the step is simulated; between them step times are straight lines."""


def step_quantiles(
    prediction: Prediction,
    probabilities: Sequence[float] = (0.05, 0.5, 0.95),
    *,
    draws: int = 2000,
    seed: int = 0,
    profile_dirs: tuple[Path, ...] = (),
) -> tuple[float, ...]:
    """Step times in seconds below which shares `probabilities` of jobs' steps lie, by the engine of the prediction.

    Each draw gives the slowest of the job's devices another speed, and its interfaces are all sound or not.

    Raises:
        UnknownFigure: neither the machine's profile nor the prediction tells how devices differ.
        ValueError: a probability outside of [0, 1], or a seed below 0.
    """
    machine, plan, around = prediction.machine, prediction.plan, prediction.surroundings
    times = compute_times(machine, around.variability, prediction.step_time_s)
    if times is None:
        known(machine, "speed_spread", None, needed_for="the spread of step times")
    assert times is not None
    pace = slowest_samples(times, plan.num_devices, draws, seed)
    found = _steps(prediction, pace, replace(around, slowest_link=1.0), profile_dirs)
    if (differ := around.variability) is not None:
        chance = differ.any_slow_link(-(-plan.num_devices // machine.node.devices))
        slow = np.random.default_rng((seed, 1)).uniform(size=draws) < chance
        if slow.any():
            links = replace(around, slowest_link=differ.slow_link_bandwidth)
            found[slow] = _steps(prediction, pace[slow], links, profile_dirs)
    return tuple(float(each) for each in np.quantile(found, probabilities))


def _steps(
    prediction: Prediction,
    pace: NDArray[np.float64],
    around: Surroundings,
    profile_dirs: tuple[Path, ...],
) -> NDArray[np.float64]:
    """Step times in seconds at each `pace` of the slowest device, shape of `pace` [draws]."""
    program = prediction.step.program
    plan, engine = program.sizes.plan, prediction.engine
    at = np.unique(np.linspace(pace.min(), pace.max(), _PACES))
    costs = (
        CostModel(
            prediction.machine,
            plan,
            prediction.stack,
            profile_dirs,
            float(each),
            crossing=engine != "flows",
            around=around,
        )
        for each in at
    )
    seconds = [timed(program, cost, engine).step_time_s for cost in costs]
    return np.interp(pace, at, seconds)
