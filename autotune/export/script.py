"""Launch scripts: a bash script that starts the processes of one node by torchrun, or all of them by srun."""

from towtank.autotune.export.groups import group_lines
from towtank.autotune.export.layout import nodes_of
from towtank.autotune.export.names import names_of
from towtank.autotune.export.records import Job, Translated
from towtank.autotune.export.text import comment, exports

_PORT = 29500


def header(job: Job, translated: Translated) -> list[str]:
    """What every file of an export says first: what it is for, where ranks lie, what the target is not told."""
    nodes, processes = nodes_of(job)
    devices = f"{job.plan.num_devices:,} devices, {nodes:,} x {processes}"
    lines = [
        f"{job.model.name} on {job.machine_name} ({devices}), written by `towtank export` for "
        f"{names_of(translated.target).release}",
        "",
        *group_lines(job),
    ]
    if translated.notes:
        lines += ["", *(f"note: {note}" for note in translated.notes)]
    return lines


def launch_script(job: Job, translated: Translated) -> str:
    """A script that every node runs (torchrun), or that an allocation runs once (srun)."""
    command = translated.command
    lines = ["#!/usr/bin/env bash", *comment(header(job, translated)), "set -euo pipefail"]
    lines += exports(command.environment)
    lines += command.setup
    if command.by_slurm:
        lines += srun_lines(job, translated)
    else:
        lines += [*torchrun_lines(job), f"    {command.program}"]
    return "\n".join(lines) + "\n"


def torchrun_lines(job: Job) -> list[str]:
    """torchrun with the size of the job; node and address of the first come from the environment."""
    nodes, processes = nodes_of(job)
    return [
        f'torchrun --nnodes {nodes} --nproc-per-node {processes} --node-rank "${{NODE_RANK:-0}}" \\',
        f'    --master-addr "${{MASTER_ADDR:-localhost}}" --master-port "${{MASTER_PORT:-{_PORT}}}" \\',
    ]


def srun_lines(job: Job, translated: Translated) -> list[str]:
    """srun of one process a device; `block` fills one node after the other, as ranks were placed."""
    nodes, processes = nodes_of(job)
    return [
        # sed reads all names: head would leave, and pipefail end the script, where they are more than a pipe holds
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
        f"export MASTER_ADDR MASTER_PORT={_PORT} WORLD_SIZE={nodes * processes}",
        f"srun --nodes={nodes} --ntasks={nodes * processes} --ntasks-per-node={processes} "
        "--distribution=block:block \\",
        "    bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec python -u \"$@\"' _ \\",
        f"    {translated.command.program}",
    ]
