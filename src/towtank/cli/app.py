"""The commands of `towtank` and how they hang together."""

from collections.abc import Callable
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


_COMMANDS: tuple[tuple[str, Callable[..., None], str, str], ...] = (
    ("predict", predict.predict, predict.EXAMPLES, "Predict step time, memory and throughput of a job."),
    ("tune", tune.tune, tune.EXAMPLES, "Search all legal plans of a model on a machine."),
    ("why", why.why, why.EXAMPLES, "Say why a plan is not the best one."),
    ("explain", explain.explain, explain.EXAMPLES, "Name what limits a step, and what to do next."),
    ("report", report.report, report.EXAMPLES, "Write the report of a step as one page."),
    ("ui", ui.ui, ui.EXAMPLES, "Serve a page on this computer to predict and tune."),
    ("compare", compare.compare, compare.EXAMPLES, "Show two predicted steps side by side."),
    ("run", run.run, run.EXAMPLES, "Train for real under a plan, and measure it."),
    ("diff", diff.diff, diff.EXAMPLES, "Lay a measured step beside the predicted one."),
    ("scale", scale.scale, scale.EXAMPLES, "Search the best plan at each number of devices."),
    ("capacity", capacity.capacity, capacity.EXAMPLES, "Plan a whole run: days, node-hours, energy, money."),
    ("export", export.export, export.EXAMPLES, "Write a plan for Megatron-LM, torchtitan and others."),
    ("import", import_plan.import_plan, import_plan.EXAMPLES, "Read a plan of other software, or a PyTorch trace."),
    ("calibrate", calibrate.calibrate, calibrate.EXAMPLES, "Measure this machine, so that it can be predicted."),
    ("memorize", memorize.memorize, memorize.EXAMPLES, "Train a small model and see what it learns by heart."),
    ("demo", demo.demo, demo.EXAMPLES, "Predict four published runs and show the errors."),
    ("validate", validate.validate, validate.EXAMPLES, "Predict all published runs and show the errors."),
    ("verify", verify.verify, verify.EXAMPLES, "Search plans, run the best ones, and rank them anew."),
)  # fmt: skip
"""Name, function, what stands below its options, and its line in `towtank --help`."""

for _name, _function, _examples, _line in _COMMANDS:
    app.command(_name, short_help=_line, epilog=_examples)(_function)
app.add_typer(network.app, name="network", short_help="Predict the time of one collective.")
app.add_typer(machines.app, name="machines", short_help="List the machines, or show one with its sources.")
app.add_typer(devices.app, name="devices", short_help="List the devices, or show one with its sources.")
app.add_typer(kernels.app, name="kernels", short_help="List, validate, tune and measure kernels here.")
app.add_typer(models.app, name="models")
app.add_typer(stacks.app, name="stacks")
