"""A run of nccl-tests beside the prediction of the same groups on a machine."""

import re
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING

from towtank.cli.failure import InputError, Inputs
from towtank.cli.network_job import Job, collective_of, load, setting_of

if TYPE_CHECKING:
    from towtank.hardware_profiles.records import Machine
    from towtank.simulator.network.benchmark import Setting
    from towtank.simulator.network.libraries import Collective
    from towtank.simulator.network.routes import IntArray
    from towtank.validation.nccl_tests import Benchmark
    from towtank.validation.network_fit import Compared, Fit

_PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class Imported:
    """Rows of a file beside predictions, and a fit to them if one was asked for."""

    file: Path
    benchmark: "Benchmark"
    collective: "Collective"
    in_place: bool
    setting: "Setting"
    rows: "tuple[Compared, ...]"
    fitted: "Fit | None"


def run(file: Path, job: Job, collective: str | None, in_place: bool, calibrate: Path | None) -> Imported:
    """Read and predict; InputError with all faults at once."""
    from towtank.validation.network_fit import LEAST_ROWS, compare, fit

    inputs = Inputs()
    benchmark = inputs.take(lambda: _read(file))
    nodes = None if benchmark is None else inputs.take(lambda: _nodes(benchmark, job))
    sized = replaced(job, nodes=nodes or 1)  # 1: what else is wrong is told too
    loaded = load(sized, inputs)
    kind = inputs.take(lambda: _collective(benchmark, collective))
    members = None
    if benchmark is not None and nodes is not None and loaded is not None:
        members = inputs.take(lambda: _members(benchmark, loaded.machine, loaded.nodes))
    if calibrate is not None and loaded is not None:
        inputs.take(lambda: _check_profile(calibrate, loaded.machine))
    inputs.check()
    assert benchmark is not None and loaded is not None and kind is not None and members is not None
    setting = setting_of(sized, loaded, members)
    times = [(row.num_bytes, time_s) for row in benchmark.rows if (time_s := row.time_s(in_place))]
    if not times:
        other = "leave --in-place out" if in_place else "try --in-place"
        raise InputError(f"{file}: no row has a time {columns(in_place)}; {other}")
    if calibrate is not None and len(times) < LEAST_ROWS:
        raise InputError(f"--calibrate needs {LEAST_ROWS} rows or more, but {file} has {len(times)}")
    fitted = fit(setting, kind, times) if calibrate is not None else None
    return Imported(file, benchmark, kind, in_place, setting, compare(setting, kind, times), fitted)


def columns(in_place: bool) -> str:
    """Which columns of the file are compared."""
    return "in-place" if in_place else "out-of-place"


def _read(file: Path) -> "Benchmark":
    from towtank.validation.nccl_tests import BenchmarkFileError, read_benchmark

    try:
        return read_benchmark(file)
    except BenchmarkFileError as error:
        raise InputError(str(error)) from error


def _nodes(benchmark: "Benchmark", job: Job) -> int:
    """Nodes of the run: those of its ranks, else those that the user says."""
    if benchmark.nodes is None and job.nodes is None:
        raise InputError("the file does not list its ranks; say with --nodes how many whole nodes were used")
    if None not in (benchmark.nodes, job.nodes) and benchmark.nodes != job.nodes:
        raise InputError(
            f"--nodes {job.nodes}, but the ranks of the file lie on {benchmark.nodes}; leave it out"
        )
    nodes = benchmark.nodes or job.nodes
    assert nodes is not None
    return nodes


def _collective(benchmark: "Benchmark | None", word: str | None) -> "Collective":
    """The collective of the file, else the one that the user says."""
    found = None if benchmark is None else benchmark.collective
    if word is None:
        if found is None and benchmark is not None:
            raise InputError("the file does not say which collective was run; give --collective")
        return found or "all_reduce"  # a file with faults: they are told
    kind = collective_of(word)
    if found is not None and found != kind:
        raise InputError(f"--collective {word}, but the file is a run of {found}; leave it out")
    return kind


def _members(benchmark: "Benchmark", machine: "Machine", nodes: int) -> "IntArray":
    """Devices of the one group of the run: as many on each node."""
    import numpy as np

    from towtank.cli.text import plural

    devices = machine.node.devices
    size = benchmark.size or nodes * devices
    if size < 2:
        raise InputError("the run has one rank; a collective needs two or more")
    if size % nodes or size // nodes > devices:
        raise InputError(
            f"the run has {size} ranks on {plural(nodes, 'node')}, but nodes of {machine.name} have "
            f"{devices} devices; name the machine that it was run on"
        )
    inside = np.arange(size // nodes, dtype=np.int64)
    return (np.arange(nodes, dtype=np.int64)[:, None] * devices + inside).reshape(1, size)


def _check_profile(path: Path, machine: "Machine") -> None:
    """Whether `path` can be the profile of a machine."""
    if path.suffix != ".yaml" or not _PROFILE_NAME.fullmatch(path.stem):
        raise InputError(
            f"--calibrate {path}: a profile is NAME.yaml with a name of lower-case letters, digits, dots and dashes"
        )
    if machine.node.fabric == "hierarchy" and path.stem != machine.name:
        raise InputError(
            f"--calibrate {path}: the links inside a node of {machine.name} are known under its name only; write "
            f"{machine.name}.yaml"
        )


def profile_text(imported: Imported, path: Path) -> str:
    """The profile that the fit leads to."""
    from towtank.cli.text import percent, plural
    from towtank.validation.network_fit import median_error, profile

    assert imported.fitted is not None
    group = imported.setting.together
    error = percent(median_error(imported.fitted.rows))
    source = (
        f"{imported.collective} of {group.size} devices on {plural(group.nodes, 'node')}, {len(imported.rows)} "
        f"{columns(imported.in_place)} rows of {imported.file.name}; median error {error}"
    )
    return profile(imported.fitted, imported.setting, path.stem, source)
