"""The published runs that `towtank demo` predicts: a first look at how wrong predictions are, not a validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.units import parse_quantity
from towtank.simulator.models.flop import megatron_flop
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.models.schema import model_from_mapping
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_from_mapping

_FILE = Path(__file__).parent / "published" / "demo.yaml"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class GridSearch:
    """The source does not print the grid: the fastest of those that AxoNN's own model ranks first is taken."""

    devices: int
    global_batch: int


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """One measured run. `as_printed` is the figure of the source, `step_time_s` what follows from it."""

    id: str
    title: str
    model: ModelSpec
    machine: str
    stack: str
    job: Plan | GridSearch
    step_time_s: float
    as_printed: str
    source: str

    @property
    def num_devices(self) -> int:
        """Devices of the run."""
        return self.job.devices if isinstance(self.job, GridSearch) else self.job.num_devices

    def relative_error(self, predicted_s: float) -> float:
        """(predicted - measured) / measured step time, signed."""
        return (predicted_s - self.step_time_s) / self.step_time_s


def demo_runs() -> tuple[PublishedRun, ...]:
    """The four runs, in the order of the file."""
    return tuple(_run(entry) for entry in yaml.load(_FILE.read_text(encoding="utf-8"), Loader=_Loader))


def _run(entry: Mapping[str, Any]) -> PublishedRun:
    shape = entry["model"]
    model = (
        load_model(shape) if isinstance(shape, str) else model_from_mapping(shape, f"model of {entry['id']}")
    )
    job = (
        GridSearch(**entry["search"]) if "search" in entry else plan_from_mapping(entry["plan"], entry["id"])
    )
    devices = job.devices if isinstance(job, GridSearch) else job.num_devices
    step_time_s, printed = _measured(entry["measured"], model, job.global_batch, devices)
    return PublishedRun(
        id=entry["id"],
        title=entry["title"],
        model=model,
        machine=entry["machine"],
        stack=entry["stack"],
        job=job,
        step_time_s=step_time_s,
        as_printed=printed,
        source=entry["source"],
    )


def _measured(
    figure: Mapping[str, str], model: ModelSpec, global_batch: int, devices: int
) -> tuple[float, str]:
    """Step time in seconds, and the figure as the source prints it."""
    if "step_time" in figure:
        return parse_quantity(figure["step_time"], "seconds"), figure["step_time"]
    if figure["flop"] != "megatron":
        raise ValueError(f"FLOP convention {figure['flop']!r} is not known; known: megatron")
    flop = megatron_flop(model, global_batch, model.sequence)
    if "rate" in figure:
        return flop / parse_quantity(figure["rate"], "flop_per_s"), figure["rate"]
    per_device = figure["rate_per_device"]
    return flop / (devices * parse_quantity(per_device, "flop_per_s")), f"{per_device} a GPU"
