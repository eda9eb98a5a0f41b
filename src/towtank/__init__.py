"""towtank: predict, search and calibrate large-scale LLM training before spending a node-hour."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.network.placement import Placed
    from towtank.simulator.network.surroundings import Surroundings
    from towtank.simulator.plan import Overlap, Plan
    from towtank.simulator.plan_file import dump_plan, load_plan
    from towtank.simulator.predict import Prediction, predict
    from towtank.simulator.stacks.load import load_stack

__version__ = "0.1.0"
__all__ = [
    "Overlap", "Placed", "Plan", "Prediction", "Surroundings", "dump_plan", "load_machine", "load_model", "load_plan",
    "load_stack", "predict",
]  # fmt: skip

_HOME = {
    "Overlap": "simulator.plan",
    "Placed": "simulator.network.placement",
    "Plan": "simulator.plan",
    "Prediction": "simulator.predict",
    "Surroundings": "simulator.network.surroundings",
    "dump_plan": "simulator.plan_file",
    "load_machine": "hardware_profiles.load",
    "load_model": "simulator.models.load",
    "load_plan": "simulator.plan_file",
    "load_stack": "simulator.stacks.load",
    "predict": "simulator.predict",
}


def __getattr__(name: str) -> Any:
    """Import public names at first use, so that `towtank --help` is instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'towtank' has no attribute {name!r}")
    return getattr(import_module(f"towtank.{_HOME[name]}"), name)
