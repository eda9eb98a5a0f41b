"""Prediction intervals from residuals: split-conformal, each residual measured in the scatter of its regime.

The residual of a run is ln(measured / predicted). A regime, such as a stack on a device in one precision class, has
a scatter above and one below the prediction: the mean absolute residual of its runs on that side, drawn towards the
scatter of the wider regime by a prior weight (few runs say little). Divided by the scatter that the *other* groups
of the regime give, residuals of all regimes are taken as exchangeable; of the n scores of a pool the k-th smallest
and k-th largest with k = floor((n + 1) (1 - nominal) / 2) bound a new one with the nominal probability (normalised
scores: Papadopoulos et al., ECML 2002; split-conformal: Lei et al., JASA 2018).

Runs of one source, model and mapping resemble each other: a group of n runs weighs as sqrt(n) runs, and coverage
is measured by leaving out whole groups (`held_out`), never single runs.
"""

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from towtank.validation.features import Features

_SMALL_JOB = 64
"""Devices up to which a job is small: within it networks hardly matter."""

Key = tuple[str, ...]
"""Pool, then the values of the keys of a level."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A validated run: its features, residual ln(measured / predicted), and group of (source, model, mapping)."""

    features: Features
    residual: float
    group: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How residuals are pooled."""

    nominal: float
    levels: tuple[tuple[str, ...], ...]
    """Keys of the regimes, the widest first; the first level is empty: everything in the pool."""
    apart: tuple[str, ...]
    """Stacks that make a pool of their own."""
    prior_weight: float
    """Weight, in runs, of the wider regime's scatter."""

    def keys(self, features: Features) -> list[Key]:
        """Regimes of a run, the widest first."""
        values = {
            "device": features.device,
            "stack": features.stack,
            "precision": "fp8 class" if features.precision in ("fp8", "mxfp8", "nvfp4") else "16-bit",
            "moe": "MoE" if features.moe else "dense",
            "pipeline": "pipelined" if features.pipelined else "no pipeline",
            "tensor": "tensor across nodes" if features.tensor_across_nodes else "tensor in the node",
            "scale": "above 64 devices" if features.num_devices > _SMALL_JOB else "up to 64 devices",
        }
        return [(self.pool(features), *(values[name] for name in level)) for level in self.levels]

    def pool(self, features: Features) -> str:
        """Pool whose scores bound the run."""
        return features.stack if features.stack in self.apart else "pool"


@dataclass(frozen=True, slots=True)
class Scatter:
    """Residuals of a regime: sums of weight and of weighted residual above and below zero, and the runs behind."""

    weight: float
    above: float
    below: float
    rows: int

    def without(self, other: "Scatter") -> "Scatter":
        """The same less a part of it."""
        return Scatter(
            self.weight - other.weight,
            max(0.0, self.above - other.above),
            max(0.0, self.below - other.below),
            self.rows - other.rows,
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """Bounds of the residual in units of the scatter: `low` at most 0, `high` at least 0."""

    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """Scatter of every regime and the scores of every pool."""

    scatters: Mapping[Key, Scatter]
    scores: Mapping[str, Scores]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Factors on the predicted step time; the narrowest regime with `TOLD_FROM` runs or more, and how many it has."""

    low: float
    high: float
    regime: Key
    rows: int


TOLD_FROM = 19
"""Fewest runs from which 90 % can be read: a smaller regime shapes an interval, but does not stand for it."""

FLOOR = 0.01
"""Least scatter of a regime: repeated runs of one configuration differ by about a percent."""


def fit(samples: Sequence[Sample], settings: Settings) -> Fitted:
    """Scatters of all regimes, and scores of the samples against the scatter of the other groups."""
    scatters = _scatters(samples, settings)
    by_group: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_group[sample.group].append(sample)
    scores: dict[str, list[float]] = defaultdict(list)
    for group in by_group.values():
        own = _scatters(group, settings)
        for sample in group:
            keys = settings.keys(sample.features)
            chain = [scatters[key].without(own[key]) for key in keys]
            above, below = _shrunk(chain, settings.prior_weight)
            score = sample.residual / (above if sample.residual > 0 else below)
            scores[settings.pool(sample.features)].append(score)
    return Fitted(scatters, {pool: scores_of(found, settings.nominal) for pool, found in scores.items()})


def _scatters(samples: Iterable[Sample], settings: Settings) -> dict[Key, Scatter]:
    samples = list(samples)
    sizes = Counter(sample.group for sample in samples)
    sums: dict[Key, list[float]] = {}
    for sample in samples:
        weight = sizes[sample.group] ** -0.5
        for key in settings.keys(sample.features):
            one = sums.setdefault(key, [0.0, 0.0, 0.0, 0.0])
            one[0] += weight
            one[1] += weight * max(sample.residual, 0.0)
            one[2] += weight * max(-sample.residual, 0.0)
            one[3] += 1
    return {key: Scatter(one[0], one[1], one[2], int(one[3])) for key, one in sums.items()}


def _shrunk(chain: Iterable[Scatter], prior_weight: float) -> tuple[float, float]:
    """Scatter above and below of the last regime of a chain, each drawn towards that of the wider one before it."""
    above = below = 0.0
    known = 0.0
    for regime in chain:
        if regime.weight < 1e-9:
            break
        share = regime.weight / (regime.weight + known)
        above = share * regime.above / regime.weight + (1 - share) * above
        below = share * regime.below / regime.weight + (1 - share) * below
        known = prior_weight
    return max(above, FLOOR), max(below, FLOOR)


def scores_of(scores: Sequence[float], nominal: float) -> Scores:
    """Conformal bounds of scores. With too few for the level they are the extremes.

    The prediction itself always lies inside: an interval that excludes its own prediction confuses more than a
    slightly wider one.
    """
    ordered = sorted(scores)
    # 1 - 0.9 is a little below 0.1, which must not cost a whole rank
    k = max(1, math.floor((len(ordered) + 1) * (1 - nominal) / 2 + 1e-9))
    return Scores(min(ordered[k - 1], 0.0), max(ordered[-k], 0.0), len(ordered))


def bounds(fitted: Fitted, features: Features, settings: Settings) -> Bounds:
    """Bounds of a run. A pool without any run takes the scores and scatters of the common pool.

    Raises:
        KeyError: the common pool is needed and has no run.
    """
    keys = settings.keys(features)
    if keys[0] not in fitted.scatters:
        keys = [("pool", *key[1:]) for key in keys]
    chain = [fitted.scatters[key] for key in keys if key in fitted.scatters]
    above, below = _shrunk(chain, settings.prior_weight)
    scores = fitted.scores[keys[0][0]]
    told = [key for key in keys if key in fitted.scatters and fitted.scatters[key].rows >= TOLD_FROM]
    narrowest = told[-1] if told else keys[0]
    return Bounds(
        math.exp(scores.low * below),
        math.exp(scores.high * above),
        narrowest,
        fitted.scatters[narrowest].rows,
    )


def held_out(samples: Sequence[Sample], settings: Settings, folds: int) -> tuple[float, float] | None:
    """Coverage, and median half-width over the prediction, of intervals whose residuals come from other groups.

    None without samples.

    Groups are dealt to folds by a checksum of their name, so that the answer does not depend on the order of rows.
    """
    covered, widths = 0, []
    for fold in range(folds):
        inside = [sample for sample in samples if fold_of(sample.group, folds) != fold]
        outside = [sample for sample in samples if fold_of(sample.group, folds) == fold]
        fitted = fit(inside, settings)
        for sample in outside:
            try:
                found = bounds(fitted, sample.features, settings)
            except KeyError:  # every run of the common pool was in this fold
                continue
            covered += found.low <= math.exp(sample.residual) <= found.high
            widths.append((found.high - found.low) / 2)
    if not widths:
        return None
    return covered / len(widths), sorted(widths)[len(widths) // 2]


def fold_of(group: str, folds: int) -> int:
    """Fold of a group, the same in every process."""
    return zlib.crc32(group.encode()) % folds
