"""The machine of a row."""

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache

from towtank.hardware_profiles.load import list_devices, list_machines, load_machine
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.records import Machine
from towtank.validation.mapping.rules import InexpressibleError, first, table
from towtank.validation.rows import Run


def machine_of(run: Run, assumptions: list[str]) -> Machine:
    """The machine that the row names, or the generic cluster of its device.

    Raises:
        InexpressibleError: no machine has such a device.
    """
    rules = table("machines")
    device = _device(run, assumptions)
    rule = first(run, rules["systems"])
    reference = rule["machine"] if rule else None
    if reference is None and run.system in list_machines():
        reference = run.system
    if reference is not None:
        machine = load_machine(reference)
        if machine.device.name == device and _large_enough(machine, run):
            if rule and "near" in rule:
                assumptions.append(rule["near"])
            return _sized(machine, run, assumptions)
    reference = rules["devices"].get(device)
    if reference is None:
        raise InexpressibleError(
            f"no machine has device {run.device!r}{did_you_mean(run.device, list_devices())}; "
            f"known: {', '.join(sorted(rules['devices']))}"
        )
    machine = load_machine(reference)
    assumptions.append(
        f"machine {reference}: the generic cluster of {device}" + (f" for {run.system}" if run.system else "")
    )
    if not _large_enough(machine, run):
        assumptions.append(f"{machine.name} is taken as large enough for {run.gpus} devices")
        machine = _of_size(machine, None)
    return _sized(machine, run, assumptions)


def _device(run: Run, assumptions: list[str]) -> str:
    rules = table("machines")
    name = run.device.strip().lower()
    special = first(run, rules["of_system"])
    known = special["device"] if special else rules["aliases"].get(name, name)
    if known != name:
        assumptions.append(f"device {run.device} is taken as {known}")
    return str(known)


def _large_enough(machine: Machine, run: Run) -> bool:
    return machine.num_devices is None or run.gpus is None or run.gpus <= machine.num_devices


def _sized(machine: Machine, run: Run, assumptions: list[str]) -> Machine:
    """The machine with as many devices in a node as the row says."""
    count, own = run.gpus_per_node, machine.node.devices
    domain = table("machines")["domains"].get(machine.name)
    if domain is not None:
        return _segmented(machine, domain, run, assumptions)
    if count is None or count == own:
        return machine
    if run.gpus is not None and run.gpus <= min(count, own):
        return machine
    assumptions.append(f"node of {count} devices: that of {machine.name} ({own} devices) in proportion")
    return _with_node(machine, count)


def _segmented(machine: Machine, domain: Mapping[str, int], run: Run, assumptions: list[str]) -> Machine:
    """An NVLink domain as a job sees it that spans several of them."""
    whole, segment = domain["devices"], domain["segment"]
    if run.gpus is None or run.gpus <= whole or run.gpus % whole == 0 or run.gpus % segment:
        return machine
    assumptions.append(
        f"{segment} devices of each domain of {whole}, so that {run.gpus} devices are equal segments"
    )
    return _with_node(machine, segment)


@lru_cache(maxsize=64)
def _with_node(machine: Machine, count: int) -> Machine:
    node, share = machine.node, count / machine.node.devices
    injection = node.injection_bytes_per_s
    changed = dataclasses.replace(
        node,
        devices=count,
        nics=max(1, math.ceil(node.nics * share)),
        injection_bytes_per_s=None if injection is None else injection * share,
    )
    return dataclasses.replace(machine, node=changed, num_nodes=None, measured_bus_bandwidth_bytes_per_s={})


@lru_cache(maxsize=64)
def _of_size(machine: Machine, nodes: int | None) -> Machine:
    return dataclasses.replace(machine, num_nodes=nodes)
