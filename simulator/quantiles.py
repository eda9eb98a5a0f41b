"""How much steps differ: quantiles of the step time where devices differ in speed, by Monte Carlo."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from towtank.hardware_profiles.records import known
from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.predict import Prediction
from towtank.simulator.step import time_step
from towtank.simulator.waiting import compute_jitter, slowest_samples

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
    """Step times in seconds below which shares `probabilities` of jobs' steps lie.

    Each draw gives the slowest of the job's devices another speed.

    Raises:
        UnknownFigure: the machine's profile tells neither spread.
        ValueError: a probability outside of [0, 1].
    """
    jitter, devices = compute_jitter(prediction.machine), prediction.plan.num_devices
    if jitter is None:
        known(prediction.machine, "speed_spread", None, needed_for="the spread of step times")
    assert jitter is not None
    pace = slowest_samples(jitter, devices, draws, seed)
    at = np.linspace(pace.min(), pace.max(), _PACES)
    program = prediction.step.program
    seconds = [
        time_step(
            program,
            CostModel(
                prediction.machine,
                program.sizes.plan,
                prediction.stack,
                profile_dirs,
                float(each),
                around=prediction.surroundings,
            ),
            evaluate,
        ).step_time_s
        for each in at
    ]
    found = np.quantile(np.interp(pace, at, seconds), probabilities)
    return tuple(float(each) for each in found)
