"""Fine-tunes of which only is known that they were done: the best plan that fits, and its memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.scaling.series import ScalePoint
from towtank.autotune.scaling.study import Study, TunedPoint, tune_point
from towtank.hardware_profiles.files import StrictLoader
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.edge import read_record
from towtank.simulator.models.load import load_model
from towtank.simulator.stacks.load import load_stack

SEARCH_S = 20.0
GIB = 2.0**30
_DEGREES = ("tensor_x", "tensor_y", "tensor_z", "pipeline", "data", "micro_batch")
_FILE = Path(__file__).parent / "published" / "fine_tunes.yaml"


@dataclass(frozen=True, slots=True)
class FineTune:
    """What is known of a fine-tune."""

    model: str
    machine: str
    devices: int
    global_batch: int
    """Sequences of a step."""
    sequence: int
    """Tokens of a sequence."""
    stack: str
    source: str


@cache
def fine_tunes() -> Mapping[str, FineTune]:
    """The fine-tunes by name.

    Raises:
        CapacityError: the file breaks its rules.
    """
    document = yaml.load(_FILE.read_text(encoding="utf-8"), Loader=StrictLoader)
    found, faults = {}, []
    for name, data in document.items():
        found[name], wrong = read_record(FineTune, data)
        faults += [f"{name}: {fault}" for fault in wrong]
    if faults:
        raise CapacityError(faults)
    return found


def planned(one: FineTune) -> TunedPoint:
    """The best plan that fits, or why there is none."""
    study = Study(load_machine(one.machine), load_stack(one.stack), sequence=one.sequence, budget_s=SEARCH_S)
    return tune_point(study, ScalePoint(one.devices, load_model(one.model), one.global_batch))


def lines(plans: Mapping[str, TunedPoint]) -> Sequence[str]:
    """A table of fine-tunes and their plans, in Markdown."""
    return [
        "| fine-tune | devices | stack | best plan | GiB a device | seconds a step |",
        "|---|---|---|---|--:|--:|",
        *(_row(name, fine_tunes()[name], point) for name, point in plans.items()),
        "",
        *(f"- **{name}**: {fine_tunes()[name].source}." for name in plans),
    ]


def _row(name: str, one: FineTune, point: TunedPoint) -> str:
    capacity = load_machine(one.machine).device.memory_capacity_bytes
    held = "unknown" if capacity is None else f"{capacity / GIB:.1f}"
    cells = [name, f"{one.devices:,} of {one.machine}", one.stack]
    if point.found is None:
        return f"| {' | '.join([*cells, point.why_not, '', ''])} |"
    found, plan = point.found, point.found.plan
    degrees = [f"{field} {getattr(plan, field)}" for field in _DEGREES if getattr(plan, field) > 1]
    cells += [
        ", ".join([*degrees, f"recompute {plan.recompute}"]),
        f"{found.peak_memory_bytes / GIB:.1f} of {held}",
        f"{found.step_time_s:.2f}",
    ]
    return f"| {' | '.join(cells)} |"
