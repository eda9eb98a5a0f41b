"""`towtank run`: train for real, under a plan, on the devices at hand."""

from pathlib import Path
from typing import Annotated, Any

import typer

from towtank.cli.options import Json, Machine, Model, Profiles, Stack

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


def _option(*names: str, metavar: str | None = None, text: str, default: bool = False) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=default)


_PlanFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="PLAN.yaml", help="Plan file; it may also name model and stack.", show_default=False
    ),
]
_Settings = Annotated[
    list[str] | None,
    _option("--set", metavar="KEY=VALUE,...", text="Fields of the plan; they override the file. Repeatable."),
]
_Steps = Annotated[
    int,
    _option("--steps", metavar="N", text="Steps of the whole training, with those resumed.", default=True),
]
_Data = Annotated[
    Path | None,
    _option("--data", metavar="PATH", text="Text file or folder; a byte is a token. Default: synthetic."),
]
_Dtype = Annotated[
    str | None,
    _option("--dtype", metavar="T", text="float64, fp32, bf16 or fp16; default: the plan's precision."),
]
_Device = Annotated[
    str | None, _option("--device", metavar="TYPE", text="cpu or cuda; default: GPUs where there are enough.")
]
_Threads = Annotated[
    int | None,
    _option("--threads", metavar="N", text="CPU threads of a process; default: cores over processes."),
]
_Seed = Annotated[
    int, _option("--seed", metavar="N", text="Of weights, order of data and dropout.", default=True)
]
_Rate = Annotated[float, _option("--learning-rate", metavar="X", text="Of AdamW.", default=True)]
_Decay = Annotated[float, _option("--weight-decay", metavar="X", text="Of AdamW.", default=True)]
_Clip = Annotated[
    float,
    _option("--gradient-clip", metavar="X", text="Largest norm of all gradients; 0: none.", default=True),
]
_Dropout = Annotated[float, _option("--dropout", metavar="P", text="Probability.", default=True)]
_Goldfish = Annotated[
    int | None,
    _option("--goldfish", metavar="K", text="Leave one target in K out of the loss (goldfish loss)."),
]
_GoldfishContext = Annotated[
    int, _option("--goldfish-context", metavar="H", text="Targets that its hash is made of.", default=True)
]
_Record = Annotated[
    Path | None, _option("--record", metavar="FILE", text="Time every operation and write the record (JSON).")
]
_Trace = Annotated[
    Path | None,
    _option("--trace", metavar="FILE", text="Write the last step's timeline (Perfetto; .gz: compressed)."),
]
_WarmUp = Annotated[
    int | None,
    _option("--warm-up", metavar="N", text="First steps left out of means; default: a fifth, at most 5."),
]
_Checkpoint = Annotated[
    Path | None,
    _option("--checkpoint", metavar="DIR", text="Folder of checkpoints; one is written at the end."),
]
_SaveEvery = Annotated[
    int | None, _option("--save-every", metavar="N", text="Write one after every so many steps too.")
]
_Resume = Annotated[
    bool, _option("--resume", text="Go on from the newest checkpoint, under this plan or another one.")
]


def run(
    plan: _PlanFile = None,
    model: Model = None,
    machine: Machine = None,
    stack: Stack = None,
    settings: _Settings = None,
    steps: _Steps = 10,
    data: _Data = None,
    dtype: _Dtype = None,
    device: _Device = None,
    threads: _Threads = None,
    seed: _Seed = 0,
    learning_rate: _Rate = 3e-4,
    weight_decay: _Decay = 0.1,
    gradient_clip: _Clip = 1.0,
    dropout: _Dropout = 0.0,
    goldfish: _Goldfish = None,
    goldfish_context: _GoldfishContext = 13,
    record: _Record = None,
    trace: _Trace = None,
    warm_up: _WarmUp = None,
    checkpoint: _Checkpoint = None,
    save_every: _SaveEvery = None,
    resume: _Resume = False,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Train for real under a plan, with CPUs and gloo or GPUs and NCCL, and measure it."""
    from towtank.cli.run_job import Asked, prepare
    from towtank.cli.run_report import report
    from towtank.executor.errors import RunError
    from towtank.executor.launching.start import start

    training = {
        "steps": steps,
        "seed": seed,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "gradient_clip": gradient_clip or None,
        "dropout": dropout,
    }
    asked = Asked(
        plan=plan,
        references=(model, machine, stack),
        settings=tuple(settings or ()),
        profiles=tuple(profiles or ()),
        training=training,
        dtype=dtype,
        device=device,
        threads=threads,
        data=data,
        goldfish=None if goldfish is None else (goldfish, goldfish_context),
        record=record,
        trace=trace,
        warm_up=warm_up,
        checkpoint=checkpoint,
        save_every=save_every,
        resume=resume,
    )
    request, job = prepare(asked)
    try:
        outcome = start(request)
    except RunError as error:
        from towtank.cli.failure import complain

        complain(str(error))
        raise typer.Exit(error.code) from error
    if outcome is not None:  # else another rank reports
        report(outcome, request, job, record, json=json)
