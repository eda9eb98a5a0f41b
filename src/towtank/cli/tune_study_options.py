"""Options of `towtank tune` that speak of methods, measures, studies and their workers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

METHODS = ("exact", "optuna", "axonn")


def _option(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False, **more)


def _defaulted(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, **more)


@dataclass(frozen=True)
class StudyWish:
    """Options of `towtank tune` that speak of methods, measures, studies and their workers, as given."""

    method: Annotated[
        str,
        _defaulted(
            "--method",
            "exact|optuna|axonn",
            "exact: proven among the enumerated plans; optuna: a study around their best, which also changes splits "
            "of layers, recompute intervals, buckets of gradients, switches and rank orders; axonn: AxoNN's own "
            "ranking of grids beside the simulator's choice among them.",
        ),
    ] = "exact"
    measure: Annotated[
        list[str] | None,
        _option(
            "--measure",
            "NAME",
            "What counts: step_time, throughput, headroom, energy, cost, devices. Repeated: the Pareto front, exact "
            "under --method exact.",
        ),
    ] = None
    or_devices: Annotated[
        list[int] | None,
        _option("--or-devices", "N", "Another number of devices that a plan may occupy. Repeatable.", min=1),
    ] = None
    price: Annotated[
        float | None,
        _option(
            "--price-per-device-hour", "USD", "Price for the measure cost; default: the machine's.", min=0.0
        ),
    ] = None
    trials: Annotated[
        int,
        _defaulted(
            "--trials", "N", "Plans that a study tries in all, those of other workers counted.", min=1
        ),
    ] = 200
    sampler: Annotated[
        str,
        _defaulted("--sampler", "NAME", "Sampler of a study, such as tpe, random, nsgaii, qmc, brute-force."),
    ] = "tpe"
    seed: Annotated[int, _defaulted("--seed", "N", "Seed of the sampler.", min=0)] = 0
    study: Annotated[
        str, _defaulted("--study", "NAME", "Name of the study; the same name goes on with it.")
    ] = "tune"
    storage: Annotated[
        str | None,
        _option(
            "--storage",
            "WHERE",
            "Where a study is kept: memory, a journal file (default: STUDY.journal here), sqlite:///FILE, or "
            "postgresql+psycopg://USER@HOST/DATABASE. Also TOWTANK_STORAGE.",
            envvar="TOWTANK_STORAGE",
            show_envvar=False,
        ),
    ] = None
    worker: Annotated[
        bool,
        typer.Option("--worker", help="Work on the study in --storage, beside any number of other workers."),
    ] = False
    lease: Annotated[
        float,
        _defaulted(
            "--lease", "SECONDS", "Silence after which a worker on another node counts as dead.", min=1.0
        ),
    ] = 60.0
    slurm: Annotated[
        Path | None,
        _option("--slurm", "FILE", "Make the study and write a Slurm array of workers; try nothing."),
    ] = None
    slurm_nodes: Annotated[int, _defaulted("--slurm-nodes", "N", "Nodes of the array.")] = 1
    slurm_workers: Annotated[int, _defaulted("--slurm-workers", "N", "Workers on each node.")] = 1
    slurm_time: Annotated[str, _defaulted("--slurm-time", "TIME", "Time limit of the array.")] = "01:00:00"
    slurm_option: Annotated[
        list[str] | None,
        _option("--slurm-option", "OPTION", "Option of sbatch, such as --account=abc. Repeatable."),
    ] = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what counts."""
        return tuple(self.measure or ("step_time",))

    @property
    def is_asked(self) -> bool:
        """Whether the exact search for the shortest step is not what is asked."""
        return self.method != "exact" or self.slurm is not None or bool(self.measure or self.or_devices)


NO_WISH = StudyWish()
"""Nothing asked."""
