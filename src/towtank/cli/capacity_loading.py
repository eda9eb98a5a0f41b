"""What the user of `towtank capacity` asks for, loaded and checked as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from towtank.cli.capacity_options import Paying, Running, Training, Written
from towtank.cli.failure import Inputs
from towtank.cli.report import check_files

if TYPE_CHECKING:
    from towtank.autotune.capacity.choose import Limits
    from towtank.autotune.capacity.study import Request
    from towtank.hardware_profiles.records import Machine
    from towtank.simulator.models.records import ModelSpec

SMALL_BATCH_TOKENS = 4_194_304
LARGE_BATCH_TOKENS = 16_777_216
LARGE_MODEL = 100e9
"""Parameters from which a batch of 16 Mi tokens is the default (Llama 3 405B, arXiv 2407.21783, section 3.4.1)."""


@dataclass(frozen=True)
class Asked:
    """What the user asks for, as given."""

    model: str
    tokens: str
    machines: str
    training: Training
    running: Running
    paying: Paying
    written: Written
    profiles: tuple[Path, ...]


def loaded(asked: Asked) -> "tuple[Request, list[tuple[Machine, int]], Limits, list[str]]":
    """The request, the machines and numbers of devices to look at, the limits, and notes on what was assumed.

    Raises:
        InputError: everything that is wrong, at once.
    """
    from towtank.autotune.capacity.choose import Limits
    from towtank.autotune.capacity.request import Charges, Uncertainty
    from towtank.autotune.capacity.study import Request, candidate_devices
    from towtank.cli.capacity_inputs import above_0, count, factors, operation_of, ramp_of, watts
    from towtank.cli.memory_margin import AUTO, margin_share
    from towtank.cli.scale import device_counts
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    training, paying, inputs = asked.training, asked.paying, Inputs()
    inputs.faults += _numbers(asked)
    model = inputs.take(lambda: load_model(asked.model))
    tokens = inputs.take(lambda: count("--tokens", asked.tokens))
    machines = _machines(asked, inputs)
    stack = inputs.take(lambda: load_stack(training.stack))
    counts = inputs.take(lambda: device_counts(training.devices or "1"))
    deadline = inputs.take(lambda: above_0("--deadline", training.deadline))
    power = inputs.take(lambda: watts("--power", training.power))
    search = inputs.take(lambda: above_0("--search-budget", training.search))
    operation = operation_of(asked.running, inputs)
    drawn = inputs.take(lambda: factors(paying.ranges or ()))
    margin = inputs.take(lambda: margin_share(AUTO, None if stack is None else stack.name))
    batch, notes = _batch(training, model)
    ramp = inputs.take(lambda: ramp_of(training.ramp, tokens, batch))
    inputs.take(lambda: check_files(asked.written.html, asked.written.markdown, asked.written.csv))
    inputs.check()
    assert model and tokens and stack and batch and operation and counts
    assert drawn is not None and margin is not None and ramp is not None
    request = Request(
        model, tokens, batch, stack, training.sequence, operation,
        Charges(paying.price, paying.carbon, paying.pue), Uncertainty(paying.runs, paying.seed, drawn),
        deadline, search, margin, asked.profiles, ramp,
    )  # fmt: skip
    places = [
        (machine, devices)
        for machine in machines
        for devices in (counts if training.devices else candidate_devices(request, machine))
    ]
    return request, places, Limits(deadline, training.chance, training.budget_usd, power), notes


def _machines(asked: Asked, inputs: Inputs) -> "Sequence[Machine]":
    """The machines, each once; what is wrong with them is noted."""
    from towtank.hardware_profiles.load import load_machine

    references = list(dict.fromkeys(name.strip() for name in asked.machines.split(",") if name.strip()))
    if not references:
        inputs.faults.append("--machines is empty; name one or more, such as frontier,alps")
    found: dict[str, Machine] = {}
    for reference in references:
        machine = inputs.take(lambda name=reference: load_machine(name, asked.profiles))  # type: ignore[misc]
        if machine is not None and machine.name in found:
            inputs.faults.append(
                f"--machines {asked.machines}: {machine.name} is named twice; plan its variants one by one, and "
                f"numbers of devices with --devices"
            )
        elif machine is not None:
            found[machine.name] = machine
    return list(found.values())


def _numbers(asked: Asked) -> list[str]:
    """Numbers that cannot be."""
    training, paying = asked.training, asked.paying
    faults = []
    if not 0 < training.chance <= 1:
        faults.append(f"--chance {training.chance:g}: must be more than 0 and at most 1")
    for name, value in (
        ("--failures-per-node-day", asked.running.failures), ("--price-per-device-hour", paying.price),
        ("--carbon-intensity", paying.carbon), ("--budget-usd", training.budget_usd),
    ):  # fmt: skip
        if value is not None and not 0 <= value < float("inf"):
            faults.append(f"{name} {value:g}: must be 0 or more")
    if asked.running.files is not None and not 0 < asked.running.files < float("inf"):
        faults.append(f"--storage-files {asked.running.files:g}: must be more than 0")
    if paying.pue is not None and not 1 <= paying.pue < 10:
        faults.append(f"--pue {paying.pue:g}: must be 1 or more, such as 1.1")
    for option, number in (("--global-batch", training.global_batch), ("--sequence", training.sequence)):
        if number is not None and number < 1:
            faults.append(f"{option} {number}: must be 1 or more")
    if asked.running.failures is not None and asked.running.reliability is not None:
        faults.append("--failures-per-node-day and --reliability say the same twice; give one of them")
    return faults


def _batch(training: Training, model: "ModelSpec | None") -> tuple[int | None, list[str]]:
    """Sequences of a step (None: nothing tells them), and a word on where they come from."""
    from towtank.simulator.models.count import parameters

    if training.global_batch is not None:
        return training.global_batch, []
    if model is None or (training.sequence is not None and training.sequence < 1):
        return None, []
    large = parameters(model).total >= LARGE_MODEL
    tokens = LARGE_BATCH_TOKENS if large else SMALL_BATCH_TOKENS
    batch = max(1, tokens // (training.sequence or model.sequence))
    return batch, [
        f"a batch of {tokens // 2**20} Mi tokens ({batch:,} sequences), as Llama 3 trained models of this size "
        f"(arXiv 2407.21783, section 3.4.1; recalled); --global-batch sets it"
    ]
