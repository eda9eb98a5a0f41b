"""Batch scripts of Slurm around the command of a framework."""

import re

from towtank.autotune.export.layout import nodes_of
from towtank.autotune.export.records import Job, Translated
from towtank.autotune.export.script import header, srun_lines
from towtank.autotune.export.text import comment, exports


def batch_script(job: Job, translated: Translated) -> str:
    """An sbatch script with nodes and tasks from the machine, one task a device."""
    nodes, processes = nodes_of(job)
    command = translated.command
    lines = [
        "#!/usr/bin/env bash",
        f"#SBATCH --job-name={_job_name(job)}",
        f"#SBATCH --nodes={nodes}",
        f"#SBATCH --ntasks-per-node={processes}",
        f"#SBATCH --gpus-per-node={processes}",
        "#SBATCH --exclusive",
        "#SBATCH --time=01:00:00",
        "# Yours to set: time, and --account, --partition, --qos or --constraint as the site wants them.",
        *comment(header(job, translated)),
        "set -euo pipefail",
        *exports(command.environment),
        *command.setup,
        *srun_lines(job, translated),
    ]
    return "\n".join(lines) + "\n"


def _job_name(job: Job) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", f"{job.model.name}-{job.plan.num_devices}").strip("-")
