"""`towtank run`: train for real, under a plan, on the devices at hand."""

from pathlib import Path
from typing import Annotated

import typer

from towtank.cli.options import Json, Model, Profiles
from towtank.cli.records_as_options import with_records
from towtank.cli.run_options import (
    ALL_DEVICES,
    NO_CHECKPOINTS,
    NOTHING_MEASURED,
    USUAL_TRAINING,
    Checkpoints,
    Devices,
    Measuring,
    Settings,
    Training,
)

EXAMPLES = """\
\b
Examples:
  towtank run plan.yaml --model tiny-llama --steps 50
  towtank run plan.yaml --model tiny-llama --steps 50 --data books/ --record run.json --trace step.json.gz
  towtank run plan.yaml --steps 1000 --data books/ --checkpoint ckpt --save-every 100 [--resume]
  towtank run plan.yaml --set tensor_x=2,data=1 --dtype fp32 --steps 20 --json
  torchrun --nproc-per-node 4 -m towtank.cli run plan.yaml --steps 50
  srun towtank run plan.yaml --steps 5000 --checkpoint ckpt --save-every 500 --resume

\b
Starts one process for each device of the plan, or joins those that torchrun or srun has started. SIGTERM saves a
checkpoint (with --checkpoint) and ends with 0. Other exit codes: 2 wrong input, 3 the loss is no number, 4 a process
was lost, 130 Ctrl-C.
"""


_PlanFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="PLAN.yaml", help="Plan file; it may also name model and stack.", show_default=False
    ),
]

_Machine = Annotated[
    str | None,
    typer.Option(
        "--machine",
        metavar="X",
        help="Machine that this runs on, such as local: its peak makes MFU of the speed.",
        show_default=False,
    ),
]
_Stack = Annotated[
    str | None,
    typer.Option(
        "--stack",
        metavar="S",
        help="Stack whose switches hold; default: towtank-executor, whatever the plan file names.",
        show_default=False,
    ),
]


@with_records
def run(
    plan: _PlanFile = None,
    model: Model = None,
    machine: _Machine = None,
    stack: _Stack = None,
    settings: Settings = None,
    json: Json = False,
    profiles: Profiles = None,
    training: Training = USUAL_TRAINING,
    devices: Devices = ALL_DEVICES,
    measuring: Measuring = NOTHING_MEASURED,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> None:
    """Train for real under a plan, with CPUs and gloo or GPUs and NCCL, and measure it."""
    from towtank.cli.failure import WRONG_INPUT, InputError, complain
    from towtank.cli.run_job import Asked, prepare
    from towtank.cli.run_report import report
    from towtank.executor.errors import ExecutorError, RunError
    from towtank.executor.launching.start import end, start

    folders = tuple(profiles or ())
    references = (model, machine, stack)
    asked = Asked(plan, references, tuple(settings or ()), folders, training, devices, measuring, checkpoints)
    request, job = prepare(asked)
    try:
        outcome = start(request)
        if outcome is not None:  # else another rank reports
            report(outcome, request, job, measuring.record, json=json)
    except (ExecutorError, InputError, RunError) as error:
        complain(str(error))
        code = error.code if isinstance(error, RunError) else WRONG_INPUT
        end(request, code)
        raise typer.Exit(code) from error
    end(request, 0)
