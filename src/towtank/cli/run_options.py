"""Options of `towtank run`, by what they are about."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


def _option(*names: str, metavar: str | None = None, text: str, default: bool = False) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=default)


Settings = Annotated[
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
    bool,
    _option("--resume", text="Go on from the newest checkpoint, if there is one; the plan may change."),
]


@dataclass(frozen=True, slots=True)
class Training:
    """How the run trains."""

    steps: _Steps = 10
    data: _Data = None
    dtype: _Dtype = None
    seed: _Seed = 0
    learning_rate: _Rate = 3e-4
    weight_decay: _Decay = 0.1
    gradient_clip: _Clip = 1.0
    dropout: _Dropout = 0.0
    goldfish: _Goldfish = None
    goldfish_context: _GoldfishContext = 13


@dataclass(frozen=True, slots=True)
class Devices:
    """What the run is on."""

    device: _Device = None
    threads: _Threads = None


@dataclass(frozen=True, slots=True)
class Measuring:
    """What is measured."""

    record: _Record = None
    trace: _Trace = None
    warm_up: _WarmUp = None


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where training is kept."""

    checkpoint: _Checkpoint = None
    save_every: _SaveEvery = None
    resume: _Resume = False


USUAL_TRAINING = Training()
ALL_DEVICES = Devices()
NOTHING_MEASURED = Measuring()
NO_CHECKPOINTS = Checkpoints()
