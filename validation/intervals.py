"""The interval of a prediction: read from the file that `make validate` writes, and as text and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.validation.conformal import Fitted, Sample, Scatter, Scores, Settings, bounds, fit
from towtank.validation.features import Features, features_of
from towtank.validation.scope import range_of, reasons

if TYPE_CHECKING:
    from towtank.simulator.predict import Prediction

FILE = Path(__file__).parent / "published" / "intervals.json"


@dataclass(frozen=True, slots=True)
class Interval:
    """Interval of a step time at the nominal level."""

    low_s: float
    high_s: float
    nominal: float
    regime: str
    """Narrowest regime of the prediction with enough published runs to speak of."""
    rows: int
    """Runs of that regime."""
    extrapolated: tuple[str, ...]
    """Why the prediction goes beyond what was validated, one sentence each; empty if it does not."""
    runs: str = "published runs"
    """What `rows` counts."""


def to_mapping(samples: Sequence[Sample], settings: Settings) -> dict[str, Any]:
    """Content of the file that predictions read."""
    fitted = fit(samples, settings)
    return {
        "note": "written by `make validate` from the published runs; see validation/conformal.py",
        "settings": asdict(settings),
        "rows": len(samples),
        "validated": range_of(sample.features for sample in samples),
        "scores": {pool: asdict(scores) for pool, scores in sorted(fitted.scores.items())},
        "scatters": [
            {
                "key": list(key),
                "weight": round(one.weight, 4),
                "above": round(one.above, 5),
                "below": round(one.below, 5),
                "rows": one.rows,
            }
            for key, one in sorted(fitted.scatters.items())
        ],
    }


@cache
def _shipped() -> tuple[Fitted, Mapping[str, Any], Settings]:
    data = json.loads(FILE.read_text(encoding="utf-8"))
    fitted = Fitted(
        {
            tuple(one["key"]): Scatter(one["weight"], one["above"], one["below"], one["rows"])
            for one in data["scatters"]
        },
        {pool: Scores(**scores) for pool, scores in data["scores"].items()},
    )
    return fitted, data["validated"], settings_from(data["settings"])


def settings_from(data: Mapping[str, Any]) -> Settings:
    """Settings from a mapping; keys that are none of ours are left out."""
    return Settings(
        nominal=data["nominal"],
        levels=tuple(tuple(level) for level in data["levels"]),
        apart=tuple(data["apart"]),
        prior_weight=data["prior_weight"],
    )


def interval(features: Features, step_time_s: float) -> Interval:
    """Interval of a predicted step time in seconds, and whether the prediction extrapolates.

    Raises:
        OSError: the file of intervals is missing; `make validate` writes it.
    """
    fitted, validated, shipped = _shipped()
    found = bounds(fitted, features, shipped)
    return Interval(
        step_time_s * found.low,
        step_time_s * found.high,
        shipped.nominal,
        ", ".join(found.regime[1:]) or "all runs",
        found.rows,
        reasons(features, validated),
    )


@dataclass(frozen=True, slots=True)
class Regime:
    """What published runs of one regime say of their predictions. A group of n runs that resemble each other weighs
    as sqrt(n) runs."""

    name: str
    rows: int
    error: float
    """Mean of |ln(measured / predicted)|: 0.05 is an error of 5 %."""
    bias: float
    """Mean of ln(measured / predicted): above 0 where steps took longer than predicted."""


def regimes_of(prediction: "Prediction") -> tuple[Regime, ...]:
    """The regimes of a prediction, the widest first, with the errors of their published runs; none on a calibrated
    machine, whose steps are judged by its own."""
    calibration = prediction.machine.calibration
    if calibration is not None and calibration.steps is not None:
        return ()
    fitted, _, shipped = _shipped()
    keys = shipped.keys(features_of(prediction))
    if keys[0] not in fitted.scatters:
        keys = [("pool", *key[1:]) for key in keys]
    return tuple(
        Regime(
            ", ".join(key[1:]) or "all runs",
            one.rows,
            (one.above + one.below) / one.weight,
            (one.above - one.below) / one.weight,
        )
        for key in keys
        if (one := fitted.scatters.get(key)) is not None and one.weight > 0
    )


def attach_interval(prediction: "Prediction") -> Interval:
    """The interval of a prediction: from the shipped validation, or, on a calibrated machine, from the steps that its
    calibration was fitted to, 90 % of which were predicted so closely. See `interval`."""
    calibration = prediction.machine.calibration
    if calibration is not None and calibration.steps is not None:
        factor, steps = 1.0 + calibration.steps.p90, calibration.steps.samples
        regime, what = f"of calibration {calibration.name}", "steps"
        time_s = prediction.step_time_s
        return Interval(time_s / factor, time_s * factor, 0.9, regime, steps, (), what)
    return interval(features_of(prediction), prediction.step_time_s)


def interval_to_mapping(interval: Interval) -> dict[str, Any]:
    """Keys that an interval adds to the JSON document of a prediction."""
    return {
        "interval_90_s": [interval.low_s, interval.high_s],
        "interval_regime": interval.regime,
        "interval_runs": interval.rows,
        "extrapolated": list(interval.extrapolated),
    }
