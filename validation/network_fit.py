"""Predictions beside a run of nccl-tests, and latency and bandwidth of a machine fitted to it.

Two factors are fitted: on every latency of the library's costs (start and steps) and on the bandwidth that it
reaches, of the network where the group leaves its node and of the links inside a node else. Least squares of the
logarithm of time with Cauchy's loss at 10 %, so that a few odd rows do not decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from towtank.hardware_profiles.records import Machine
from towtank.simulator.network.benchmark import Answer, Setting
from towtank.simulator.network.libraries import Collective
from towtank.simulator.network.matching import Scale

MARGIN = 0.1
LEAST_ROWS = 3
FARTHEST = 5.0
"""Logarithm of the largest factor that a fit may take, 150."""
TELLS = 0.05
"""A factor is fitted only if changing it by 1 % changes times by 0.05 % or more, root mean square over the rows."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One message size; times in seconds."""

    num_bytes: float
    measured_s: float
    predicted: Answer

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted.time_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class Fit:
    """Factors on the costs of a library, and the rows after the fit. None: the rows do not tell this factor."""

    latency: float | None
    bandwidth: float | None
    rows: tuple[Compared, ...]

    @property
    def scale(self) -> Scale:
        """Factors, 1 where the rows do not tell."""
        return Scale(self.latency or 1.0, self.bandwidth or 1.0)


def compare(
    setting: Setting, collective: Collective, measured: Sequence[tuple[float, float]]
) -> tuple[Compared, ...]:
    """Predictions beside rows of (bytes, seconds)."""
    return tuple(
        Compared(num_bytes, time_s, setting.answer(collective, num_bytes)) for num_bytes, time_s in measured
    )


def median_error(rows: Sequence[Compared]) -> float:
    """Median of the absolute errors."""
    return median(abs(row.error) for row in rows)


def fit(setting: Setting, collective: Collective, measured: Sequence[tuple[float, float]]) -> Fit:
    """Latency and bandwidth factors that meet the rows best.

    Raises:
        ValueError: fewer than three rows.
    """
    from scipy.optimize import least_squares

    if len(measured) < LEAST_ROWS:
        raise ValueError(
            f"a fit of latency and bandwidth needs {LEAST_ROWS} rows or more, got {len(measured)}"
        )
    logs = np.log([time_s for _, time_s in measured])

    def residuals(logarithms: Any) -> Any:
        taken = setting.scaled(Scale(*np.exp(logarithms).tolist()))
        times = [taken.choice(collective, num_bytes).time_s for num_bytes, _ in measured]
        return np.log(times) - logs

    found = least_squares(
        residuals,
        np.zeros(2),
        bounds=([-FARTHEST, -FARTHEST], [FARTHEST, _most_bandwidth(setting)]),
        loss="cauchy",
        f_scale=MARGIN,
        diff_step=1e-3,
        max_nfev=100,
    )
    step = 0.01
    told = [
        float(np.sqrt(np.mean((residuals(found.x + shift) - residuals(found.x - shift)) ** 2))) / (2 * step)
        >= TELLS
        for shift in (np.array([step, 0.0]), np.array([0.0, step]))
    ]
    latency, bandwidth = (
        float(value) if known else None for value, known in zip(np.exp(found.x), told, strict=True)
    )
    scale = Scale(latency or 1.0, bandwidth or 1.0)
    return Fit(latency, bandwidth, compare(setting.scaled(scale), collective, measured))


def _most_bandwidth(setting: Setting) -> float:
    """Logarithm of the largest factor on the bandwidth: a profile's efficiency ends at 1."""
    efficiency = setting.machine.network.efficiency
    if setting.links.network is None or efficiency is None:
        return FARTHEST
    return max(float(np.log(1.0 / efficiency)), 1e-9)


def profile(fitted: Fit, setting: Setting, name: str, source: str) -> str:
    """Text of a machine profile that comes from the setting's machine and has the fitted figures.

    `name` is the new profile's; `source` says what was measured.
    """
    sections = _network(fitted, setting) if setting.links.network is not None else _node(fitted, setting)
    lines = [
        "# Written by `towtank network import --calibrate`; it belongs into the folder machines of --profiles DIR.",
        f"name: {name}",
        f"from: {setting.machine.name}",
        f"description: {_quoted(f'{setting.machine.name} with figures fitted to nccl-tests')}",
        "sources:",
        "  fitted:",
        f"    text: {_quoted(source)}",
        "    provenance: calibration",
        *_other_source(setting),
        *sections,
    ]
    return "\n".join(lines) + "\n"


def _other_source(setting: Setting) -> list[str]:
    """Source of what the machine has measured for groups inside its nodes."""
    source = setting.machine.sources.get("measured_bus_bandwidth_bytes_per_s")
    if source is None or setting.links.network is not None:
        return []
    return ["  before:", f"    text: {_quoted(source.text)}", f"    provenance: {source.provenance}"]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _latencies(part: Any, factor: float) -> list[str]:
    """Latencies of a node or a network times `factor`, those that are known."""
    return [
        f"  {key}: {{value: {value * factor * 1e6:.4g} us, source: fitted}}"
        for key, value in (("latency", part.latency_s), ("latency_ll128", part.latency_ll128_s))
        if value is not None
    ]


def _network(fitted: Fit, setting: Setting) -> list[str]:
    network = setting.machine.network
    lines = _latencies(network, fitted.latency) if fitted.latency is not None else []
    if fitted.bandwidth is not None and network.efficiency is not None:
        value = network.efficiency * fitted.bandwidth
        lines.append(f"  efficiency: {{value: {value:.4g}, source: fitted}}")
    return ["network:", *lines]


def _node(fitted: Fit, setting: Setting) -> list[str]:
    """Latency of the node's links, and the bus bandwidth of this group in front of what the machine has measured."""
    lines = ["node:", *_latencies(setting.machine.node, fitted.latency)] if fitted.latency is not None else []
    if fitted.bandwidth is None:
        return lines
    width = setting.together.inside_bytes_per_s * setting.links.fabric.reach["all_reduce"] * fitted.bandwidth
    rows = [_measured(setting.stride, setting.together.size, width, "source: fitted")]
    return [*lines, "measured_bus_bandwidth:", *rows, *_kept(setting)]


def _measured(inner: int, own: int, bytes_per_s: float, source: str) -> str:
    return f"  - {{inner: {inner}, own: {own}, value: {bytes_per_s / 1e9:.4g} GB/s, {source}}}"


def _kept(setting: Setting) -> list[str]:
    """What the machine has measured for other groups: a list replaces the list below it."""
    machine: Machine = setting.machine
    own = (setting.stride, setting.together.size)
    table = machine.measured_bus_bandwidth_bytes_per_s
    return [_measured(*group, value, "source: before") for group, value in table.items() if group != own]
