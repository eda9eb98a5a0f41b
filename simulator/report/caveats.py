"""What a reader must know before trusting a prediction."""

from towtank.hardware_profiles.records import Machine
from towtank.simulator.predict import Prediction

_NETWORK_FIGURES = ("node.injection_bytes_per_s", "network.latency_s", "network.efficiency")
_NODE_FIGURES = ("node.latency_s", "node.device_bandwidth_bytes_per_s", "node.pair_bandwidth_max_bytes_per_s")


def caveats(prediction: Prediction) -> tuple[str, ...]:
    """Sentences of warning, the weightiest first; empty for a prediction on firm ground."""
    machine, stack = prediction.machine, prediction.stack
    found = []
    if not prediction.fits:
        missing = prediction.peak_memory_bytes - prediction.memory_capacity_bytes
        found.append(
            f"the plan does not fit: stage {prediction.peak_stage.stage} needs {missing:,.0f} bytes "
            f"({missing / 2**30:.1f} GiB) more than a device has"
        )
    if stack.fitted.source.startswith("not fitted"):
        found.append(f"stack {stack.name} is not fitted to any published run")
    if machine.device.measured_as != machine.device.name:
        found.append(
            f"{machine.device.name} was not measured; its kernels follow {machine.device.measured_as}"
        )
    if not prediction.surroundings.plain:
        found.append(
            "no published run names its placement or the traffic beside it: these were never validated"
        )
    if recalled := _recalled(machine, prediction.plan.num_devices > machine.node.devices):
        found.append(f"{machine.name}: {', '.join(recalled)} recalled, not read at a source")
    return tuple(found)


def _recalled(machine: Machine, several_nodes: bool) -> list[str]:
    """Link figures of the machine that the prediction may rest on and that nobody looked up."""
    names = _NODE_FIGURES + (_NETWORK_FIGURES if several_nodes else ())
    return [
        name for name in names if name in machine.sources and machine.sources[name].provenance == "recalled"
    ]
