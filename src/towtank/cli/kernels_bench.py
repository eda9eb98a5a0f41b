"""`towtank kernels bench` and `profile`: measure this device, and turn the table into curves for predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from towtank.kernels.sweeps import Point

BENCH_EXAMPLES = """\
\b
Examples:
  towtank kernels bench --quick --out measurements.csv
  towtank kernels bench --device cuda --backend triton --out triton.csv
"""
PROFILE_EXAMPLES = """\
\b
Examples:
  towtank kernels profile measurements.csv --device h200-141gb --out mine
  towtank predict --profiles mine --machine dgx-h200:nodes=2 --plan plan.yaml
"""

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

    Every variant is validated before it is measured. Times are medians after a warm-up. Each row is written at once:
    a sweep that was broken off goes on where it was when the same command is run again.
    """
    from towtank.cli.kernels_choice import Choice, check_writable
    from towtank.kernels.sweeps import points, sweep_for

    choice = Choice.of(None, backend, None, device)
    check_writable(out)
    offered = {kernel.name for kernel, _ in choice.pairs}
    wanted = [
        each
        for each in points(sweep_for(choice.device, quick))
        if each.kind in ("copy", "launch") or each.kernel in offered
    ]
    _sweep(out, wanted, choice.device, backend)


def _sweep(out: Path, wanted: "list[Point]", device: str, backend: str) -> None:
    """Measure what the table does not hold yet."""
    from towtank.cli.kernels_choice import progress, writing
    from towtank.cli.text import emit, paragraph, plural
    from towtank.kernels.bench import measure
    from towtank.kernels.device import device_name
    from towtank.kernels.tables import append, left

    with writing():
        missing = left(out, wanted, device, backend)
    known, done, reasons = len(wanted) - len(missing), 0, dict[str, int]()

    def skip(point: "Point", why: str) -> None:
        reasons[why] = reasons.get(why, 0) + 1

    rows = measure(missing, device, backend=backend, progress=progress, skipped=skip)
    try:
        for row in rows:
            with writing():
                append(out, row)
            done += 1
    except KeyboardInterrupt:
        emit(
            f"\nBroken off: {known + done} of {len(wanted)} measurements are in {out}; run it again to go on"
        )
        raise typer.Exit(130) from None
    earlier = f", {known} of them by an earlier run" if known else ""
    emit(f"{plural(known + done, 'measurement')} of {device_name(device)} in {out}{earlier}")
    for why, number in reasons.items():
        emit(paragraph(f"not measured ({plural(number, 'point')}): {why}", indent=0))


def profile(table: _Measurements, device: _Profile, out: _Folder) -> None:
    """Write a folder of private profiles in which a device has the curves of a table of measurements.

    Whatever the table does not hold (experts, collectives) is taken over from the device's profile.
    """
    from towtank.cli.text import emit
    from towtank.hardware_profiles.captured import write_profile

    emit(write_profile(table, device, out))
