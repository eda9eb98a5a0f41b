"""Rows of a breakdown in the words of the field, and times and sizes as a reason prints them."""

from collections.abc import Mapping

from towtank.simulator.critical_path import PathPart
from towtank.simulator.plan import Plan

_PLAIN: Mapping[str, str] = {
    "matmul": "matrix multiplies",
    "recompute": "recomputation",
    "elementwise": "element-wise kernels",
    "launches": "kernel launches",
    "contention": "kernels slowed beside collectives",
    "bubble": "pipeline bubble",
    "idle": "idle at the end",
}

_GROUPS: Mapping[str, str] = {
    "tensor_x": "tensor-parallel {} over x",
    "tensor_y": "tensor-parallel {} over y",
    "tensor_xy": "tensor-parallel {} over x and y",
    "tensor_z": "{} over z",
    "context": "context-parallel {}",
    "expert": "expert-parallel {}",
    "expert_tensor": "{} of expert tensor parallelism",
    "pipeline": "pipeline {}",
}
_OF_SHARDS: Mapping[str, str] = {"all-gather": "sharded weights", "reduce-scatter": "sharded gradients"}


def exposed(kind: str) -> bool:
    """Whether a row of the breakdown is communication that compute waits for."""
    return kind.startswith("exposed ")


def words(kind: str, plan: Plan) -> str:
    """What a row of the breakdown of a plan's step is called, without "exposed"."""
    if not exposed(kind):
        return _PLAIN.get(kind, kind)
    what = kind.removeprefix("exposed ")
    collective, _, group = what.rpartition(" ")
    if what == "gradient reduction data":
        return f"data-parallel {_gradient_collective(plan)}"
    if what == "parameter all-gather data":
        return "data-parallel all-gather of parameters"
    if group in ("weight_shard", "expert_shard"):
        experts = " of experts" if group == "expert_shard" else ""
        return f"{collective} of {_OF_SHARDS.get(collective, 'shards')}{experts}"
    return _GROUPS.get(group, "{} over " + group).format(collective)


def path_words(part: PathPart, plan: Plan) -> str:
    """What a part of the critical path is called, as the same work is in the breakdown."""
    return words(f"exposed {part.kind}" if part.resource.startswith("network") else part.kind, plan)


def _gradient_collective(plan: Plan) -> str:
    """How gradients are reduced over data (`lowering.weights.gradient_messages`)."""
    if plan.zero_stage in (1, 2):
        return "reduce-scatter" if plan.replicate_degree == 1 else "reduce-scatter and all-reduce"
    return "all-reduce"


def seconds(value_s: float) -> str:
    """A time with two or three digits, such as `210 ms`, `1.24 s`."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value_s >= 0.9995 * size or unit == "us":
            return f"{_digits(value_s / size)} {unit}"
    raise AssertionError("the loop returns")


def _digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def percent(fraction: float) -> str:
    """A fraction in percent: whole from 10 on, else with one digit after the point."""
    value = 100 * fraction
    return f"{value:,.0f} %" if value >= 9.95 else f"{value:.1f} %"


def gibibytes(value_bytes: float) -> str:
    """A size in GiB; a small one keeps two digits, so that what is missing is never nothing."""
    value = value_bytes / 2**30
    return f"{value:,.1f} GiB" if value >= 0.05 else f"{value:.2g} GiB"
