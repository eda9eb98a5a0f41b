"""A Slurm array of workers. The storage of the study is the only thing that they share."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from towtank.autotune.study.records import StudyError
from towtank.autotune.study.storage import MEMORY, has_password, shown

_TIME = re.compile(r"(\d+-\d+(:\d{1,2}){0,2}|\d+(:\d{1,2}){0,2})")
"""Forms of sbatch --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on."""


@dataclass(frozen=True, slots=True)
class Job:
    """Size of the array."""

    nodes: int = 1
    """Array elements, each on a node of its own."""
    workers: int = 1
    """Workers on each node, one core each."""
    time: str = "01:00:00"
    """Limit of each element in a form of sbatch --time."""
    directives: Sequence[str] = ()
    """Further options of sbatch, such as `--account=abc`."""


def slurm_script(
    storage: str, study: str, job: Job, command: Sequence[str] = ("towtank",), options: Sequence[str] = ()
) -> str:
    """Text of an array script whose elements work on the study until it is done or their time is over.

    Args:
        storage: what `storage_of` returned; it must be on a file system, or a database, that all nodes reach.
        study: name of the study.
        job: size of the array.
        command: the program, as words.
        options: further options of each worker, such as `--profiles /scratch/profiles`.

    Raises:
        StudyError: the storage cannot be shared, or a figure is wrong.
    """
    check_shared(storage, job.nodes)
    check_job(job)
    worker = [*command, "tune", "--worker", "--storage", storage, "--study", study, *options]
    directives = [
        f"--job-name=towtank-{study}",
        f"--array=0-{job.nodes - 1}",
        "--nodes=1",
        f"--ntasks={job.workers}",
        "--cpus-per-task=1",
        f"--time={job.time}",
        f"--output=towtank-{study}-%A_%a.log",
        *job.directives,
    ]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {directive}" for directive in directives),
            "# Workers of a towtank study. Any number of them may run or die at any time: a configuration in hand is",
            "# given back at the time limit, and taken over by others where a node is lost.",
            "set -euo pipefail",
            "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1",
            f"srun --kill-on-bad-exit=0 {shlex.join(worker)}",
            "",
        ]
    )


def check_shared(storage: str, nodes: int) -> None:
    """Check that workers on so many nodes can share the storage.

    Raises:
        StudyError: they cannot, or it has a password.
    """
    if storage == MEMORY:
        raise StudyError(
            "workers cannot share a storage in memory; give --storage FILE.journal on a shared file system"
        )
    if has_password(storage):
        raise StudyError(
            f"storage {shown(storage)} has a password, which a script must not contain; leave it out and put it "
            "into ~/.pgpass"
        )
    if storage.startswith("sqlite:") and nodes > 1:
        raise StudyError(
            f"storage {storage}: locks of SQLite do not hold across nodes; use a journal file on a shared file "
            "system, or PostgreSQL"
        )


def check_job(job: Job) -> None:
    """Check the figures of an array.

    Raises:
        StudyError: everything that is wrong with them.
    """
    faults = [
        f"--slurm-{name} {value} must be 1 or more"
        for name, value in (("nodes", job.nodes), ("workers", job.workers))
        if value < 1
    ]
    if _TIME.fullmatch(job.time) is None:
        faults.append(f"--slurm-time {job.time} must be a time of sbatch, such as 30, 02:00:00 or 1-12:00:00")
    for directive in job.directives:
        if not directive.startswith("-") or "\n" in directive:
            faults.append(f"--slurm-option {directive!r} must be an option of sbatch, such as --account=abc")
    if faults:
        raise StudyError(*faults)
