"""`towtank explain`: what limits a step, what would make it faster, and what another machine would do."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.options import Json, Machine, Model, Profiles, Stack

if TYPE_CHECKING:
    from towtank.cli.explain_text import Explanation
    from towtank.cli.job import Job

EXAMPLES = """\
\b
Examples:
  towtank explain plan.yaml
  towtank explain plan.yaml --set "network.bandwidth*=2" --set device.hbm=192GB
  towtank explain plan.yaml --model gpt3-175b --machine selene --stack megatron-2021 --json
  towtank predict --plan plan.yaml --set recompute=none   # what explain says next, tried

\b
Properties for --set: device.flop, device.hbm, device.hbm_bandwidth, node.bandwidth, node.latency, network.bandwidth,
network.latency; with *= or /= a factor, with = a quantity. `towtank why` changes the plan instead of the machine.
"""


def explain(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Plan file.", show_default=False)],
    model: Model = None,
    machine: Machine = None,
    stack: Stack = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PROPERTY*=FACTOR", help="Change of the machine. Repeatable.", show_default=False
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, help="Rows and actions that are shown.")
    ] = 8,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Name what limits a step: its critical path, how much each part of the machine matters, and what to do next.

    The critical path is the chain of operations without a gap that makes the step as long as it is. A sensitivity of
    -0.8 means that 1 % more of a property makes the step 0.8 % shorter.
    """
    from towtank.autotune.explanation.knobs import parse_what_if
    from towtank.cli.explain_text import explanation_text, explanation_to_mapping
    from towtank.cli.failure import Inputs
    from towtank.cli.job import load_job
    from towtank.cli.text import emit, emit_json

    folders, inputs = tuple(profiles or ()), Inputs()
    inputs.take(lambda: parse_what_if(what_if or ()))
    job = load_job(plan, model, machine, stack, folders, inputs=inputs)
    found = _explained(job, what_if or (), top, folders)
    if json:
        emit_json(explanation_to_mapping(found))
    else:
        emit(explanation_text(found))


def _explained(job: "Job", what_if: Sequence[str], top: int, folders: Sequence[Path]) -> "Explanation":
    from towtank.autotune.explanation.knobs import turned
    from towtank.autotune.explanation.sensitivities import sensitivities
    from towtank.autotune.reasons.survey import survey
    from towtank.autotune.task import TuningTask
    from towtank.cli.compare import predicted
    from towtank.cli.explain_text import Explanation
    from towtank.cli.progress import progress_bar
    from towtank.simulator.critical_path import critical_path
    from towtank.simulator.predict import predict

    other = turned(job.machine, what_if) if what_if else None
    prediction = predicted(job, folders)
    task = TuningTask(
        model=job.model, machine=job.machine, stack=job.stack, devices=job.plan.num_devices,
        global_batch=job.plan.global_batch, sequence=job.plan.sequence, profile_dirs=tuple(folders),
    )  # fmt: skip

    def tell(done: int, total: int) -> None:
        progress_bar("neighbours", done=done, total=total)

    changed: Any = None
    if other is not None:
        changed = predict(job.model, other, job.plan, stack=job.stack, profile_dirs=folders)
    return Explanation(
        prediction=prediction,
        path=critical_path(prediction.step, prediction.machine.device),
        sensitivities=sensitivities(prediction, folders),
        survey=survey(task, job.plan, prediction, top=top, progress=tell),
        what_if=tuple(what_if),
        changed=changed,
        top=top,
    )
