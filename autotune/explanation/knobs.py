"""What of a machine can be turned: each knob multiplies figures of the profile that belong together."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from towtank.autotune.errors import TuningError
from towtank.hardware_profiles.errors import UnitError
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.records import Device, Machine, Network, Node
from towtank.hardware_profiles.units import Dimension, parse_quantity


@dataclass(frozen=True, slots=True)
class Knob:
    """One property of a machine."""

    name: str
    description: str
    dimension: Dimension
    value: Callable[[Machine], float | None]
    """Its present figure in SI; None: unknown."""
    turn: Callable[[Machine, float], Machine]
    """The machine with that property multiplied."""

    def acts_on(self, machine: Machine) -> bool:
        """Whether times follow the property: those of a calibrated machine are its measured ones."""
        return machine.calibration is None or self.dimension == "bytes"


def _scaled(record: Any, factor: float, *names: str) -> Any:
    changed = {name: getattr(record, name) * factor for name in names if getattr(record, name) is not None}
    return replace(record, **changed)


def _all(values: Mapping[Any, float], factor: float) -> dict[Any, float]:
    return {key: value * factor for key, value in values.items()}


def _flop(machine: Machine, factor: float) -> Machine:
    device = machine.device
    peaks, reached = _all(device.peak_flop_per_s, factor), _all(device.achievable_flop_per_s, factor)
    return replace(machine, device=replace(device, peak_flop_per_s=peaks, achievable_flop_per_s=reached))


def _device(*names: str) -> Callable[[Machine, float], Machine]:
    def turn(machine: Machine, factor: float) -> Machine:
        device: Device = _scaled(machine.device, factor, *names)
        return replace(machine, device=device)

    return turn


def _bus(machine: Machine, factor: float, *, across: bool) -> dict[tuple[int, int], float]:
    """Measured bus bandwidths, those of groups across nodes or those within them multiplied."""
    return {
        (inner, own): value * factor if (inner * own > machine.node.devices) == across else value
        for (inner, own), value in machine.measured_bus_bandwidth_bytes_per_s.items()
    }


_LINKS = (
    "pair_bandwidth_max_bytes_per_s", "pair_bandwidth_min_bytes_per_s", "device_bandwidth_bytes_per_s",
    "collective_bandwidth_bytes_per_s", "tensor_bandwidth_bytes_per_s", "staged_bandwidth_bytes_per_s",
    "measured_link_factor",
)  # fmt: skip


def _node_bandwidth(machine: Machine, factor: float) -> Machine:
    node: Node = _scaled(machine.node, factor, *_LINKS)
    return replace(machine, node=node, measured_bus_bandwidth_bytes_per_s=_bus(machine, factor, across=False))


def _network_bandwidth(machine: Machine, factor: float) -> Machine:
    node: Node = _scaled(machine.node, factor, "nic_bandwidth_bytes_per_s", "injection_bytes_per_s")
    return replace(machine, node=node, measured_bus_bandwidth_bytes_per_s=_bus(machine, factor, across=True))


def _node_latency(machine: Machine, factor: float) -> Machine:
    node: Node = _scaled(machine.node, factor, "latency_s", "latency_ll128_s", "measured_latency_factor")
    return replace(machine, node=node)


def _network_latency(machine: Machine, factor: float) -> Machine:
    network: Network = _scaled(machine.network, factor, "latency_s", "latency_ll128_s")
    return replace(machine, network=network)


def _peak(machine: Machine) -> float | None:
    peaks = machine.device.peak_flop_per_s
    return peaks.get("bf16") or peaks.get("fp16") or max(peaks.values(), default=None)


KNOBS = (
    Knob("device.flop", "arithmetic of a device, all precisions (bf16 is the figure)", "flop_per_s", _peak, _flop),
    Knob(
        "device.hbm_bandwidth", "memory bandwidth of a device", "bytes_per_s",
        lambda machine: machine.device.memory_bandwidth_bytes_per_s, _device("memory_bandwidth_bytes_per_s"),
    ),
    Knob(
        "device.hbm", "memory of a device", "bytes",
        lambda machine: machine.device.memory_capacity_bytes, _device("memory_capacity_bytes"),
    ),
    Knob(
        "node.bandwidth", "links inside a node (a device's to all others is the figure)", "bytes_per_s",
        lambda machine: machine.node.device_bandwidth_bytes_per_s, _node_bandwidth,
    ),
    Knob("node.latency", "latency inside a node", "seconds", lambda machine: machine.node.latency_s, _node_latency),
    Knob(
        "network.bandwidth", "network interfaces of a node (all of them together are the figure)", "bytes_per_s",
        lambda machine: machine.node.injection_bytes_per_s, _network_bandwidth,
    ),
    Knob(
        "network.latency", "latency between nodes", "seconds",
        lambda machine: machine.network.latency_s, _network_latency,
    ),
)  # fmt: skip

_MOST_FACTOR = 1e6
_SETTING = re.compile(r"([a-z_.]+)\s*(\*=|/=|=)\s*(.+)")


def knob(name: str) -> Knob:
    """A knob by name.

    Raises:
        TuningError: there is none of that name.
    """
    for one in KNOBS:
        if one.name == name:
            return one
    names = [one.name for one in KNOBS]
    raise TuningError(
        [f"{name} cannot be set{did_you_mean(name, names)} (known: {', '.join(names)})"], "what-if"
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One change of a machine, as asked for."""

    text: str
    knob: Knob
    factor: float | None
    """What the property is multiplied by; None: it is set."""
    value: float | None
    """What it is set to, in SI; None: it is multiplied."""


def parse_what_if(texts: Sequence[str]) -> tuple[Setting, ...]:
    """Settings such as `network.bandwidth*=2`, `network.latency/=2` or `device.hbm=192GB`.

    Raises:
        TuningError: every setting that is wrong for any machine.
    """
    faults: list[str] = []
    found: list[Setting] = []
    for text in texts:
        try:
            found.append(_parsed(text))
        except TuningError as error:
            faults += error.faults
    if faults:
        raise TuningError(faults, "what-if")
    return tuple(found)


def _parsed(text: str) -> Setting:
    match = _SETTING.fullmatch(text.strip())
    if match is None:
        raise TuningError([f"{text!r} must be like network.bandwidth*=2 or device.hbm=192GB"], "what-if")
    name, operator, word = match.groups()
    chosen = knob(name)
    if operator != "=":
        factor = _factor(text, word)
        return Setting(text, chosen, factor if operator == "*=" else 1 / factor, None)
    try:
        value = parse_quantity(word, chosen.dimension)
    except UnitError as error:
        raise TuningError([f"{text!r}: {error}"], "what-if") from error
    if value <= 0:
        raise TuningError([f"{text!r}: must be more than 0"], "what-if")
    return Setting(text, chosen, None, value)


def _factor(text: str, word: str) -> float:
    try:
        factor = float(word)
    except ValueError:
        factor = 0.0
    if not 1 / _MOST_FACTOR <= factor <= _MOST_FACTOR:
        raise TuningError(
            [f"{text!r}: {word} must be a number from {1 / _MOST_FACTOR:g} to {_MOST_FACTOR:g}"], "what-if"
        )
    return factor


def turned(machine: Machine, texts: Sequence[str]) -> Machine:
    """The machine with settings as `parse_what_if` reads them, one after the other.

    Raises:
        TuningError: every setting that is wrong.
    """
    settings = parse_what_if(texts)
    faults: list[str] = []
    other = machine
    for one in settings:
        try:
            other = _set(machine, other, one)
        except TuningError as error:
            faults += error.faults
    if faults:
        raise TuningError(faults, "what-if")
    return other


def _set(whole: Machine, machine: Machine, one: Setting) -> Machine:
    """`machine` with one more setting; `whole` is as its profile has it."""
    text, chosen = one.text, one.knob
    if not chosen.acts_on(machine):
        raise TuningError(
            [f"{text!r}: times of {machine.name} were measured on it as it is, so {chosen.name} cannot be changed"],
            "what-if",
        )  # fmt: skip
    present = chosen.value(machine)
    if one.value is not None and not present:
        raise TuningError(
            [f"{text!r}: {chosen.name} of {machine.name} is unknown, so nothing can be set in its place"], "what-if"
        )  # fmt: skip
    factor = one.factor if one.factor is not None else (one.value or 0.0) / (present or 1.0)
    other = chosen.turn(machine, factor)
    if other == machine and factor != 1:
        raise TuningError(
            [f"{text!r}: {chosen.name} of {machine.name} is unknown, so nothing can be multiplied"], "what-if"
        )
    before, after = chosen.value(whole), chosen.value(other)
    if before and after and not 1 / _MOST_FACTOR <= after / before <= _MOST_FACTOR:
        raise TuningError(
            [f"{text!r}: makes {chosen.name} {after / before:.3g} times that of {machine.name}; "
             f"from {1 / _MOST_FACTOR:g} to {_MOST_FACTOR:g} times is possible"], "what-if"
        )  # fmt: skip
    return other
