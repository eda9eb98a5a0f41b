"""Options of `towtank tune` that were given and that what is asked does not read."""

from collections.abc import Collection
from typing import Any

from towtank.cli.tune_study_options import StudyWish

_STUDY = ("trials", "sampler", "seed", "study", "storage", "lease")
_ARRAY = ("slurm_nodes", "slurm_workers", "slurm_time", "slurm_option")
_JOB = (
    "model", "machine", "global_batch", "devices", "sequence", "stack", "fix", "least", "most", "free", "output",
    "force", "method", "json", "profiles", "workers", "finalists", "finalists_engine",
)  # fmt: skip
"""What every search may be given. Workers and finalists change no answer."""
_SEVERAL = ("measure", "or_devices", "memory_margin")
_READ: dict[str, frozenset[str]] = {
    "--method exact": frozenset({*_JOB, "budget", "top", "memory_margin"}),
    "--method exact with --measure": frozenset({*_JOB, *_SEVERAL, "budget"}),
    "--method axonn": frozenset({*_JOB, "top"}),
    "a study": frozenset({*_JOB, *_SEVERAL, *_STUDY, "budget", "slurm"}),
    "--worker, which reads the study,": frozenset({"worker", "study", "storage", "profiles", "json"}),
}
"""Names of parameters by who reads them."""


def unread(context: Any, study: StudyWish) -> str | None:
    """Options on the command line that nobody would read, in one sentence; None where all are read.

    `context` is the context of the command.
    """
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    }
    who = reader(study)
    read = _read_by(who, study, given)
    lost = {name: option for name, option in given.items() if name not in read}
    if not lost:
        return None
    hints = ["leave out"]
    hints += ["give --measure cost with a price"] if "price" in lost else []
    hints += ["ask for a study with --method optuna"] if {*_STUDY, *_ARRAY} & set(lost) else []
    return f"{', '.join(lost.values())}: not read by {who}; {', or '.join(hints)}"


def reader(study: StudyWish) -> str:
    """Who answers a command with these options."""
    if study.worker:
        return "--worker, which reads the study,"
    if study.method == "axonn":
        return "--method axonn"
    if study.method != "exact" or study.slurm is not None:
        return "a study"
    return "--method exact with --measure" if study.is_asked else "--method exact"


def _read_by(who: str, study: StudyWish, given: Collection[str]) -> frozenset[str]:
    """What is read, with what only makes sense beside another option."""
    more = {"price"} if "cost" in study.measures and "measure" in _READ[who] else set()
    return _READ[who] | more | (set(_ARRAY) if "slurm" in given and who == "a study" else set())
