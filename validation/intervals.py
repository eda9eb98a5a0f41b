"""Prediction intervals from the errors on published runs: split-conformal by regime.

The residual of a run is ln(measured / predicted). Runs of one regime (device, stack, precision class, dense or
MoE, share of compute in the step) are taken as exchangeable; of the n residuals of the narrowest regime with
enough of them, the k-th smallest and k-th largest with k = floor((n + 1) (1 - nominal) / 2) bound a new one with
the nominal probability (Vovk et al., Algorithmic Learning in a Random World; Lei et al., JASA 2018).

Runs of one source, model and mapping resemble each other. Coverage is therefore measured by leaving out whole
groups (`held_out`), never single rows.
"""

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towtank.simulator.predict import Prediction

FILE = Path(__file__).parent / "published" / "intervals.json"

COMPUTE = ("matmul", "attention", "elementwise", "recompute")
"""Parts of a step that are compute proper."""


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of a prediction before anyone runs it."""

    device: str
    network: str
    stack: str
    precision: str
    moe: bool
    num_devices: int
    num_nodes: int
    compute_share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A validated run: its features, residual ln(measured / predicted), and group of (source, model, mapping)."""

    features: Features
    residual: float
    group: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Interval of a step time at the nominal level."""

    low_s: float
    high_s: float
    nominal: float
    regime: str
    """Runs that it was taken from."""
    rows: int
    extrapolated: tuple[str, ...]
    """Why the prediction goes beyond what was validated, one sentence each; empty if it does not."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Factors on the predicted step time, and what they rest on."""

    low: float
    high: float
    rows: int


Table = Mapping[tuple[str, ...], Bounds]
"""Bounds by regime: level number and values of its keys."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How residuals are pooled."""

    nominal: float
    levels: tuple[tuple[str, ...], ...]
    share_edges: tuple[float, ...]
    apart: tuple[str, ...]
    min_rows: int
    min_groups: int

    def keys(self, features: Features) -> list[tuple[str, ...]]:
        """Regimes of a run, the narrowest first."""
        pool = features.stack if features.stack in self.apart else "pool"
        values = {
            "device": features.device,
            "stack": features.stack,
            "precision": "fp8 class" if features.precision in ("fp8", "mxfp8", "nvfp4") else "16-bit",
            "moe": "MoE" if features.moe else "dense",
            "share": self.share_name(features.compute_share),
        }
        return [
            (str(number), pool, *(values[name] for name in level)) for number, level in enumerate(self.levels)
        ]

    def share_name(self, share: float) -> str:
        """Range of the compute share, such as `compute 50 % to 70 %`."""
        edges = (0.0, *self.share_edges, 1.0)
        for low, high in pairwise(edges):
            if share < high or high == 1.0:
                return f"compute {100 * low:.0f} % to {100 * high:.0f} %"
        raise AssertionError("the last edge holds everything")


def bounds_of(residuals: Sequence[float], nominal: float) -> Bounds:
    """Conformal bounds of exp(residual). With too few residuals for the level they are the extremes.

    The prediction itself always lies inside: an interval that excludes its own prediction confuses more than a
    slightly wider one.
    """
    ordered = sorted(residuals)
    # 1 - 0.9 is a little below 0.1, which must not cost a whole rank
    k = max(1, math.floor((len(ordered) + 1) * (1 - nominal) / 2 + 1e-9))
    low, high = ordered[k - 1], ordered[-k]
    return Bounds(math.exp(min(low, 0.0)), math.exp(max(high, 0.0)), len(ordered))


def fit(samples: Iterable[Sample], settings: Settings) -> dict[tuple[str, ...], Bounds]:
    """Bounds of every regime with enough rows and groups; the last level always has some."""
    pools: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        for key in settings.keys(sample.features):
            pools.setdefault(key, []).append(sample)
    last = str(len(settings.levels) - 1)
    return {
        key: bounds_of([sample.residual for sample in pool], settings.nominal)
        for key, pool in pools.items()
        if key[0] == last or _enough(pool, settings)
    }


def _enough(pool: Sequence[Sample], settings: Settings) -> bool:
    return len(pool) >= settings.min_rows and len({sample.group for sample in pool}) >= settings.min_groups


def lookup(table: Table, features: Features, settings: Settings) -> tuple[tuple[str, ...], Bounds]:
    """The narrowest regime of the table that a run belongs to."""
    keys = settings.keys(features)
    for key in keys:
        if key in table:
            return key, table[key]
    last = (keys[-1][0], "pool")
    return last, table[last]


def held_out(samples: Sequence[Sample], settings: Settings, folds: int = 10) -> tuple[float, float] | None:
    """Coverage, and median half-width over the prediction, of intervals whose residuals come from other groups.

    None without samples.

    Groups are dealt to folds by a checksum of their name, so that the answer does not depend on the order of rows.
    """
    covered, widths = 0, []
    for fold in range(folds):
        inside = [sample for sample in samples if fold_of(sample.group, folds) != fold]
        outside = [sample for sample in samples if fold_of(sample.group, folds) == fold]
        if not outside or not inside:
            continue
        table = fit(inside, settings)
        for sample in outside:
            try:
                _, bounds = lookup(table, sample.features, settings)
            except KeyError:  # every run of a pool was in this fold
                continue
            covered += bounds.low <= math.exp(sample.residual) <= bounds.high
            widths.append((bounds.high - bounds.low) / 2)
    if not widths:
        return None
    return covered / len(widths), sorted(widths)[len(widths) // 2]


def fold_of(group: str, folds: int) -> int:
    """Fold of a group, the same in every process."""
    return zlib.crc32(group.encode()) % folds


def range_of(samples: Iterable[Sample]) -> dict[str, Any]:
    """What was validated: devices with their largest run by network, precisions, and whether with experts; stacks."""
    devices: dict[str, dict[str, Any]] = {}
    stacks: set[str] = set()
    for sample in samples:
        features = sample.features
        stacks.add(features.stack)
        entry = devices.setdefault(
            features.device, {"largest": {}, "largest_in_node": 0, "precisions": set(), "moe": set()}
        )
        entry["precisions"].add(features.precision)
        entry["moe"].add(features.moe)
        if features.num_nodes > 1:
            known = entry["largest"].get(features.network, 0)
            entry["largest"][features.network] = max(known, features.num_devices)
        else:
            entry["largest_in_node"] = max(entry["largest_in_node"], features.num_devices)
    for entry in devices.values():
        entry["precisions"] = sorted(entry["precisions"])
        entry["moe"] = sorted(entry["moe"])
    return {"devices": devices, "stacks": sorted(stacks)}


def reasons(features: Features, validated: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a prediction extrapolates, one sentence each."""
    entry = validated["devices"].get(features.device)
    if entry is None:
        return (f"no validated run on {features.device}",)
    found = []
    if features.precision not in entry["precisions"]:
        found.append(f"no validated run in {features.precision} on this device")
    if features.moe not in entry["moe"]:
        found.append(f"no validated run of {'an MoE' if features.moe else 'a dense'} model on this device")
    if features.stack not in validated["stacks"]:
        found.append(f"no validated run of stack {features.stack}")
    largest = entry["largest"].get(features.network, 0)
    if features.num_nodes > 1 and not largest:
        found.append(f"no validated run across nodes of this device on {features.network}")
    elif features.num_nodes > 1 and features.num_devices > largest:
        found.append(f"no validated run above {largest:,} devices on this network")
    return tuple(found)


def to_mapping(samples: Sequence[Sample], settings: Settings) -> dict[str, Any]:
    """Content of the file that predictions read."""
    table = fit(samples, settings)
    return {
        "note": "written by `make validate` from the published runs; factors on the predicted step time",
        "settings": asdict(settings),
        "rows": len(samples),
        "validated": range_of(samples),
        "regimes": [
            {"key": list(key), "low": round(one.low, 4), "high": round(one.high, 4), "rows": one.rows}
            for key, one in sorted(table.items())
        ],
    }


@cache
def _shipped() -> tuple[Table, Mapping[str, Any], Settings]:
    data = json.loads(FILE.read_text(encoding="utf-8"))
    table = {tuple(one["key"]): Bounds(one["low"], one["high"], one["rows"]) for one in data["regimes"]}
    return table, data["validated"], settings_from(data["settings"])


def settings_from(data: Mapping[str, Any]) -> Settings:
    """Settings from a mapping; keys that are none of ours are left out."""
    return Settings(
        nominal=data["nominal"],
        levels=tuple(tuple(level) for level in data["levels"]),
        share_edges=tuple(data["share_edges"]),
        apart=tuple(data["apart"]),
        min_rows=data["min_rows"],
        min_groups=data["min_groups"],
    )


def interval(features: Features, step_time_s: float) -> Interval:
    """Interval of a predicted step time in seconds, and whether the prediction extrapolates.

    Raises:
        OSError: the file of intervals is missing; `make validate` writes it.
    """
    table, validated, shipped = _shipped()
    key, bounds = lookup(table, features, shipped)
    regime = ", ".join(part for part in key[2:] if part) or "all runs"
    return Interval(
        step_time_s * bounds.low,
        step_time_s * bounds.high,
        shipped.nominal,
        regime if key[1] == "pool" else f"{key[1]}: {regime}",
        bounds.rows,
        reasons(features, validated),
    )


def features_of(prediction: "Prediction") -> Features:
    """Features of a prediction."""
    machine, plan = prediction.machine, prediction.plan
    compute = sum(prediction.breakdown_s.get(part, 0.0) for part in COMPUTE)
    return Features(
        device=machine.device.name,
        network=machine.network.technology,
        stack=prediction.stack.name,
        precision=plan.precision,
        moe=prediction.model.experts is not None,
        num_devices=plan.num_devices,
        num_nodes=-(-plan.num_devices // machine.node.devices),
        compute_share=compute / prediction.step_time_s,
    )


def attach_interval(prediction: "Prediction") -> Interval:
    """The interval of a prediction, from the shipped validation. See `interval`."""
    return interval(features_of(prediction), prediction.step_time_s)


def interval_to_mapping(interval: Interval) -> dict[str, Any]:
    """Keys that an interval adds to the JSON document of a prediction."""
    return {
        "interval_90_s": [interval.low_s, interval.high_s],
        "interval_regime": interval.regime,
        "interval_runs": interval.rows,
        "extrapolated": list(interval.extrapolated),
    }
