"""`towtank capacity`: what a whole training run takes on each machine, and the chance to make its deadline."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.capacity_options import Paying, Running, Training, Written
from towtank.cli.failure import INTERRUPTED, InputError, Inputs
from towtank.cli.options import Json, Profiles
from towtank.cli.records_as_options import with_records
from towtank.cli.report import check_files, write_page

if TYPE_CHECKING:
    from towtank.autotune.capacity.choose import Limits
    from towtank.autotune.capacity.study import CapacityPlan, NoPlan, Request
    from towtank.hardware_profiles.records import Machine
    from towtank.simulator.models.records import ModelSpec

EXAMPLES = """\
\b
Examples:
  towtank capacity --model llama3-70b --tokens 2T --machines dgx-h100,alps --deadline 60d
  towtank capacity --model llama2-7b --tokens 2T --machines perlmutter --devices 128..1024 --json
  towtank capacity --model llama3-405b --tokens 15.6T --machines frontier,alps,dgx-h100 \\
      --deadline 90d --html plan.html
  towtank capacity --model gpt-20b --tokens 400G --machines frontier --failures-per-node-day 0.002 \\
      --storage-bandwidth "4.6 TB/s" --queue 6h --spares 2 --checkpoint async --host-bandwidth "20 GB/s"

\b
Numbers of devices: 64..16384 doubles, 64..1024:64 goes in steps, 64,96 lists; by default around what the deadline
asks for. What nobody knows is left out and listed as unknown. Times are written like 90d, 12h, 30min, 600s.
Exit codes: 0 also where no plan keeps the limits, 2 wrong input, 130 stopped by Ctrl-C with what was done.
"""

SMALL_BATCH_TOKENS = 4_194_304
LARGE_BATCH_TOKENS = 16_777_216
LARGE_MODEL = 100e9
"""Parameters from which a batch of 16 Mi tokens is the default (Llama 3 405B, arXiv 2407.21783, section 3.4.1)."""


@dataclass(frozen=True)
class _Asked:
    """What the user asks for, as given."""

    model: str
    tokens: str
    machines: str
    training: Training
    running: Running
    paying: Paying
    profiles: tuple[Path, ...]


@with_records
def capacity(
    model: Annotated[
        str, typer.Option("--model", metavar="M", help="Model, or a model YAML or config.json.")
    ],
    tokens: Annotated[str, typer.Option("--tokens", metavar="15.6T", help="Tokens of the whole run.")],
    machines: Annotated[
        str, typer.Option("--machines", metavar="X,...", help="Such as frontier,dgx-h100:nodes=64.")
    ],
    json: Json = False,
    profiles: Profiles = None,
    *,
    training: Training,
    running: Running,
    paying: Paying,
    written: Written,
) -> None:
    """Plan a whole training run: devices, days, node-hours, energy, money, carbon and the chance to be in time.

    For each machine and number of devices the best plan is searched, its step predicted with its interval, and the
    run simulated over weeks with failures, checkpoints, restarts and the limits of the centre.
    """
    asked = _Asked(model, tokens, machines, training, running, paying, tuple(profiles or ()))
    check_files(written.html, written.markdown, written.csv)
    request, places, limits, notes = _loaded(asked)
    found = _found(request, places)
    _show(request, found, limits, notes, json)
    _write(written, request, found, limits, notes)
    _end_of_interrupted(found)


def _end_of_interrupted(found: "list[CapacityPlan | NoPlan]") -> None:
    from towtank.autotune.capacity.study import NoPlan
    from towtank.autotune.scaling.study import INTERRUPTED as STOPPED

    if any(isinstance(one, NoPlan) and one.why_not == STOPPED for one in found):
        raise typer.Exit(INTERRUPTED)


def _found(request: "Request", places: "list[tuple[Machine, int]]") -> "list[CapacityPlan | NoPlan]":
    from towtank.autotune.capacity.study import plan_capacity
    from towtank.cli.progress import progress_bar

    return plan_capacity(
        request, places, progress=lambda what, done, total: progress_bar(what, done=done, total=total)
    )


def _write(
    written: Written,
    request: "Request",
    found: "list[CapacityPlan | NoPlan]",
    limits: "Limits",
    notes: list[str],
) -> None:
    if written == Written():
        return
    from towtank.pages.capacity_report import CapacityReport, capacity_page

    page = capacity_page(
        CapacityReport(request, found, limits, notes, (shlex.join(["towtank", *sys.argv[1:]]),))
    )
    for path in write_page(page, written.html, written.markdown, written.csv):
        sys.stderr.write(f"wrote {path}\n")


def _show(
    request: "Request", found: "list[CapacityPlan | NoPlan]", limits: "Limits", notes: list[str], json: bool
) -> None:
    from towtank.cli.capacity_text import capacity_text, capacity_to_mapping
    from towtank.cli.text import emit, emit_json

    if json:
        emit_json(capacity_to_mapping(request, found, limits, notes))
    else:
        emit(capacity_text(request, found, limits, notes))


def _loaded(asked: _Asked) -> "tuple[Request, list[tuple[Machine, int]], Limits, list[str]]":
    """Everything loaded and checked, all faults told at once."""
    from towtank.autotune.capacity.choose import Limits
    from towtank.autotune.capacity.request import Charges, Uncertainty
    from towtank.autotune.capacity.study import Request, candidate_devices
    from towtank.cli.capacity_inputs import above_0, count, factors, operation_of, ramp_of, watts
    from towtank.cli.memory_margin import AUTO, margin_share
    from towtank.cli.scale import device_counts
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    training, paying, inputs = asked.training, asked.paying, Inputs()
    model = inputs.take(lambda: load_model(asked.model))
    tokens = inputs.take(lambda: count("--tokens", asked.tokens))
    names = list(dict.fromkeys(name.strip() for name in asked.machines.split(",") if name.strip()))
    machines = [inputs.take(lambda name=name: load_machine(name, asked.profiles)) for name in names]  # type: ignore[misc]
    stack = inputs.take(lambda: load_stack(training.stack))
    counts = inputs.take(lambda: device_counts(training.devices or "1"))
    deadline = inputs.take(lambda: above_0("--deadline", training.deadline))
    power = inputs.take(lambda: watts("--power", training.power))
    search = inputs.take(lambda: above_0("--search-budget", training.search))
    operation = inputs.take(lambda: operation_of(asked.running))
    drawn = inputs.take(lambda: factors(paying.ranges or ()))
    margin = inputs.take(lambda: margin_share(AUTO, None if stack is None else stack.name))
    inputs.take(lambda: _shares(asked))
    inputs.check()
    assert model and tokens and stack and operation and drawn is not None and margin is not None and counts
    batch, notes = _batch(training, model)
    request = Request(
        model, tokens, batch, stack, training.sequence, operation,
        Charges(paying.price, paying.carbon, paying.pue), Uncertainty(paying.runs, paying.seed, drawn),
        deadline, search, margin, asked.profiles, ramp_of(training.ramp, tokens, batch),
    )  # fmt: skip
    places = [
        (machine, devices)
        for machine in machines
        if machine is not None
        for devices in (counts if training.devices else candidate_devices(request, machine))
    ]
    return request, places, Limits(deadline, training.chance, training.budget_usd, power), notes


def _shares(asked: _Asked) -> None:
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
    if not asked.machines.replace(",", " ").split():
        faults.append("--machines is empty; name one or more, such as frontier,alps")
    for option, number in (("--global-batch", training.global_batch), ("--sequence", training.sequence)):
        if number is not None and number < 1:
            faults.append(f"{option} {number}: must be 1 or more")
    if faults:
        raise InputError("; ".join(faults))


def _batch(training: Training, model: "ModelSpec") -> tuple[int, list[str]]:
    """Sequences of a step, and a word on where they come from."""
    from towtank.simulator.models.count import parameters

    if training.global_batch is not None:
        return training.global_batch, []
    large = parameters(model).total >= LARGE_MODEL
    tokens = LARGE_BATCH_TOKENS if large else SMALL_BATCH_TOKENS
    batch = max(1, tokens // (training.sequence or model.sequence))
    return batch, [
        f"a batch of {tokens // 2**20} Mi tokens ({batch:,} sequences), as Llama 3 trained models of this size "
        f"(arXiv 2407.21783, section 3.4.1; recalled); --global-batch sets it"
    ]
