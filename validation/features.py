"""What is known of a prediction before anyone runs it, and by which its interval is chosen."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towtank.simulator.predict import Prediction

COMPUTE = ("matmul", "attention", "elementwise", "recompute")
"""Parts of a step that are compute proper."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of a prediction."""

    device: str
    network: str
    stack: str
    precision: str
    moe: bool
    num_devices: int
    num_nodes: int
    pipelined: bool
    tensor_across_nodes: bool


def features_of(prediction: "Prediction") -> Features:
    """Features of a prediction."""
    machine, plan = prediction.machine, prediction.plan
    tensor = plan.tensor_x * plan.tensor_y * plan.tensor_z
    return Features(
        device=machine.device.name,
        network=machine.network.technology,
        stack=prediction.stack.name,
        precision=plan.precision,
        moe=prediction.model.experts is not None,
        num_devices=plan.num_devices,
        num_nodes=-(-plan.num_devices // machine.node.devices),
        pipelined=plan.pipeline > 1,
        tensor_across_nodes=tensor > machine.node.devices,
    )
