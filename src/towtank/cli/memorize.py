"""`towtank memorize`: what a small model can say by heart of texts it has seen so often, without and with a mask."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.options import Json
from towtank.cli.records_as_options import with_records

if TYPE_CHECKING:
    from towtank.executor.goldfish import Goldfish
    from towtank.executor.memorize import Experiment, Outcome

EXAMPLES = """\b
Examples:
  towtank memorize
  towtank memorize --goldfish 4 --goldfish-context 8 --plot memory.svg
  towtank memorize --data books/ --times 0,1,2,8 --documents 16 --json
"""


def _option(name: str, metavar: str, text: str, *, default: bool = True) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=default)


_Data = Annotated[
    Path | None,
    _option(
        "--data",
        "PATH",
        "Text that documents are cut from: file or folder. Default: random bytes.",
        default=False,
    ),
]
_Times = Annotated[str, _option("--times", "N,N,...", "How often the documents of each bucket are seen.")]
_Documents = Annotated[int, _option("--documents", "N", "Documents of each bucket.")]
_Length = Annotated[int, _option("--length", "N", "Bytes of a document; a byte is a token.")]
_Answer = Annotated[int, _option("--answer", "N", "Last bytes, which must come out exactly.")]
_Seed = Annotated[int, _option("--seed", "N", "Of documents, their order and initial weights.")]
_Goldfish = Annotated[int, _option("--goldfish", "K", "The mask leaves one target in K out of the loss.")]
_Context = Annotated[int, _option("--goldfish-context", "H", "Targets that its hash is made of.")]
_Layers = Annotated[int, _option("--layers", "N", "Of the model.")]
_Hidden = Annotated[int, _option("--hidden", "N", "Width of the model; a multiple of 32.")]
_Rate = Annotated[float, _option("--learning-rate", "X", "Of AdamW.")]
_Unrelated = Annotated[int, _option("--unrelated", "N", "Documents of the warm-up, which are in no bucket.")]
_WarmUp = Annotated[int, _option("--warm-up", "N", "How often those are seen, before the buckets.")]
_Plot = Annotated[
    Path | None, _option("--plot", "FILE", "Write exact match over times seen (SVG).", default=False)
]


@dataclass(frozen=True, slots=True)
class Documents:
    """What is read."""

    data: _Data = None
    times: _Times = "0,1,4,6"
    documents: _Documents = 8
    length: _Length = 64
    answer: _Answer = 16
    seed: _Seed = 0


@dataclass(frozen=True, slots=True)
class Model:
    """What reads it, and how it learned to."""

    layers: _Layers = 2
    hidden: _Hidden = 192
    learning_rate: _Rate = 1e-3
    unrelated: _Unrelated = 48
    warm_up: _WarmUp = 34


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask of the second training."""

    goldfish: _Goldfish = 2
    goldfish_context: _Context = 13


USUAL_DOCUMENTS, USUAL_MODEL, USUAL_MASK = Documents(), Model(), Mask()


@with_records
def memorize(
    plot: _Plot = None,
    json: Json = False,
    documents: Documents = USUAL_DOCUMENTS,
    model: Model = USUAL_MODEL,
    mask: Mask = USUAL_MASK,
) -> None:
    """Train a small model on documents seen so often each, and count those whose ends it then says by heart.

    Twice, with the plain loss and with the goldfish loss (Hans et al., NeurIPS'24), as Singh et al., SC'24, section
    VIII, do with large models. Both trainings go on from the same warm-up. On a CPU, in about a minute.
    """
    experiment, goldfish = _checked(documents, model, mask, plot)
    from towtank.cli.memorize_text import document, text
    from towtank.cli.progress import progress_bar
    from towtank.cli.text import emit, emit_json
    from towtank.executor.errors import RunError
    from towtank.executor.memorize import memorize as run

    try:
        outcomes = run(
            experiment,
            (None, goldfish),
            lambda done, total: progress_bar("training steps", done=done, total=total),
        )
    except RunError as error:
        from towtank.cli.failure import complain

        complain(str(error))
        raise typer.Exit(error.code) from error
    if plot is not None:
        _write_plot(plot, outcomes, experiment)
    if json:
        emit_json(document(experiment, outcomes))
    else:
        emit(text(experiment, outcomes))


def _checked(
    documents: Documents, model: Model, mask: Mask, plot: Path | None
) -> "tuple[Experiment, Goldfish]":
    """The experiment and its mask; every fault of the options at once.

    Raises:
        InputError: something is wrong.
    """
    from towtank.cli.failure import InputError, Inputs
    from towtank.executor.goldfish import Goldfish

    inputs = Inputs()
    times = inputs.take(lambda: _numbers(documents.times))
    goldfish = inputs.take(lambda: Goldfish(mask.goldfish, mask.goldfish_context))
    inputs.take(lambda: _check_plot(plot))
    experiment = _experiment(documents, model, times or (1,))
    inputs.faults += experiment.faults()
    if goldfish is not None and experiment.length < goldfish.h:
        inputs.faults.append(
            f"--goldfish-context {goldfish.h} is more than the {experiment.length} bytes of a document, so "
            f"the mask would leave nothing out"
        )
    inputs.take(lambda: _check_text(experiment) if not experiment.faults() else None)
    inputs.check()
    if goldfish is None:
        raise InputError("no mask")  # check has raised
    return experiment, goldfish


def _experiment(documents: Documents, model: Model, times: tuple[int, ...]) -> "Experiment":
    from towtank.executor.memorize import Experiment

    return Experiment(
        data=documents.data, seed=documents.seed, times=times, documents=documents.documents,
        length=documents.length, answer=documents.answer, unrelated=model.unrelated, warm_up=model.warm_up,
        layers=model.layers, hidden=model.hidden, learning_rate=model.learning_rate,
    )  # fmt: skip


def _numbers(text: str) -> tuple[int, ...]:
    from towtank.cli.failure import InputError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--times {text} must be whole numbers with commas between them, such as 0,1,4,6")
    return tuple(int(word) for word in words)


def _check_text(experiment: "Experiment") -> None:
    from towtank.executor.memorize import corpus

    corpus(experiment)


def _check_plot(path: Path | None) -> None:
    """Whether the plot can be written: before the training, not after it."""
    from towtank.cli.failure import InputError

    if path is None:
        return
    if path.suffix.lower() != ".svg":
        raise InputError(f"--plot {path}: is written as SVG; name it {path.with_suffix('.svg').name}")
    if path.is_dir():
        raise InputError(f"--plot {path} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"--plot {path}: there is no folder {path.parent}")


def _write_plot(path: Path, outcomes: "list[Outcome]", experiment: "Experiment") -> None:
    from towtank.cli.failure import InputError
    from towtank.executor.memorize_plot import memory_plot

    try:
        path.write_text(memory_plot(outcomes, experiment.answer), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--plot {path}: cannot be written: {error.strerror or error}") from error
