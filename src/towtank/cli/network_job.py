"""What `towtank network` is asked: groups, placement, collective and sizes, from the words of the user."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from towtank.cli.failure import InputError, Inputs
from towtank.cli.surroundings import background_of, placed_of
from towtank.cli.words import named

if TYPE_CHECKING:
    from towtank.hardware_profiles.records import Machine
    from towtank.simulator.network.benchmark import Setting
    from towtank.simulator.network.libraries import Collective
    from towtank.simulator.network.placement import Placed
    from towtank.simulator.network.routes import IntArray
    from towtank.simulator.network.surroundings import LinkKind


@dataclass(frozen=True)
class Job:
    """Where a collective runs, as given."""

    machine: str | None
    nodes: int | None
    group: str | None
    placement: str
    seed: int
    taper: float | None
    library: str | None
    profiles: tuple[Path, ...]
    background: str | None = None
    detours: float | None = None


@dataclass(frozen=True)
class Loaded:
    """What has been read of a job without fault."""

    machine: "Machine"
    nodes: int
    placed: "Placed"
    background: "dict[LinkKind, float]"


def collective_of(word: str | None) -> "Collective":
    """The collective of that name, `all-reduce` or `all_reduce`."""
    from towtank.validation.nccl_tests import COLLECTIVES

    return cast("Collective", named("--collective", word, COLLECTIVES))


def size_of(option: str, text: str) -> float:
    """A message size in bytes, 1 or more."""
    from towtank.hardware_profiles.errors import UnitError
    from towtank.hardware_profiles.units import parse_quantity

    try:
        size = parse_quantity(text, "bytes")
    except UnitError as error:
        message = str(error).replace("80 GiB", "64MiB")
        raise InputError(f"{option}: {message}") from error
    if size < 1:
        raise InputError(f"{option} {text} must be one byte or more")
    return size


def sweep_of(text: str) -> list[float]:
    """Sizes of `FROM..TO`, each twice the one before; the last is TO where that is no power of two times FROM."""
    first, dots, last = text.partition("..")
    if not dots or not first.strip() or not last.strip():
        raise InputError(f"--sweep {text} is not FROM..TO; write it like 1KiB..1GiB")
    low, high = size_of("--sweep", first.strip()), size_of("--sweep", last.strip())
    if high < low:
        raise InputError(f"--sweep {text} runs backwards; write the smaller size first")
    sizes = [low]
    while sizes[-1] * 2 <= high:
        sizes.append(sizes[-1] * 2)
    return sizes if sizes[-1] == high else [*sizes, high]


def machine_of(job: Job) -> "tuple[Machine, int]":
    """The machine and the number of nodes that the job takes of it."""
    from towtank.hardware_profiles.load import load_machine

    if job.machine is None:
        raise InputError("--machine is missing; name one such as frontier (towtank machines lists them)")
    machine = load_machine(job.machine, job.profiles)
    nodes = machine.num_nodes if job.nodes is None else job.nodes
    if nodes is None:
        raise InputError(f"{machine.name} has any number of nodes; say how many with --nodes")
    if nodes < 1:
        raise InputError(f"--nodes {nodes} must be 1 or more")
    if machine.num_nodes is not None and nodes > machine.num_nodes:
        raise InputError(f"--nodes {nodes:,} is more than the {machine.num_nodes:,} nodes of {machine.name}")
    return machine, nodes


def load(job: Job, inputs: Inputs) -> Loaded | None:
    """Machine and placement; what is wrong is noted in `inputs`."""
    found = inputs.take(lambda: machine_of(job))
    placed = inputs.take(lambda: placed_of(job.placement, job.seed))
    inputs.take(lambda: _check_taper(job.taper))
    inputs.take(lambda: _check_library(job.library))
    inputs.take(lambda: _check_detours(job.detours))
    background = inputs.take(lambda: background_of(job.background))
    if found is None or placed is None or background is None:
        return None
    return Loaded(*found, placed, background)


def _check_taper(taper: float | None) -> None:
    if taper is not None and not 0 < taper <= 1:
        raise InputError(
            f"--taper {taper:g} must lie above 0 and at most at 1: bandwidth out of a group over that of its nodes"
        )


def _check_detours(share: float | None) -> None:
    if share is not None and not 0 <= share <= 1:
        raise InputError(
            f"--detours {share:g} must lie from 0 (minimal routing) to 1 (all traffic on detours)"
        )


def _check_library(name: str | None) -> None:
    if name is not None:
        from towtank.simulator.network.libraries import library_names

        if name not in (names := library_names()):
            from towtank.hardware_profiles.nearest import did_you_mean

            raise InputError(
                f"--library {name} is unknown{did_you_mean(name, names)} (known: {', '.join(names)})"
            )


def members_of(group: str | None, devices: int) -> "IntArray":
    """Devices of every group of the job, shape [groups, size].

    `SIZE`: neighbours; `SIZE@STRIDE`: devices so far apart; `data=8,tensor_x=4`: the groups of the first dimension of
    a plan, the others being the rest of it; nothing: all devices.
    """
    from towtank.simulator.network.placement import group_members

    size, stride = (devices, 1) if group is None else _size_and_stride(group, devices)
    if size < 2:
        raise InputError(f"--group {group}: a collective needs two devices or more, got {size}")
    if devices % (size * stride):
        raise InputError(
            f"--group {group or size}: groups of {size:,} devices {stride:,} apart do not tile the {devices:,} "
            f"devices of the job; size times distance must divide them"
        )
    return group_members(devices, [(size, stride)])


def _size_and_stride(group: str, devices: int) -> tuple[int, int]:
    if "=" in group:
        return _of_plan(group, devices)
    size, at, stride = group.replace(",", "").partition("@")
    if not size.strip().isdecimal() or (at and not stride.strip().isdecimal()) or (at and int(stride) < 1):
        raise InputError(
            f"--group {group} is not understood; write a size like 64, a size and a distance like 64@8, or degrees "
            f"of a plan like data=64,tensor_x=8"
        )
    return int(size), int(stride) if at else 1


def _of_plan(group: str, devices: int) -> tuple[int, int]:
    """Size and stride of the dimension that stands first."""
    from towtank.hardware_profiles.nearest import did_you_mean
    from towtank.simulator.plan import DEFAULT_RANK_ORDER, Plan

    degrees: dict[str, int] = {}
    faults = []
    for part in group.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        if key not in DEFAULT_RANK_ORDER:
            known = ", ".join(DEFAULT_RANK_ORDER)
            faults.append(f"{key!r} is no dimension{did_you_mean(key, DEFAULT_RANK_ORDER)} (known: {known})")
        elif key in degrees:
            faults.append(f"{key} is given twice")
        elif not value.isdecimal() or int(value) < 1:
            faults.append(f"{key} = {value!r} must be a whole number from 1")
        else:
            degrees[key] = int(value)
    if faults:
        raise InputError(f"--group {group}: {'; '.join(faults)}")
    plan = Plan(**cast(Any, degrees))
    if plan.num_devices != devices:
        raise InputError(
            f"--group {group}: the degrees make {plan.num_devices:,} devices, but the job has {devices:,}; name "
            f"every degree of the plan, the one whose groups communicate first"
        )
    own = cast(Any, next(iter(degrees)))
    return plan.degree(own), plan.stride(own)


def setting_of(job: Job, loaded: Loaded, members: "IntArray") -> "Setting":
    """The groups on the links of the machine; what they lack is told as a fault of the user's."""
    from towtank.hardware_profiles.errors import UnknownFigure
    from towtank.simulator.network.benchmark import JobError, setting

    try:
        return setting(
            loaded.machine,
            loaded.nodes,
            members,
            loaded.placed,
            taper=job.taper,
            library_name=job.library,
            background=loaded.background,
            detours=job.detours,
        )
    except UnknownFigure as error:
        if "network.taper" not in str(error):
            raise
        raise InputError(
            f"{loaded.machine.name}: the taper of its network (bandwidth out of a group over that of its nodes) is "
            f"unknown, and {loaded.machine.network.topology} groups need it; give --taper, such as --taper 0.5"
        ) from error
    except JobError as error:
        raise InputError(str(error)) from error
