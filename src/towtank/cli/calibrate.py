"""`towtank calibrate`: measure this machine, so that predictions for it are right."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towtank.cli.options import Json

if TYPE_CHECKING:
    from towtank.executor.calibrate.points import Mode
    from towtank.hardware_profiles.calibrated.records import Calibration

EXAMPLES = """\
\b
Examples:
  towtank calibrate
  towtank calibrate --full --out lab
  towtank calibrate --from run.json other.json

\b
The last one fits to real steps (towtank run --record), on top of the calibration that is there. Then predict with
--machine local, or --machine lab.
"""


def calibrate(
    records: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RECORD", help="With --from: records of runs.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute and a half (the default).")] = False,
    full: Annotated[bool, typer.Option("--full", help="More sizes and longer: ten minutes or so.")] = False,
    from_steps: Annotated[
        bool, typer.Option("--from", help="Fit to records of real steps, beside the sweeps that are there.")
    ] = False,
    out: Annotated[
        str,
        typer.Option(
            "--out", metavar="NAME", help="Name of the calibration, and of the machine in --machine."
        ),
    ] = "local",
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="N",
            help="Most processes at work at once; default: 4 on a CPU, else every GPU.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure kernels, collectives and steps on this machine and fit what predictions stand on.

    Everything is measured with 1, 2, 4 ... processes at work at once, since they share cores, caches and memory. The
    file is calibrations/NAME.yaml in the working folder (or in the folder of TOWTANK_CALIBRATIONS), where --machine
    NAME finds it. An interrupted calibration goes on where it stopped. Leave the machine alone meanwhile.
    """
    from towtank.cli.calibrate_text import print_calibration

    _check(records or [], quick=quick, full=full, from_steps=from_steps, processes=processes)
    if from_steps:
        from towtank.executor.calibrate.refit import refit

        calibration, path = refit(out, records or [])
    else:
        calibration, path = _measured(out, "full" if full else "quick", processes)
    print_calibration(calibration, path, json)


def _check(records: list[Path], *, quick: bool, full: bool, from_steps: bool, processes: int | None) -> None:
    """Refuse options that contradict each other, all at once."""
    from towtank.cli.failure import Inputs

    inputs = Inputs()
    if quick and full:
        inputs.faults.append("--quick and --full: keep one of the two")
    if from_steps and (quick or full or processes is not None):
        inputs.faults.append(
            "--from fits to steps that were measured; leave --quick, --full and --processes out"
        )
    if from_steps and not records:
        inputs.faults.append("--from needs at least one record: towtank calibrate --from run.json")
    if records and not from_steps:
        inputs.faults.append(f"{records[0]}: write --from before the records of runs")
    inputs.check()


def _measured(name: str, mode: "Mode", processes: int | None) -> "tuple[Calibration, Path]":
    """Measure this machine, with progress."""
    from towtank.cli.progress import progress_bar
    from towtank.executor.calibrate.build import calibrate as measure
    from towtank.executor.calibrate.build import request_for
    from towtank.hardware_profiles.calibrated.here import here

    request = request_for(name, mode, processes, here())
    return measure(request, lambda done, total: progress_bar("measurements", done=done, total=total))
