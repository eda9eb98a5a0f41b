"""`towtank devices`: which devices are known, and every figure of one with its source."""

from typing import Annotated

import typer

from towtank.cli.options import Json, Profiles

EXAMPLES = """\
\b
Examples:
  towtank devices
  towtank devices show h100-80gb-sxm
  towtank devices show h100-80gb-sxm --json
"""

app = typer.Typer(
    invoke_without_command=True, help="List the devices, or show one with the source of every figure."
)


@app.callback(epilog=EXAMPLES)
def devices(context: typer.Context, json: Json = False, profiles: Profiles = None) -> None:
    """List the devices, or show one with the source of every figure."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from towtank.cli.text import emit, emit_json, table
    from towtank.hardware_profiles.catalogue import device_rows

    rows = device_rows(tuple(profiles or ()))
    if json:
        emit_json({"devices": [asdict(row) for row in rows]})
        return
    cells = [
        (row.name, row.unit, row.peak_bf16, row.memory, row.memory_bandwidth, row.description) for row in rows
    ]
    heads = ("device", "counts", "bf16 peak, dense", "memory", "bandwidth", "what it is")
    emit(table(cells, heads, right=(2, 3, 4)))


@app.command("show", epilog=EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Device, such as a100-80gb-sxm.")],
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Show every figure of a device with its source."""
    from towtank.cli.figures import print_figures
    from towtank.hardware_profiles.catalogue import device_figures

    print_figures(device_figures(name, tuple(profiles or ())), json)
