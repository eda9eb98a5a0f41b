"""The commands of `towtank` and how they hang together."""

from typing import Annotated

import typer

from towtank import __version__
from towtank.cli import (
    calibrate,
    capacity,
    compare,
    demo,
    devices,
    diff,
    explain,
    export,
    import_plan,
    kernels,
    machines,
    memorize,
    models,
    network,
    predict,
    report,
    run,
    scale,
    stacks,
    tune,
    ui,
    validate,
    verify,
    why,
)
from towtank.cli.failure import Commands

app = typer.Typer(
    name="towtank",
    cls=Commands,
    help="Predict the step time, memory and cost of large-scale LLM training before spending a node-hour.",
    epilog="Start with `towtank demo`, then `towtank predict --help`. Exit codes: 0 done, also for a plan that "
    "does not fit; 2 something that was given is wrong; 130 Ctrl-C; 1 a fault of towtank. Some commands have more, "
    "which their --help names.",
    rich_markup_mode=None,  # rich takes longer to import than the rest of --help
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"towtank {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def towtank(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Predict the step time, memory and cost of large-scale LLM training before spending a node-hour."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("predict", epilog=predict.EXAMPLES)(predict.predict)
app.command("tune", epilog=tune.EXAMPLES)(tune.tune)
app.command("why", epilog=why.EXAMPLES)(why.why)
app.command("explain", epilog=explain.EXAMPLES)(explain.explain)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("ui", epilog=ui.EXAMPLES)(ui.ui)
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("run", epilog=run.EXAMPLES)(run.run)
app.command("diff", epilog=diff.EXAMPLES)(diff.diff)
app.command("scale", epilog=scale.EXAMPLES)(scale.scale)
app.command("capacity", epilog=capacity.EXAMPLES)(capacity.capacity)
app.command("export", epilog=export.EXAMPLES)(export.export)
app.command("import", epilog=import_plan.EXAMPLES)(import_plan.import_plan)
app.command("calibrate", epilog=calibrate.EXAMPLES)(calibrate.calibrate)
app.command("memorize", epilog=memorize.EXAMPLES)(memorize.memorize)
app.command("demo", epilog=demo.EXAMPLES)(demo.demo)
app.command("validate", epilog=validate.EXAMPLES)(validate.validate)
app.command("verify", epilog=verify.EXAMPLES)(verify.verify)
app.add_typer(network.app, name="network")
app.add_typer(machines.app, name="machines")
app.add_typer(devices.app, name="devices")
app.add_typer(kernels.app, name="kernels")
app.add_typer(models.app, name="models")
app.add_typer(stacks.app, name="stacks")
