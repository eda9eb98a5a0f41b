"""`--machine local` and `--machine NAME` of a calibration: which machine that is."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from towtank.hardware_profiles.calibrated.here import Here, here
from towtank.hardware_profiles.calibrated.machine import machine_of
from towtank.hardware_profiles.calibrated.read import path_of, read_calibration
from towtank.hardware_profiles.calibrated.records import Calibration
from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.parse import PROFILE_NAME
from towtank.hardware_profiles.records import Device, Machine, Network, Node, Source

LOCAL = "local"
"""Name of the machine that this process runs on."""
_LONGEST = 100
"""Letters of the name of a calibration."""
_ALIKE = 0.05
"""Part by which the memory of the same machine may differ from what it was."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """How profiles are loaded by name; given from above, as profiles know calibrations by this file."""

    device: Callable[[str], Device]
    machine: Callable[[str], Machine]


def calibrated_machine(name: str, shipped: Shipped) -> Machine | None:
    """The machine of that name in the folder of calibrations, or the one that we run on; None for other names.

    Raises:
        ProfileError: `local` has no calibration and no known specification; or its calibration is of another machine.
    """
    path = path_of(name)
    if re.fullmatch(PROFILE_NAME, name) and len(name) < _LONGEST and path.is_file():
        calibration = read_calibration(path)
        if name == LOCAL:
            check_same(calibration, here(), path)
        return machine_of(calibration)
    return machine_by_specification(here(), shipped) if name == LOCAL else None


def check_same(calibration: Calibration, found: Here, path: Path) -> None:
    """Raise `ProfileError` where a calibration called local is of another machine than this one."""
    hardware = calibration.hardware
    differ = []
    if hardware.device_type == "cpu":
        if hardware.processor != found.processor:
            differ.append(f"processor {hardware.processor} there, {found.processor} here")
        if hardware.cores != found.cores:
            differ.append(f"{hardware.cores} cores there, {found.cores} here")
        if abs(hardware.memory_bytes / found.memory_bytes - 1) > _ALIKE:
            sizes = (hardware.memory_bytes / 2**30, found.memory_bytes / 2**30)
            differ.append("memory {:.1f} GiB there, {:.1f} GiB here".format(*sizes))
    elif hardware.processor not in found.gpus:
        differ.append(f"{hardware.processor} there, {', '.join(found.gpus) or 'no GPU'} here")
    if differ:
        raise ProfileError(
            f"{path} was made on another machine ({'; '.join(differ)}); run `towtank calibrate`, "
            f"or give that file another name to predict for the machine it was made on"
        )


def machine_by_specification(found: Here, shipped: Shipped) -> Machine:
    """The machine that we run on, by the specifications of its GPUs.

    Raises:
        ProfileError: there are no GPUs of known specification.
    """
    if not found.gpus:
        raise ProfileError(
            f"this machine ({found.processor}, {found.cores} cores, {found.memory_bytes / 2**30:.0f} GiB) has no "
            f"GPU, and rates of CPUs are in no data sheet: run `towtank calibrate --quick` (a minute and a half), "
            f"which writes {path_of(LOCAL)}"
        )
    kinds = sorted(set(found.gpus))
    entry = _entry(kinds[0]) if len(kinds) == 1 else None
    count = len(found.gpus)
    if entry is None or (count > 1 and (entry["machine"] is None or not _joined(entry, found.links))):
        raise ProfileError(
            f"this machine has {count} GPU(s) {', '.join(kinds)}"
            + (f" joined by {found.links or 'unknown links'}" if count > 1 else "")
            + ", whose specifications are not known here: run `towtank calibrate --quick`, which measures them"
        )
    return _specified(entry, count, kinds[0], shipped)


def _entry(gpu: str) -> dict[str, str | None] | None:
    text = Path(__file__).with_name("gpus.yaml").read_text(encoding="utf-8")
    entries: list[dict[str, str | None]] = yaml.safe_load(text)["gpus"]
    return next((each for each in entries if gpu.startswith(str(each["name"]))), None)


def _joined(entry: dict[str, str | None], links: str | None) -> bool:
    return bool(links) and str(links).startswith(str(entry["link"]))


def _specified(entry: dict[str, str | None], count: int, gpu: str, shipped: Shipped) -> Machine:
    if entry["machine"] is None:
        return _alone(shipped.device(str(entry["device"])), gpu)
    whole = shipped.machine(f"{entry['machine']}:nodes=1")
    source = Source("counted by nvidia-smi", "measurement")
    return replace(
        whole,
        name=LOCAL,
        description=f"this machine: {count} x {gpu}, links and rates by specification",
        site="here",
        node=replace(whole.node, devices=count),
        sources={**whole.sources, "node.devices": source},
    )


def _alone(device: Device, gpu: str) -> Machine:
    """A node of one GPU: nothing is joined to it."""
    return Machine(
        name=LOCAL,
        description=f"this machine: {gpu}, rates by specification",
        site="here",
        device=device,
        num_nodes=1,
        node=Node(1, "pcie", None, None, None, None, 0, None, None),
        network=Network("none", "unknown", None, None, None, None, None),
        power_usage_effectiveness=None,
        system_power_w=None,
        price_per_device_hour_usd=None,
        measured_bus_bandwidth_bytes_per_s={},
        sources={"node.devices": Source("counted by nvidia-smi", "measurement")},
    )
