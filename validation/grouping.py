"""Groups of runs: devices, sources, scales, sweeps."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from towtank.validation.conformal import Settings
from towtank.validation.evaluate import Result
from towtank.validation.intervals import settings_from
from towtank.validation.mapping.rules import matches
from towtank.validation.rows import Run

_FILE = Path(__file__).parent / "groups.yaml"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def definitions() -> Mapping[str, Any]:
    """Content of groups.yaml."""
    found: Mapping[str, Any] = yaml.load(_FILE.read_text(encoding="utf-8"), Loader=_Loader)
    return found


def interval_settings() -> Settings:
    """Settings of groups.yaml, with which intervals are fitted; a prediction reads those of its shipped file."""
    return settings_from(definitions()["intervals"])


@cache
def source_family(source: str) -> str:
    """Short name of the family that a source belongs to; a source of no family is its own."""
    for pattern, name in definitions()["families"]:
        if re.search(pattern, source, re.IGNORECASE):
            return str(name)
    return re.sub(r"\s*\(.*", "", source) or "not stated"


def group_of(run: Run) -> str:
    """Group of (family of the source, model, mapping): its runs differ in scale, batch and precision."""
    mapping = (run.tp, run.pp, run.vpp, run.cp, run.ep, run.zero_stage, run.recompute)
    return "|".join(
        [source_family(run.source), run.model, *("" if part is None else str(part) for part in mapping)]
    )


def precision_class(precision: str) -> str:
    """`fp8 class` for 8 and 4 bits, else `16-bit`, `32-bit`."""
    if precision in definitions()["narrow_precisions"]:
        return "fp8 class"
    return "32-bit" if precision in ("fp32", "tf32") else "16-bit"


def scale(num_devices: int) -> str:
    """Range of device counts, such as `9 to 64`."""
    edges: Sequence[int] = definitions()["scales"]
    for low, high in pairwise((0, *edges)):
        if num_devices <= high:
            return f"{low + 1} to {high}"
    return f"above {edges[-1]}"


def scale_order(name: str) -> int:
    """Sorts the names of `scale` by size."""
    return 10**9 if name.startswith("above") else int(name.split()[0])


KEYS: Mapping[str, Callable[[Result], str]] = {
    "device": lambda result: result.run.device,
    "source": lambda result: source_family(result.run.source),
    "model type": lambda result: "MoE" if result.moe else "dense",
    "precision": lambda result: precision_class(result.precision),
    "framework": lambda result: result.stack,
    "devices": lambda result: scale(result.num_devices),
}
"""Tables of a report: what each groups by."""


def grouped(results: Iterable[Result], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    """Results by key, in order of appearance."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def in_group(result: Result, name: str) -> bool:
    """Whether a result belongs to one of the named groups of groups.yaml."""
    return bool(matches(result.run, definitions()[name]))


def is_narrow(result: Result) -> bool:
    """Whether the run multiplies in 8 bits or less."""
    return precision_class(result.precision) == "fp8 class"


def sweeps(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Judged results by sweep; runs of no sweep are left out."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.error is None:
            continue
        for sweep in definitions()["sweeps"]:
            if matches(result.run, sweep["when"]):
                parts = [str(getattr(result.run, column)) for column in sweep["by"]]
                groups.setdefault(", ".join([sweep["name"], *parts]), []).append(result)
    return groups


def resolution(name: str) -> float:
    """Relative difference of two rates that a sweep (a key of `sweeps`) can tell from scatter."""
    own = (
        sweep.get("resolution") for sweep in definitions()["sweeps"] if name.split(", ")[0] == sweep["name"]
    )
    return float(next(own, None) or definitions()["resolution"])
