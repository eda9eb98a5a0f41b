"""`towtank kernels compare`: a backend of ours against the library, measured in turn."""

from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.options import Json

if TYPE_CHECKING:
    from towtank.cli.kernels_choice import Choice
    from towtank.kernels.against import Comparison, Problem

EXAMPLES = """\
\b
Examples:
  towtank kernels compare
  towtank kernels tune --kernel matmul --shape 1000x1000x1000
  towtank kernels compare --kernel matmul --shape 1000x1000x1000 --json
"""


_Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel", metavar="NAME", help="This kernel only; default: usual ones.", show_default=False
    ),
]
_Shape = Annotated[
    str | None,
    typer.Option("--shape", metavar="MxNxK", help="Its sizes; default: usual ones.", show_default=False),
]
_Dtype = Annotated[
    str | None,
    typer.Option("--dtype", metavar="TYPE", help="Precision: fp32, fp16, bf16 or fp8.", show_default=False),
]
_Device = Annotated[
    str | None,
    typer.Option("--device", metavar="TYPE", help="cpu or cuda; default: the GPU where there is one."),
]
_Backend = Annotated[
    str | None,
    typer.Option(
        "--backend", metavar="NAME", help="Default: c on a CPU, triton on a GPU.", show_default=False
    ),
]


def compare(
    kernel: _Kernel = None,
    shape: _Shape = None,
    dtype: _Dtype = None,
    device: _Device = None,
    backend: _Backend = None,
    json: Json = False,
) -> None:
    """Compare kernels with the tiles that were tuned for them with the library's, all measured in turn."""
    from dataclasses import asdict

    from towtank.cli.kernels_choice import Choice, checked_device, progress
    from towtank.cli.kernels_tiles import backend_with_tiles
    from towtank.cli.text import emit, emit_json
    from towtank.kernels.against import compare as measured

    by = backend or backend_with_tiles(checked_device(device))
    choice = Choice.of(kernel, by, dtype, device)
    problems = _problems(choice, kernel, shape, dtype)
    found = list(measured(problems, by, choice.device, progress=progress))
    if json:
        emit_json({"comparisons": [{**asdict(each), "speed": each.speed} for each in found]})
    else:
        emit(_text(found))


def _problems(choice: "Choice", kernel: str | None, shape: str | None, dtype: str | None) -> "list[Problem]":
    from towtank.cli.failure import InputError
    from towtank.cli.kernels_choice import PRECISIONS
    from towtank.cli.kernels_tune import sizes_from
    from towtank.kernels.against import Problem, usual_problems

    wanted = PRECISIONS.get(dtype, dtype) if dtype is not None else None
    if shape is None:
        usual = usual_problems(choice.device)
        offered = {
            (one.name, each) for one, by in choice.pairs for each in by.dtypes if wanted in (None, each)
        }
        found = [
            each for each in usual if kernel in (None, each.kernel) and (each.kernel, each.dtype) in offered
        ]
        if not found:
            raise InputError("there are no usual sizes of this; give a --shape")
        return found
    if kernel is None:
        raise InputError("--shape is that of one kernel: name it with --kernel")
    ((_, by),) = choice.pairs
    common = "float32" if choice.device == "cpu" else "bfloat16"
    kind = wanted or (common if common in by.dtypes else by.dtypes[0])
    return [Problem(kernel, kind, sizes_from(kernel, shape))]


def _text(found: "list[Comparison]") -> str:
    from statistics import median

    from towtank.cli.kernels_choice import precision
    from towtank.cli.text import percent, table

    rows = [
        (
            each.kernel, precision(each.dtype), each.sizes, f"{each.seconds * 1e3:.3f}",
            f"{each.flop / each.seconds / 1e9:,.0f}", f"{each.library_seconds * 1e3:.3f}", each.library,
            percent(each.speed),
        )
        for each in found
    ]  # fmt: skip
    heads = ("kernel", "dtype", "sizes", "ms", "GFLOP/s", "library ms", "by", "speed")
    speeds = [each.speed for each in found]
    summary = f"Speed of {found[0].backend} over that of the library: median {percent(median(speeds))}, "
    return "\n".join([table(rows, heads, right=(3, 4, 5, 7)), "", f"{summary}least {percent(min(speeds))}."])
