"""`towtank network`: one collective on a machine, sweeps over sizes, and runs of nccl-tests beside predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import InputError, Inputs
from towtank.cli.options import Json, Profiles
from towtank.cli.surroundings import Background, Placement

if TYPE_CHECKING:
    from towtank.cli.network_job import Job

EXAMPLES = """\
\b
Examples:
  towtank network --machine frontier --nodes 1024 --collective all_reduce --bytes 64MiB
  towtank network --machine frontier --nodes 1024 --collective all_gather --bytes 1GiB \\
      --group data=1024,tensor_x=8 --placement scattered:0.6 --background 0.3
  towtank network --machine perlmutter --nodes 256 --taper 0.5 --collective reduce_scatter \\
      --sweep 1KiB..1GiB --plot curve.svg
  towtank network --matrix links.csv --collective all_reduce --bytes 1GiB --map
  towtank network --islands islands.yaml --collective all_reduce --bytes 1GiB --group data=4,pipeline=2
  towtank network import all_reduce.txt --machine dgx-h100

\b
Sizes are those of the whole array, bandwidths those that nccl-tests prints. All groups of the job run
at once; the contention factor compares with one of them alone. Protocols (LL, LL128), reduction in the
switch (NVLS) and pipes that fill are counted here; a step of `towtank predict` takes the fastest of the
library's algorithms by latency and bandwidth, without these three.

\b
links.csv has the columns from, to, gb_per_s and, if measured, latency_us. islands.yaml:
  islands:
    - {name: a, nodes: 4, technology: InfiniBand, bandwidth: 48 GB/s, latency: 5 us}
    - {name: b, nodes: 4, technology: RoCE, bandwidth: 24 GB/s, latency: 8 us}
  between: {technology: Ethernet, bandwidth: 3 GB/s, latency: 30 us, total: 10 GB/s}
"""
IMPORT_EXAMPLES = """\
\b
Examples:
  towtank network import all_reduce.txt --machine dgx-h100
  towtank network import all_reduce.txt --machine dgx-h100 --calibrate profiles/machines/ours.yaml
  towtank predict --machine ours:nodes=16 --profiles profiles ...

\b
The profile that --calibrate writes comes from the machine and has the fitted figures; it is used under
its own name from the folder machines of --profiles DIR.
"""

app = typer.Typer(
    invoke_without_command=True,
    help="Predict the time of one collective, or compare with a run of nccl-tests.",
)


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


_Machine = Annotated[str | None, _option("--machine", "X", "Machine such as frontier or dgx-h100:nodes=64.")]
_Nodes = Annotated[int | None, _option("--nodes", "N", "Nodes of the job; default: the whole machine.")]
_Collective = Annotated[
    str | None,
    _option(
        "--collective",
        "C",
        "all_reduce, all_gather or reduce_scatter; on --matrix and --islands all_to_all too.",
    ),
]
_Bytes = Annotated[str | None, _option("--bytes", "SIZE", "Size of the whole array, such as 64MiB.")]
_Sweep = Annotated[str | None, _option("--sweep", "FROM..TO", "A table over sizes, such as 1KiB..1GiB.")]
_Group = Annotated[
    str | None,
    _option(
        "--group",
        "SIZE[@STRIDE]|DIM=N,...",
        "Groups of SIZE devices, STRIDE apart, or those of the first dimension of a plan, such as "
        "data=64,tensor_x=8. Default: one group of all devices.",
    ),
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of what is drawn.")]
_Taper = Annotated[
    float | None,
    _option("--taper", "X", "Bandwidth out of a network group over that of its nodes, where it is unknown."),
]
_Library = Annotated[
    str | None,
    _option("--library", "L", "nccl, nccl-efa, rccl, oneccl, cray-mpich or pccl; default: the vendor's."),
]
_Detours = Annotated[
    float | None,
    _option(
        "--detours", "X", "Share of the traffic that is routed on detours; default: as adaptive routing does."
    ),
]
_Matrix = Annotated[Path | None, _option("--matrix", "FILE", "Measured links in place of a machine: a CSV.")]
_Islands = Annotated[
    Path | None,
    _option("--islands", "FILE", "Islands of nodes with networks of their own in place of a machine: YAML."),
]
_Map = Annotated[bool, typer.Option("--map", help="With these: search a better order of the ranks.")]
_Plot = Annotated[Path | None, _option("--plot", "FILE", "Write the curves as SVG.")]


@app.callback(epilog=EXAMPLES)
def network(
    context: typer.Context,
    machine: _Machine = None,
    nodes: _Nodes = None,
    collective: _Collective = None,
    num_bytes: _Bytes = None,
    sweep: _Sweep = None,
    group: _Group = None,
    placement: Placement = "contiguous",
    seed: _Seed = 0,
    taper: _Taper = None,
    library: _Library = None,
    background: Background = None,
    detours: _Detours = None,
    plot: _Plot = None,
    matrix: _Matrix = None,
    islands: _Islands = None,
    map_ranks: _Map = False,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Predict the time of one collective on a machine: algorithm, bandwidths, contention, and what limits."""
    if context.invoked_subcommand is not None:
        _nothing_before(context)
        return
    if matrix is not None or islands is not None or map_ranks:
        from towtank.cli import network_links

        lost = tuple(option for option in _given(context) if option not in network_links.OPTIONS)
        asked = network_links.Asked(matrix, islands, collective, num_bytes, group, seed, map_ranks, lost)
        network_links.run(asked, json)
        return
    from towtank.cli.network_job import Job

    folders = tuple(profiles or ())
    job = Job(machine, nodes, group, placement, seed, taper, library, folders, background, detours)
    _predict(job, collective, (num_bytes, sweep), plot, json)


def _given(context: typer.Context) -> list[str]:
    """Options that are not at their default."""
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if (value := context.params.get(parameter.name or "")) and value != parameter.default
    ]


def _nothing_before(context: typer.Context) -> None:
    """Options before `import` would be lost without a word."""
    given = _given(context)
    if given:
        raise InputError(
            f"{', '.join(given)} before import concerns one collective; write `towtank network import FILE` and the "
            f"options after it"
        )


def _predict(
    job: "Job", collective: str | None, asked: tuple[str | None, str | None], plot: Path | None, json: bool
) -> None:
    """Answer for one size or a sweep, and print it."""
    from towtank.cli import network_job, network_text
    from towtank.cli.text import emit, emit_json

    inputs = Inputs()
    loaded = network_job.load(job, inputs)
    kind = inputs.take(lambda: network_job.collective_of(collective))
    sizes = inputs.take(lambda: _sizes(*asked))
    members = None
    if loaded is not None:
        devices = loaded.nodes * loaded.machine.node.devices
        members = inputs.take(lambda: network_job.members_of(job.group, devices))
    inputs.take(lambda: _plottable(plot, asked[1] is not None))
    inputs.check()
    assert loaded is not None and kind is not None and sizes is not None and members is not None
    setting = network_job.setting_of(job, loaded, members)
    answers = [setting.answer(kind, size) for size in sizes]
    if plot is not None:
        _write("--plot", plot, network_text.sweep_plot(setting, answers))
    if json:
        emit_json(network_text.document(setting, answers, loaded.placed))
        return
    if asked[1] is not None:
        emit(network_text.sweep_text(setting, answers, loaded.placed))
    else:
        emit(network_text.answer_text(setting, answers[0], loaded.placed))
    if plot is not None:
        emit(f"\nplot: {plot}")


def _sizes(num_bytes: str | None, sweep: str | None) -> list[float]:
    from towtank.cli.network_job import size_of, sweep_of

    if num_bytes is not None and sweep is not None:
        raise InputError("--bytes and --sweep both say how much is sent; keep one of the two")
    if sweep is not None:
        return sweep_of(sweep)
    if num_bytes is None:
        raise InputError("no size is given; give --bytes such as 64MiB, or --sweep such as 1KiB..1GiB")
    return [size_of("--bytes", num_bytes)]


def _plottable(plot: Path | None, sweep: bool) -> None:
    if plot is not None and not sweep:
        raise InputError(
            "--plot draws curves over sizes; give --sweep such as 1KiB..1GiB in place of --bytes"
        )


def _write(option: str, path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written: {error.strerror or error}") from error


_File = Annotated[Path, typer.Argument(metavar="FILE", help="Text that nccl-tests or rccl-tests printed.")]
_InPlace = Annotated[bool, typer.Option("--in-place", help="Compare with the in-place columns.")]
_Calibrate = Annotated[
    Path | None, _option("--calibrate", "FILE", "Fit latency and bandwidth; write a machine profile.")
]
_FileCollective = Annotated[
    str | None, _option("--collective", "C", "Collective that was run, where the file does not say.")
]
_FileNodes = Annotated[
    int | None, _option("--nodes", "N", "Nodes that were used, where the file does not list its ranks.")
]


@app.command("import", short_help="Compare with a run of nccl-tests, or fit to it.", epilog=IMPORT_EXAMPLES)
def import_(
    file: _File,
    machine: _Machine = None,
    collective: _FileCollective = None,
    nodes: _FileNodes = None,
    placement: Placement = "contiguous",
    seed: _Seed = 0,
    taper: _Taper = None,
    library: _Library = None,
    in_place: _InPlace = False,
    calibrate: _Calibrate = None,
    plot: _Plot = None,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Compare a run of nccl-tests or rccl-tests with the prediction, row by row, and calibrate a machine by it."""
    from towtank.cli import network_import, network_text
    from towtank.cli.network_job import Job
    from towtank.cli.text import emit, emit_json

    job = Job(machine, nodes, None, placement, seed, taper, library, tuple(profiles or ()))
    imported = network_import.run(file, job, collective, in_place, calibrate)
    if calibrate is not None:
        assert imported.fitted is not None  # else run has raised
        _write("--calibrate", calibrate, network_import.profile_text(imported, calibrate))
    if plot is not None:
        _write("--plot", plot, network_text.comparison_plot(imported))
    if json:
        emit_json(network_text.comparison_document(imported))
        return
    emit(network_text.comparison_text(imported))
    if calibrate is not None:
        emit(f"\n{network_text.use_of(calibrate)}")
    if plot is not None:
        emit(f"\nplot: {plot}")
