"""`towtank capacity`: what a whole training run takes on each machine, and the chance to make its deadline."""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.capacity_loading import Asked, loaded
from towtank.cli.capacity_options import Paying, Running, Training, Written
from towtank.cli.failure import INTERRUPTED, Inputs
from towtank.cli.options import Json, Profiles
from towtank.cli.records_as_options import with_records
from towtank.cli.report import write_page

if TYPE_CHECKING:
    from towtank.autotune.capacity.choose import Limits
    from towtank.autotune.capacity.study import CapacityPlan, NoPlan, Request
    from towtank.hardware_profiles.records import Machine

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
    asked = Asked(model, tokens, machines, training, running, paying, written, tuple(profiles or ()))
    request, places, limits, notes = loaded(asked)
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
    # one that cannot be written, perhaps because its folder has gone meanwhile, leaves the others
    inputs = Inputs()
    for files in ((written.html, None, None), (None, written.markdown, None), (None, None, written.csv)):
        for path in inputs.take(lambda files=files: list(write_page(page, *files))) or ():  # type: ignore[misc]
            sys.stderr.write(f"wrote {path}\n")
    inputs.check()


def _show(
    request: "Request", found: "list[CapacityPlan | NoPlan]", limits: "Limits", notes: list[str], json: bool
) -> None:
    from towtank.cli.capacity_text import capacity_text, capacity_to_mapping
    from towtank.cli.text import emit, emit_json

    if json:
        emit_json(capacity_to_mapping(request, found, limits, notes))
    else:
        emit(capacity_text(request, found, limits, notes))
