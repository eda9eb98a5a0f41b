"""`towtank capacity`: what a whole training run takes on each machine, and the chance to make its deadline."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import InputError, Inputs
from towtank.cli.options import Json, Profiles

if TYPE_CHECKING:
    from towtank.autotune.capacity.choose import Limits
    from towtank.autotune.capacity.study import Request
    from towtank.hardware_profiles.records import Machine

EXAMPLES = """\
\b
Examples:
  towtank capacity --model llama3-70b --tokens 2T --machines dgx-h100,alps --deadline 60d
  towtank capacity --model llama2-7b --tokens 2T --machines perlmutter --devices 128..1024 --json
  towtank capacity --model llama3-405b --tokens 15.6T --machines frontier,alps,dgx-h100 --deadline 90d
  towtank capacity --model gpt-20b --tokens 400G --machines frontier --failures-per-node-day 0.002 \\
      --storage-bandwidth "4.6 TB/s" --queue 6h --spares 2 --checkpoint async --host-bandwidth "20 GB/s"

\b
Numbers of devices: 64..16384 doubles, 64..1024:64 goes in steps, 64,96 lists; by default around what the deadline
asks for. What nobody knows is left out and listed as unknown. Times are written like 90d, 12h, 30min, 600s.
Exit codes: 0 also where no plan keeps the limits, 2 wrong input, 130 stopped by Ctrl-C.
"""

SMALL_BATCH_TOKENS = 4_194_304
LARGE_BATCH_TOKENS = 16_777_216
LARGE_MODEL = 100e9
"""Parameters from which a batch of 16 Mi tokens is the default (Llama 3 405B, arXiv 2407.21783, section 3.4.1)."""


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


@dataclass(frozen=True)
class _Asked:
    """What the user asks for, as given; texts carry units."""

    model: str
    tokens: str
    machines: str
    devices: str | None
    global_batch: int | None
    sequence: int | None
    stack: str
    deadline: str | None
    chance: float
    budget_usd: float | None
    power: str | None
    failures: float | None
    reliability: str | None
    detection: str
    restart: str
    repair: str
    spares: int
    elastic: int | None
    checkpoint: str
    interval: str | None
    storage: str | None
    host: str | None
    job_limit: str | None
    queue: str
    price: float | None
    carbon: float | None
    pue: float | None
    runs: int
    seed: int
    ranges: tuple[str, ...]
    search: str
    profiles: tuple[Path, ...]


def capacity(
    model: Annotated[str, _option("--model", "M", "Model of the zoo, or a model YAML or config.json.")],
    tokens: Annotated[
        str, _option("--tokens", "15.6T", "Tokens of the whole run; k, M, G (or B) and T are powers.")
    ],
    machines: Annotated[
        str, _option("--machines", "X,...", "Machines such as frontier,alps,dgx-h100:nodes=64.")
    ],
    devices: Annotated[str | None, _option("--devices", "64..16384", "Numbers of devices.")] = None,
    deadline: Annotated[
        str | None, _option("--deadline", "90d", "Time from the first submission to the end.")
    ] = None,
    chance: Annotated[
        float, typer.Option("--chance", metavar="SHARE", help="Chance that counts as sure.")
    ] = 0.9,
    global_batch: Annotated[
        int | None,
        _option(
            "--global-batch",
            "N",
            "Sequences of a step; default: 4 Mi tokens, 16 Mi from 100 billion parameters.",
        ),
    ] = None,
    sequence: Annotated[
        int | None, _option("--sequence", "N", "Tokens of a sequence; default: the model's.")
    ] = None,
    stack: Annotated[
        str, typer.Option("--stack", metavar="S", help="Software that limits the plans.")
    ] = "any",
    budget_usd: Annotated[float | None, _option("--budget-usd", "USD", "Most money for the run.")] = None,
    power: Annotated[str | None, _option("--power", "20MW", "Most electric power of the devices.")] = None,
    failures_per_node_day: Annotated[
        float | None, _option("--failures-per-node-day", "RATE", "Failures of one node in a day.")
    ] = None,
    reliability: Annotated[
        str | None, _option("--reliability", "NAME", "Published failure rates to take, such as llama3-h100.")
    ] = None,
    detection: Annotated[
        str, typer.Option("--detection", metavar="TIME", help="To notice a failure.")
    ] = "120s",
    restart: Annotated[str, typer.Option("--restart", metavar="TIME", help="To start again.")] = "600s",
    repair: Annotated[
        str, typer.Option("--repair", metavar="TIME", help="Until a node is replaced.")
    ] = "24h",
    spares: Annotated[int, typer.Option("--spares", metavar="N", min=0, help="Spare nodes in the job.")] = 0,
    elastic: Annotated[
        int | None, _option("--elastic", "NODES", "Go on with so many nodes fewer after a failure.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="sync|async|lazy", help="How checkpoints are written.")
    ] = "sync",
    interval: Annotated[
        str | None,
        _option("--checkpoint-interval", "TIME", "Time between checkpoints; default: the best one."),
    ] = None,
    storage_bandwidth: Annotated[
        str | None, _option("--storage-bandwidth", '"2 TB/s"', "Of all nodes together; default: the site's.")
    ] = None,
    host_bandwidth: Annotated[
        str | None, _option("--host-bandwidth", '"20 GB/s"', "Of a device to host memory (async, lazy).")
    ] = None,
    job_limit: Annotated[
        str | None, _option("--job-limit", "12h", "Longest job of the centre; default: the site's.")
    ] = None,
    queue: Annotated[
        str, typer.Option("--queue", metavar="TIME", help="Mean wait for each job to begin.")
    ] = "0s",
    price: Annotated[float | None, _option("--price-per-device-hour", "USD", "Price of one device.")] = None,
    carbon: Annotated[float | None, _option("--carbon-intensity", "G", "Grams of CO2 a kWh.")] = None,
    pue: Annotated[float | None, _option("--pue", "RATIO", "Power usage effectiveness of the site.")] = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=2, help="Simulated runs of each plan.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of their luck.")] = 0,
    ranges: Annotated[
        list[str] | None,
        _option(
            "--range",
            "INPUT=LOW..HIGH",
            "Factors between which step_time, failure_rate, restart, storage or "
            "queue is uncertain. Repeatable.",
        ),
    ] = None,
    search: Annotated[
        str, typer.Option("--search-budget", metavar="TIME", help="For the plan of each number of devices.")
    ] = "30s",
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Plan a whole training run: devices, days, node-hours, energy, money, carbon and the chance to be in time.

    For each machine and number of devices the best plan is searched, its step predicted with its interval, and the run
    simulated over weeks with failures, checkpoints, restarts and the limits of the centre.
    """
    asked = _Asked(
        model, tokens, machines, devices, global_batch, sequence, stack, deadline, chance, budget_usd, power,
        failures_per_node_day, reliability, detection, restart, repair, spares, elastic, checkpoint, interval,
        storage_bandwidth, host_bandwidth, job_limit, queue, price, carbon, pue, runs, seed, tuple(ranges or ()),
        search, tuple(profiles or ()),
    )  # fmt: skip
    request, places, limits, notes = _loaded(asked)
    _run(request, places, limits, notes, json)


def _run(
    request: "Request", places: "list[tuple[Machine, int]]", limits: "Limits", notes: list[str], json: bool
) -> None:
    from towtank.autotune.capacity.study import plan_capacity
    from towtank.cli.capacity_text import capacity_text, capacity_to_mapping
    from towtank.cli.progress import progress_bar
    from towtank.cli.text import emit, emit_json

    found = plan_capacity(
        request, places, progress=lambda what, done, total: progress_bar(what, done=done, total=total)
    )
    if json:
        emit_json(capacity_to_mapping(request, found, limits, notes))
    else:
        emit(capacity_text(request, found, limits, notes))


def _loaded(asked: _Asked) -> "tuple[Request, list[tuple[Machine, int]], Limits, list[str]]":
    """Everything loaded and checked, all faults told at once."""
    from towtank.autotune.capacity.choose import Limits
    from towtank.autotune.capacity.request import Charges, Uncertainty
    from towtank.autotune.capacity.study import Request, candidate_devices
    from towtank.cli.capacity_inputs import count, factors, operation_of, time_s
    from towtank.cli.memory_margin import AUTO, margin_share
    from towtank.cli.scale import device_counts
    from towtank.hardware_profiles.load import load_machine
    from towtank.hardware_profiles.units import parse_quantity
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    inputs = Inputs()
    model = inputs.take(lambda: load_model(asked.model))
    tokens = inputs.take(lambda: count("--tokens", asked.tokens))
    names = [name.strip() for name in asked.machines.split(",") if name.strip()]
    machines = [inputs.take(lambda name=name: load_machine(name, asked.profiles)) for name in names]  # type: ignore[misc]
    stack = inputs.take(lambda: load_stack(asked.stack))
    counts = inputs.take(lambda: device_counts(asked.devices)) if asked.devices is not None else None
    deadline = inputs.take(lambda: time_s("--deadline", asked.deadline)) if asked.deadline else None
    power = inputs.take(lambda: parse_quantity(asked.power, "watts")) if asked.power else None
    search = inputs.take(lambda: time_s("--search-budget", asked.search))
    operation = inputs.take(lambda: operation_of(asked))
    drawn = inputs.take(lambda: factors(asked.ranges))
    margin = inputs.take(lambda: margin_share(AUTO, None if stack is None else stack.name))
    inputs.take(lambda: _shares(asked))
    inputs.check()
    assert model and tokens and stack and operation and drawn is not None and margin is not None
    batch, notes = _batch(asked, model)
    request = Request(
        model, tokens, batch, stack, asked.sequence, operation,
        Charges(asked.price, asked.carbon, asked.pue), Uncertainty(asked.runs, asked.seed, drawn),
        deadline, search, margin, asked.profiles,
    )  # fmt: skip
    places = [
        (machine, devices)
        for machine in machines
        if machine is not None
        for devices in (counts or candidate_devices(request, machine))
    ]
    return request, places, Limits(deadline, asked.chance, asked.budget_usd, power), notes


def _shares(asked: _Asked) -> None:
    faults = []
    if not 0 < asked.chance <= 1:
        faults.append(f"--chance {asked.chance:g}: must be more than 0 and at most 1")
    for name, value in (
        ("--failures-per-node-day", asked.failures), ("--price-per-device-hour", asked.price),
        ("--carbon-intensity", asked.carbon), ("--budget-usd", asked.budget_usd),
    ):  # fmt: skip
        if value is not None and not 0 <= value < float("inf"):
            faults.append(f"{name} {value:g}: must be 0 or more")
    if asked.pue is not None and not 1 <= asked.pue < 10:
        faults.append(f"--pue {asked.pue:g}: must be 1 or more, such as 1.1")
    if not asked.machines.replace(",", " ").split():
        faults.append("--machines is empty; name one or more, such as frontier,alps")
    for option, number in (("--global-batch", asked.global_batch), ("--sequence", asked.sequence)):
        if number is not None and number < 1:
            faults.append(f"{option} {number}: must be 1 or more")
    if faults:
        raise InputError("; ".join(faults))


def _batch(asked: _Asked, model: Any) -> tuple[int, list[str]]:
    """Sequences of a step, and a word on where they come from."""
    from towtank.simulator.models.count import parameters

    if asked.global_batch is not None:
        return asked.global_batch, []
    large = parameters(model).total >= LARGE_MODEL
    tokens = LARGE_BATCH_TOKENS if large else SMALL_BATCH_TOKENS
    batch = max(1, tokens // (asked.sequence or model.sequence))
    return batch, [
        f"a batch of {tokens // 2**20} Mi tokens ({batch:,} sequences), as Llama 3 trained models of this size (arXiv "
        f"2407.21783, section 3.4.1; recalled); --global-batch sets it"
    ]
