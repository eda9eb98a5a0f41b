"""`towtank machines`: which machines are known, and every figure of one with its source."""

from typing import Annotated

import typer

from towtank.cli.options import Json, Profiles

EXAMPLES = """\
\b
Examples:
  towtank machines
  towtank machines show frontier
  towtank machines show frontier --json
"""

app = typer.Typer(
    invoke_without_command=True, help="List the machines, or show one with the source of every figure."
)


@app.callback(epilog=EXAMPLES)
def machines(context: typer.Context, json: Json = False, profiles: Profiles = None) -> None:
    """List the machines, or show one with the source of every figure."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from towtank.cli.text import emit, emit_json, table
    from towtank.hardware_profiles.catalogue import machine_rows

    rows = machine_rows(tuple(profiles or ()))
    if json:
        emit_json({"machines": [asdict(row) for row in rows]})
        return
    cells = [
        (
            row.name,
            "any" if row.num_nodes is None else f"{row.num_nodes:,}",
            str(row.devices_per_node),
            row.device,
            row.network.split(" (")[0],
            ", ".join(row.aliases),
        )
        for row in rows
    ]
    emit("Machines; `a node` is the number of devices of one node.\n")
    emit(table(cells, ("machine", "nodes", "a node", "device", "network", "also"), right=(1, 2)))
    emit("\nAny nodes: say how many, as in dgx-h100:nodes=64. Figures, sources: towtank machines show NAME")


@app.command("show", epilog=EXAMPLES)
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Machine, such as selene or dgx-h100:nodes=64.")
    ],
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Show every figure of a machine and of its device, with its source."""
    from towtank.cli.figures import print_figures
    from towtank.hardware_profiles.catalogue import machine_figures

    print_figures(machine_figures(name, tuple(profiles or ())), json)
