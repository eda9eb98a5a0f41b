"""`towtank kernels bench` and `profile`: measure this device, and turn the table into curves for predictions."""

from pathlib import Path
from typing import Annotated

import typer

BENCH_EXAMPLES = "Example: `towtank kernels bench --quick --out measurements.csv`."
PROFILE_EXAMPLES = (
    "Example: `towtank kernels profile measurements.csv --device h200-141gb --out mine`, then `towtank predict "
    "--profiles mine ...` on any machine with that device."
)

_Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Table to write (CSV).")]
_Measurements = Annotated[
    Path, typer.Argument(metavar="FILE", help="Table that `towtank kernels bench` wrote.")
]
_Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of private profiles to write.")]
_Profile = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Device profile that the table was measured on; see `towtank devices`.",
    ),
]


def bench(
    out: _Out,
    quick: Annotated[bool, typer.Option("--quick", help="A coarse grid: a minute or so.")] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="TYPE", help="cpu or cuda; default: the GPU where there is one."),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="Backend to measure.")
    ] = "library",
) -> None:
    """Measure matrix multiplies, attention, element-wise kernels, copies and launches of this device.

    Every variant is validated before it is measured. Times are medians after a warm-up.
    """
    from towtank.cli.failure import InputError
    from towtank.cli.kernels_choice import Choice, progress
    from towtank.cli.text import emit, plural
    from towtank.kernels.bench import measure, write
    from towtank.kernels.sweeps import points, sweep_for

    choice = Choice.of(None, backend, None, device)
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    offered = {kernel.name for kernel, _ in choice.pairs}
    wanted = [
        each
        for each in points(sweep_for(choice.device, quick))
        if each.kind in ("copy", "launch") or each.kernel in offered
    ]
    rows = measure(wanted, choice.device, backend=backend, progress=progress)
    write(out, rows)
    emit(f"{plural(len(rows), 'measurement')} of {rows[0].device} written to {out}")


def profile(table: _Measurements, device: _Profile, out: _Folder) -> None:
    """Write a folder of private profiles in which a device has the curves of a table of measurements.

    Whatever the table does not hold (experts, collectives) is taken over from the device's profile.
    """
    from towtank.cli.text import emit
    from towtank.hardware_profiles.captured import write_profile

    emit(write_profile(table, device, out))
