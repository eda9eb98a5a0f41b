"""`towtank kernels tune`: choose how a kernel is run on this device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from towtank.kernels.modes import ModeChoice, Problem

EXAMPLES = (
    "Examples: `towtank kernels tune --kernel matmul --backend library` for the multiplies of six GPT layers; "
    "`towtank kernels tune --kernel matmul --shape 4096x4096x1024` for one."
)


def tune(
    kernel: Annotated[
        str,
        typer.Option(
            "--kernel",
            metavar="NAME",
            help="matmul (without a shape: all directions), matmul_dgrad, matmul_wgrad.",
        ),
    ] = "matmul",
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="library: choose the order of operands.")
    ] = "library",
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="MxNxK", help="One multiply; default: those of six GPT layers."),
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="TYPE", help="Precision: fp32, fp16 or bf16.")
    ] = "fp32",
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="TYPE", help="cpu or cuda; default: the GPU where there is one."),
    ] = None,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", min=0.1, help="Time for each multiply.")
    ] = 2.0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write all times (CSV).", show_default=False)
    ] = None,
) -> None:
    """Choose how matrix multiplies are handed to the library, by measurement (NN, NT, TN and their transposes)."""
    import datetime

    from towtank.cli.failure import InputError
    from towtank.cli.kernels_choice import Choice, progress
    from towtank.cli.text import emit
    from towtank.kernels.device import device_name, software
    from towtank.kernels.modes import choices, measure_modes, write_modes

    choice = Choice.of(kernel, backend, dtype, device)
    if backend != "library" or not kernel.startswith("matmul"):
        raise InputError(f"tune chooses modes of matmul by the library so far, got {kernel} by {backend}")
    problems = _problems(kernel, shape)
    times = measure_modes(problems, choice.dtypes[0], choice.device, budget_s=budget, progress=progress)
    where = f"{device_name(choice.device)}; {software(choice.device)}"
    if out is not None:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        write_modes(out, times, [f"Device: {where}. Date: {date}. By towtank kernels tune."])
    emit(f"Modes of matrix multiplies on {where}\n")
    emit(_text(choices(times)))


def _problems(kernel: str, shape: str | None) -> "list[Problem]":
    from towtank.cli.failure import InputError
    from towtank.kernels.modes import layer_problems

    if shape is None:
        return [each for each in layer_problems() if kernel in ("matmul", each[0])]
    parts = shape.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--shape is MxNxK with three whole numbers, such as 4096x4096x1024; got {shape!r}")
    return [(kernel, dict(zip("mnk", map(int, parts), strict=True)))]


def _text(found: "list[ModeChoice]") -> str:
    from statistics import median

    from towtank.cli.text import percent, table

    rows = [
        (each.kernel, each.sizes, each.mode, f"{each.gain:.2f}x", percent(each.over_best - 1))
        for each in found
    ]
    heads = ("multiply", "sizes", "chosen mode", "gain", "over best")
    gains, worst = [each.gain for each in found], max(each.over_best for each in found)
    summary = (
        f"Gain over the default: median {median(gains):.2f}x, largest {max(gains):.2f}x. "
        f"Slower than the best mode by {percent(worst - 1)} at most."
    )
    note = "Chosen by one measurement; gain and distance to the best are those of a second one."
    return "\n".join([table(rows, heads, right=(3, 4)), "", summary, note])
