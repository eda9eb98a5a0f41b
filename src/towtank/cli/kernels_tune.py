"""`towtank kernels tune`: choose how a kernel is run on this device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.options import Json

if TYPE_CHECKING:
    from towtank.kernels.modes import ModeChoice, Problem

EXAMPLES = (
    "Examples: `towtank kernels tune --kernel matmul --backend library` for the multiplies of six GPT layers; "
    "`towtank kernels tune --kernel matmul --shape 4096x4096x4096 --budget 60s` for the tiles of one."
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
        str | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="library: choose the order of operands; c or triton: search tiles. "
            "Default: that with tiles here if a shape is given, else library.",
            show_default=False,
        ),
    ] = None,
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
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Time for each multiply, such as 60s or 2m; default: 2s for orders, 60s for tiles.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write all times of orders (CSV).", show_default=False),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Measure this many tiles at most.", show_default=False),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="NAME",
            help="Device profile that predicts tiles of a GPU; default: that of the GPU at hand.",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what an earlier search of tiles measured.")
    ] = False,
    json: Json = False,
) -> None:
    """Choose how a matrix multiply is run here, by measurement.

    The library is handed operands in eight ways (NN, NT, TN and their transposes). Backends with tiles have them
    searched: a model of the device picks what is worth measuring, and the best is kept for this device. A search that
    was broken off, or is run again, goes on from what it has measured.
    """
    import datetime
    from dataclasses import asdict

    from towtank.cli.failure import InputError
    from towtank.cli.kernels_choice import Choice, checked_device, progress
    from towtank.cli.kernels_tiles import backend_with_tiles, parse_seconds, tune_tiles
    from towtank.cli.text import emit, emit_json
    from towtank.kernels.device import device_name, software
    from towtank.kernels.modes import choices, measure_modes, write_modes

    seconds = None if budget is None else parse_seconds(budget)
    if backend is None:
        backend = "library" if shape is None else backend_with_tiles(checked_device(device))
    choice = Choice.of(kernel, backend, dtype, device)
    if not kernel.startswith("matmul"):
        raise InputError(f"tune knows the multiplies matmul, matmul_dgrad and matmul_wgrad; got {kernel}")
    if backend != "library":
        if shape is None:
            raise InputError("tiles are searched for one product: give its --shape, such as 4096x4096x4096")
        ((_, sizes),) = _problems(kernel, shape)
        tune_tiles(
            kernel, backend, choice.dtypes[0], dict(sizes), choice.device,
            seconds=seconds or 60.0, trials=trials, profile=profile, fresh=fresh, json=json,
        )  # fmt: skip
        return
    problems = _problems(kernel, shape)
    times = measure_modes(
        problems, choice.dtypes[0], choice.device, budget_s=seconds or 2.0, progress=progress
    )
    where = f"{device_name(choice.device)}; {software(choice.device)}"
    if out is not None:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        write_modes(out, times, [f"Device: {where}. Date: {date}. By towtank kernels tune."])
    if json:
        emit_json([asdict(each) for each in choices(times)])
        return
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
