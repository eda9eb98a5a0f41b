"""`towtank scale`: how a job scales, with the best plan at each number of devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from towtank.cli.failure import INTERRUPTED, InputError, Inputs, complain
from towtank.cli.files import check_writable, fault_of_writing
from towtank.cli.memory_margin import AUTO, MemoryMarginOption, margin_share
from towtank.cli.options import Json, Profiles
from towtank.cli.words import one_of

if TYPE_CHECKING:
    from towtank.autotune.scaling.series import Growth, Mode, ScalePoint
    from towtank.autotune.scaling.study import Study, TunedPoint

EXAMPLES = """\
\b
Examples:
  towtank scale --model llama3-70b --machine dgx-h100 --devices 64..1024 --global-batch 1024
  towtank scale --model llama3-70b --machine alps --devices 64..4096 --global-batch 64 --mode weak-batch --plot s.svg
  towtank scale --model gpt-5b,gpt-10b,gpt-20b,gpt-40b --machine perlmutter --stack axonn \\
      --devices 512..4096 --global-batch 8192 --mode weak-model
  towtank scale --model gpt3-13b --machine selene --devices 64,96,128 --global-batch 768 --budget 30s --json

\b
Numbers of devices: 64..16384 doubles, 64..1024:64 goes in steps of 64, 64,96,128 lists.
Exit codes: 0 also where some points have no plan, 2 wrong input, 130 stopped by Ctrl-C with what was done.
"""

_MOST_POINTS = 256


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


@dataclass(frozen=True)
class _Asked:
    """What the user asks for, as given."""

    models: str
    machine: str
    stack: str
    devices: str
    mode: str
    growth: str
    global_batch: int
    sequence: int | None
    limits: tuple[Sequence[str], ...]
    """Texts of --fix, --min, --max and --free."""
    budget: str | None
    plot: Path | None
    profiles: tuple[Path, ...]
    memory_margin: str


_Models = Annotated[
    str,
    _option("--model", "M,...", "Model; for weak-model one for each number of devices, or one that grows."),
]
_Machine = Annotated[str, _option("--machine", "X", "Machine such as selene or dgx-h100:nodes=64.")]
_Devices = Annotated[str, _option("--devices", "64..16384", "Numbers of devices.")]
_Batch = Annotated[
    int, _option("--global-batch", "N", "Sequences of a step; for weak-batch those on the fewest devices.")
]
_Mode = Annotated[
    str, typer.Option("--mode", metavar="strong|weak-batch|weak-model", help="What grows with the devices.")
]
_Grow = Annotated[
    str, typer.Option("--grow", metavar="layers|hidden", help="How one model grows for weak-model.")
]
_Sequence = Annotated[int | None, _option("--sequence", "N", "Tokens of a sequence; default: the model's.")]
_Stack = Annotated[str, typer.Option("--stack", metavar="S", help="Software that limits the space.")]
_Fix = Annotated[
    list[str] | None, _option("--fix", "FIELD=VALUE", "Only these values, such as tensor_x=4|8. Repeatable.")
]
_Min = Annotated[list[str] | None, _option("--min", "FIELD=N", "Smallest value of a count. Repeatable.")]
_Max = Annotated[list[str] | None, _option("--max", "FIELD=N", "Largest value of a count. Repeatable.")]
_Free = Annotated[
    list[str] | None,
    _option("--free", "FIELD", "All legal values instead of the usual ones; or all. Repeatable."),
]
_Budget = Annotated[
    str | None, _option("--budget", "TIME", "For each point, such as 60s; default: until its plan is proven.")
]
_Jobs = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", min=1, help="Processes; default: one a core.", show_default=False),
]
_Plot = Annotated[Path | None, _option("--plot", "FILE.svg", "Write throughput and efficiency as SVG.")]


def scale(
    model: _Models,
    machine: _Machine,
    devices: _Devices,
    global_batch: _Batch,
    mode: _Mode = "strong",
    grow: _Grow = "layers",
    sequence: _Sequence = None,
    stack: _Stack = "any",
    fix: _Fix = None,
    least: _Min = None,
    most: _Max = None,
    free: _Free = None,
    budget: _Budget = None,
    memory_margin: MemoryMarginOption = AUTO,
    jobs: _Jobs = None,
    plot: _Plot = None,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Search the best plan at each number of devices and show how the job scales.

    strong: model and batch stay; weak-batch: the batch grows with the devices; weak-model: the model does, by a list
    of models, by layers (in proportion to the devices) or by hidden size (its square root). A point without a plan
    says why, and the rest goes on. Ctrl-C keeps the points that are done.
    """
    limits, folders = (fix or (), least or (), most or (), free or ()), tuple(profiles or ())
    asked = _Asked(
        model,
        machine,
        stack,
        devices,
        mode,
        grow,
        global_batch,
        sequence,
        limits,
        budget,
        plot,
        folders,
        memory_margin,
    )
    study, points = _study(asked)
    found = _tuned(study, points, jobs)
    _print(asked, study, found, json)
    _check_interrupt(found)


def _print(asked: _Asked, study: "Study", found: "list[TunedPoint]", json: bool) -> None:
    from towtank.cli.scale_text import scale_text, scale_to_mapping
    from towtank.cli.text import emit, emit_json

    fault = None if asked.plot is None else _unwritten(asked.plot, found, _title(asked))
    if json:
        emit_json(scale_to_mapping(found, study, asked.mode))
    else:
        emit(scale_text(found, _title(asked), asked.mode, study.memory_margin))
    if fault is not None:
        raise fault
    if asked.plot is not None and not json:
        emit(f"\nplot: {asked.plot}")


def _check_interrupt(found: "list[TunedPoint]") -> None:
    from towtank.autotune.scaling.study import INTERRUPTED as STOPPED

    if any(each.why_not == STOPPED for each in found):
        complain("interrupted; the points that were done are kept")
        raise typer.Exit(INTERRUPTED)


def _study(asked: _Asked) -> "tuple[Study, tuple[ScalePoint, ...]]":
    """Everything loaded and checked, all faults told at once."""
    from towtank.autotune.errors import TuningError
    from towtank.autotune.scaling.series import GROWTHS, MODES, scale_points
    from towtank.autotune.scaling.study import Study
    from towtank.autotune.space.constraint_text import read_constraints
    from towtank.cli.tune import budget_seconds
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    inputs = Inputs()
    models = [inputs.take(lambda name=name: load_model(name)) for name in _words(asked.models)]  # type: ignore[misc]
    machine = inputs.take(lambda: load_machine(asked.machine, asked.profiles))
    stack = inputs.take(lambda: load_stack(asked.stack))
    counts = inputs.take(lambda: device_counts(asked.devices))
    constraints = inputs.take(lambda: read_constraints(*asked.limits))
    budget_s = inputs.take(lambda: budget_seconds(asked.budget))
    margin = inputs.take(lambda: margin_share(asked.memory_margin, None if stack is None else stack.name))
    inputs.take(lambda: one_of("--mode", asked.mode, MODES))
    inputs.take(lambda: one_of("--grow", asked.growth, GROWTHS))
    inputs.take(lambda: _at_least_one("--sequence", asked.sequence))
    inputs.take(lambda: _check_plot(asked.plot))
    inputs.check()
    assert (
        machine and stack and counts and constraints is not None and margin is not None
    )  # else check has raised
    known = [model for model in models if model is not None]
    try:
        points = scale_points(
            cast("Mode", asked.mode), known, counts, asked.global_batch, cast("Growth", asked.growth)
        )
    except TuningError as error:
        raise InputError(str(error)) from error
    study = Study(machine, stack, asked.sequence, constraints, asked.profiles, budget_s, margin)
    return study, points


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] or [text]


def device_counts(text: str) -> tuple[int, ...]:
    """Numbers of devices of `64..16384` (doublings), `64..1024:64` (steps) or `64,96,128`, and mixtures of these.

    Raises:
        InputError: a part is none of these, or there are too many numbers.
    """
    counts: set[int] = set()
    for part in _words(text):
        first, dots, rest = part.partition("..")
        last, colon, step = rest.partition(":")
        numbers = [first, *([last] if dots else []), *([step] if colon else [])]
        if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
            raise InputError(
                f"--devices {part}: must be a number, 64..16384 (doublings) or 64..1024:64 (steps of 64)"
            )
        counts.update(_range(*(int(number) for number in numbers)))
        if len(counts) > _MOST_POINTS:
            raise InputError(f"--devices {text}: more than {_MOST_POINTS} numbers; take larger steps")
    return tuple(sorted(counts))


def _range(first: int, last: int | None = None, step: int | None = None) -> list[int]:
    """Numbers from `first` to `last`: doublings, or steps; never more than are of use."""
    if last is None:
        return [first]
    if last < first:
        raise InputError(f"--devices {first}..{last}: the second number must not be below the first")
    if step is not None:
        return list(range(first, last + 1, step)[: _MOST_POINTS + 1])
    found = [first]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found


def _at_least_one(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise InputError(f"{option} {value} must be 1 or more")


def _check_plot(path: Path | None) -> None:
    """Whether the plot can be written: before an hour of searching, not after it."""
    if path is None:
        return
    if path.suffix.lower() != ".svg":
        raise InputError(f"--plot {path}: is written as SVG; name it {path.with_suffix('.svg').name}")
    check_writable("--plot", path)


def _tuned(study: "Study", points: "tuple[ScalePoint, ...]", jobs: int | None) -> "list[TunedPoint]":
    from towtank.autotune.scaling.study import tune_points
    from towtank.cli.progress import progress_bar

    def tell(done: int, total: int) -> None:
        progress_bar("points", done=done, total=total)

    progress_bar("points", done=0, total=len(points))
    return tune_points(study, points, jobs=jobs, progress=tell)


def _title(asked: _Asked) -> str:
    what = {
        "strong": "strong scaling",
        "weak-batch": "weak scaling, the batch grows",
        "weak-model": "weak scaling, the model grows",
    }[asked.mode]
    return f"{asked.models} on {asked.machine} under {asked.stack}: {what}"


def _unwritten(path: Path, found: "list[TunedPoint]", title: str) -> InputError | None:
    """Write the plot; what is wrong where that fails."""
    from towtank.autotune.scaling.plot import scale_plot

    return fault_of_writing("--plot", path, scale_plot(found, title))
