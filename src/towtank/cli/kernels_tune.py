"""`towtank kernels tune`: choose how a kernel is run on this device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.options import Json

if TYPE_CHECKING:
    from towtank.cli.kernels_choice import Choice
    from towtank.kernels.modes import ModeChoice, Problem

EXAMPLES = """\
\b
Examples:
  towtank kernels tune --kernel matmul --shape 4096x4096x4096 --budget 60s
  towtank kernels tune --kernel matmul --backend library --out modes.csv

\b
The first searches tiles, the second the order of operands for the multiplies of six GPT layers.
"""


_Kernel = Annotated[
    str,
    typer.Option(
        "--kernel",
        metavar="NAME",
        help="matmul (without a shape: all directions), matmul_dgrad, matmul_wgrad; on a GPU also the others with "
        "tiles, such as attention.",
    ),
]
_Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="library: choose the order of operands; c or triton: search tiles. "
        "Default: that with tiles here if a shape is given, else library.",
        show_default=False,
    ),
]
_Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        metavar="MxNxK",
        help="One multiply; default: those of six GPT layers. Other kernels: their sizes in the order of `towtank "
        "kernels list --json`, such as 1x4096x32x8x128 of attention.",
    ),
]
_Dtype = Annotated[
    str, typer.Option("--dtype", metavar="TYPE", help="Precision: fp32, fp16, bf16, fp64 or fp8.")
]
_Device = Annotated[
    str | None,
    typer.Option("--device", metavar="TYPE", help="cpu or cuda; default: the GPU where there is one."),
]
_Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Time for each multiply, such as 60s or 2m; default: 2s for orders, 60s for tiles.",
        show_default=False,
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write all times of orders (CSV).", show_default=False),
]
_Trials = Annotated[
    int | None, typer.Option("--trials", min=1, help="Measure this many tiles at most.", show_default=False)
]
_Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="Device profile that predicts tiles of a GPU; default: that of the GPU at hand.",
        show_default=False,
    ),
]
_Fresh = Annotated[
    bool, typer.Option("--fresh", help="Measure again what an earlier search of tiles measured.")
]


def tune(
    kernel: _Kernel = "matmul",
    backend: _Backend = None,
    shape: _Shape = None,
    dtype: _Dtype = "fp32",
    device: _Device = None,
    budget: _Budget = None,
    out: _Out = None,
    trials: _Trials = None,
    profile: _Profile = None,
    fresh: _Fresh = False,
    json: Json = False,
) -> None:
    """Choose how a matrix multiply is run here, by measurement.

    The library is handed operands in eight ways (NN, NT, TN and their transposes). Backends with tiles have them
    searched: a model of the device picks what is worth measuring, and the best is kept for this device. A search that
    was broken off, or is run again, goes on from what it has measured.
    """
    from towtank.cli.failure import InputError
    from towtank.cli.kernels_choice import Choice, checked_device
    from towtank.cli.kernels_tiles import backend_with_tiles, parse_seconds, tune_tiles

    seconds = None if budget is None else parse_seconds(budget)
    if backend is None:
        backend = "library" if shape is None else backend_with_tiles(checked_device(device))
    choice = Choice.of(kernel, backend, dtype, device)
    _check_options(backend, choice.device, out=out, trials=trials, profile=profile, fresh=fresh or None)
    if backend == "library" and not kernel.startswith("matmul"):
        raise InputError(
            f"orders of operands are those of matmul, matmul_dgrad and matmul_wgrad; got {kernel}. Of other kernels "
            "tiles are searched: give a --shape"
        )
    problems = _problems(kernel, shape, choice.device)
    if backend == "library":
        _tune_modes(choice, problems, seconds or 2.0, out, json)
        return
    if shape is None:
        raise InputError("tiles are searched for one product: give its --shape, such as 4096x4096x4096")
    sizes = dict(problems[0][1])
    tune_tiles(
        kernel, backend, choice.dtypes[0], sizes, choice.device,
        seconds=seconds or 60.0, trials=trials, profile=profile, fresh=fresh, json=json,
    )  # fmt: skip


def _check_options(backend: str, device: str, **given: object) -> None:
    """Options that would not be read are refused.

    Raises:
        InputError: there are some.
    """
    from towtank.cli.failure import InputError
    from towtank.cli.kernels_choice import check_writable

    unread: tuple[str, ...]
    if backend == "library":
        unread, why = (
            ("trials", "profile", "fresh"),
            "of the library orders of operands are chosen, not tiles",
        )
    elif device == "cpu":
        unread, why = (
            ("out", "profile"),
            "tiles on a CPU go into the cache, and are predicted from the CPU at hand",
        )
    else:
        unread, why = ("out",), "tiles go into the cache"
    if wrong := [f"--{name}" for name in unread if given[name] is not None]:
        raise InputError(f"{', '.join(wrong)}: not read here: {why}")
    if isinstance(out := given["out"], Path):
        check_writable(out)


def _tune_modes(
    choice: "Choice", problems: "list[Problem]", budget_s: float, out: Path | None, json: bool
) -> None:
    """Choose how matrix multiplies are handed to the library."""
    import datetime
    from dataclasses import asdict

    from towtank.cli.kernels_choice import progress, writing
    from towtank.cli.text import emit, emit_json
    from towtank.kernels.device import device_name, software
    from towtank.kernels.modes import choices, measure_modes, write_modes

    times = measure_modes(problems, choice.dtypes[0], choice.device, budget_s=budget_s, progress=progress)
    where = f"{device_name(choice.device)}; {software(choice.device)}"
    if out is not None:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        with writing():
            write_modes(out, times, [f"Device: {where}. Date: {date}. By towtank kernels tune."])
    if json:
        emit_json({"modes": [asdict(each) for each in choices(times)]})
        return
    emit(f"Modes of matrix multiplies on {where}\n")
    emit(_text(choices(times)))


def _problems(kernel: str, shape: str | None, device: str) -> "list[Problem]":
    from towtank.kernels.modes import layer_problems
    from towtank.kernels.sweeps import LARGE

    if shape is None:
        layers = layer_problems() if device == "cpu" else layer_problems(LARGE.hidden, LARGE.layer_rows)
        return [each for each in layers if kernel in ("matmul", each[0])]
    return [(kernel, sizes_from(kernel, shape))]


def sizes_from(kernel: str, shape: str) -> dict[str, int]:
    """Sizes of a kernel from a text such as 4096x4096x1024.

    Raises:
        InputError: it is none of this kernel, or no inputs have such sizes.
    """
    from towtank.cli.failure import InputError
    from towtank.kernels.registry import kernels

    names, parts = kernels()[kernel].dimensions, shape.lower().split("x")
    if len(parts) != len(names) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(
            f"--shape of {kernel} is {' x '.join(names)}: {len(names)} whole numbers above 0 with x between them, "
            f"such as {'x'.join(['4096'] * len(names))}; got {shape!r}"
        )
    sizes = dict(zip(names, map(int, parts), strict=True))
    if fault := kernels()[kernel].fault({**kernels()[kernel].options, **sizes}):
        raise InputError(f"--shape {shape} of {kernel} ({' x '.join(names)}): {fault}")
    return sizes


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
