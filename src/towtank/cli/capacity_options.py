"""Options of `towtank capacity`, as the user gives them: texts carry their units."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


def _option(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False, **more)


def _defaulted(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, **more)


@dataclass(frozen=True)
class Training:
    """What is trained, and within which limits."""

    devices: Annotated[str | None, _option("--devices", "64..16384", "Numbers of devices to look at.")] = None
    global_batch: Annotated[
        int | None,
        _option(
            "--global-batch",
            "N",
            "Sequences of a step; default: 4 Mi tokens, 16 Mi for models of 100 billion.",
        ),
    ] = None
    ramp: Annotated[
        str | None,
        _option(
            "--ramp", "256:50G,512:100G", "Smaller batches before the full one: sequences and their tokens."
        ),
    ] = None
    sequence: Annotated[
        int | None, _option("--sequence", "N", "Tokens of a sequence; default: the model's.")
    ] = None
    stack: Annotated[str, _defaulted("--stack", "S", "Software that limits the plans.")] = "any"
    deadline: Annotated[
        str | None, _option("--deadline", "90d", "Time from the first submission to the end.")
    ] = None
    chance: Annotated[float, _defaulted("--chance", "SHARE", "Chance to be in time that is asked for.")] = 0.9
    budget_usd: Annotated[float | None, _option("--budget-usd", "USD", "Most money for the run.")] = None
    power: Annotated[str | None, _option("--power", '"20 MW"', "Most power of devices in training.")] = None
    search: Annotated[
        str, _defaulted("--search-budget", "TIME", "For the best plan of each number of devices.")
    ] = "30s"


@dataclass(frozen=True)
class Running:
    """How the run is operated."""

    failures: Annotated[
        float | None, _option("--failures-per-node-day", "RATE", "Failures of one node in a day.")
    ] = None
    reliability: Annotated[
        str | None, _option("--reliability", "NAME", "Published failure rates, such as llama3-h100.")
    ] = None
    detection: Annotated[str, _defaulted("--detection", "TIME", "To notice a failure.")] = "120s"
    restart: Annotated[
        str | None, _option("--restart", "TIME", "To start again; default: half to double of 600s.")
    ] = None
    start: Annotated[
        str | None, _option("--start", "TIME", "For each job to begin to train; default: as a restart.")
    ] = None
    repair: Annotated[str, _defaulted("--repair", "TIME", "Until a broken node is replaced.")] = "24h"
    spares: Annotated[
        int | None, _option("--spares", "N", "Spare nodes of the job; default: what breaks at once.", min=0)
    ] = None
    elastic: Annotated[
        int | None, _option("--elastic", "NODES", "Go on with so many nodes fewer after a failure.", min=1)
    ] = None
    checkpoint: Annotated[
        str, _defaulted("--checkpoint", "sync|async|lazy", "How checkpoints are written.")
    ] = "sync"
    interval: Annotated[
        str | None, _option("--checkpoint-interval", "TIME", "Between checkpoints; default: the best.")
    ] = None
    storage: Annotated[
        str | None, _option("--storage-bandwidth", '"2 TB/s"', "Of all nodes together; default: the site's.")
    ] = None
    files: Annotated[
        float | None,
        _option("--storage-files", "RATE", "Files that storage creates in a second; each device writes one."),
    ] = None
    host: Annotated[
        str | None, _option("--host-bandwidth", '"20 GB/s"', "Of one device to host memory (async, lazy).")
    ] = None
    job_limit: Annotated[str | None, _option("--job-limit", "12h", "Longest job; default: the site's.")] = (
        None
    )
    queue: Annotated[str, _defaulted("--queue", "TIME", "Mean wait for each job to begin.")] = "0s"
    maintenance: Annotated[
        str | None, _option("--maintenance", "14d:8h", "Planned standstill: how often, and how long.")
    ] = None
    evaluation: Annotated[
        str | None,
        _option("--evaluation", "1000:60s", "Pause for evaluation: every so many steps, how long."),
    ] = None
    stragglers: Annotated[
        str | None,
        _option(
            "--stragglers", "RATE:FACTOR:TIME", "Slow nodes: a node and day, step time with one, until found."
        ),
    ] = None


@dataclass(frozen=True)
class Paying:
    """Prices, and what is uncertain."""

    price: Annotated[float | None, _option("--price-per-device-hour", "USD", "Price of one device.")] = None
    carbon: Annotated[float | None, _option("--carbon-intensity", "G", "Grams of CO2 a kWh.")] = None
    pue: Annotated[float | None, _option("--pue", "RATIO", "Power usage effectiveness of the site.")] = None
    runs: Annotated[int, _defaulted("--runs", "N", "Simulated runs of each plan.", min=2)] = 100
    seed: Annotated[int, _defaulted("--seed", "N", "Of their luck.", min=0)] = 0
    ranges: Annotated[
        list[str] | None,
        _option(
            "--range", "INPUT=LOW..HIGH",
            "Factors for step_time, delivery, failure_rate, restart, storage or queue. Repeatable.",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Written:
    """Files that a capacity plan is written to."""

    html: Annotated[Path | None, _option("--html", "FILE", "Write the report as one HTML file.")] = None
    markdown: Annotated[Path | None, _option("--markdown", "FILE", "Write the report as Markdown.")] = None
    csv: Annotated[Path | None, _option("--csv", "FILE", "Write all figures of the report as CSV.")] = None
