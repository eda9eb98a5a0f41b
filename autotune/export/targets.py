"""A plan as the files of a target: the one entry into exporting."""

from collections.abc import Callable
from dataclasses import replace

from towtank.autotune.export import axonn, bridge, deepspeed, megatron, torchtitan
from towtank.autotune.export.names import names_of
from towtank.autotune.export.records import Export, ExportError, File, Job, Translated
from towtank.autotune.export.script import header, launch_script
from towtank.autotune.export.slurm import batch_script
from towtank.autotune.export.text import comment
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack

SLURM = "slurm"
_WITH_FILE: dict[str, tuple[Callable[[Job, str], Translated], str]] = {
    deepspeed.TARGET: (deepspeed.translate, ".json"),
    torchtitan.TARGET: (torchtitan.translate, ".py"),
    bridge.TARGET: (bridge.translate, ".py"),
}
_SCRIPTS: dict[str, Callable[[Job], Translated]] = {
    megatron.TARGET: megatron.translate,
    axonn.TARGET: axonn.translate,
}
FRAMEWORKS = ("megatron", "megatron-axonn", "torchtitan", "deepspeed", "megatron-bridge")
TARGETS = (*FRAMEWORKS, SLURM)


def export(job: Job, target: str, framework: str | None = None, stem: str | None = None) -> Export:
    """Files that make `target` run the plan; `stem` names them, `framework` is what a Slurm script starts.

    Raises:
        ExportError: the plan breaks rules, or the target cannot run it as it was predicted; every reason.
        KeyError: no such target or framework.
    """
    software = framework or "megatron" if target == SLURM else target
    faults = faults_of(job.model, job.machine, job.plan, job.stack)
    if faults:
        raise ExportError(faults, "plan")
    stem = stem or software.replace("-", "_")
    translated = _translated(job, software, stem)
    noted = replace(translated, notes=(*_software_notes(job, software), *translated.notes))
    if target == SLURM:
        files = (File(f"{stem}.sbatch", batch_script(job, noted)), *_commented(job, noted))
    elif noted.files:
        files = (*_commented(job, noted), File(f"{stem}.sh", launch_script(job, noted)))
    else:
        files = (File(f"{stem}.sh", launch_script(job, noted)),)
    return Export(target, files, noted.notes)


def with_usual_stack(job: Job, target: str, framework: str | None = None) -> Job:
    """The job with the stack of its target where the usual stack cannot run the plan, so that faults are of that."""
    if faults_of(job.model, job.machine, job.plan, job.stack):
        return replace(job, stack=usual_stack(target, framework))
    return job


def usual_stack(target: str, framework: str | None = None) -> Stack:
    """The stack that is a target's software here.

    Raises:
        KeyError: no such target or framework.
    """
    return load_stack(names_of(framework or "megatron" if target == SLURM else target).stack)


def _translated(job: Job, software: str, stem: str) -> Translated:
    if software in _WITH_FILE:
        translate, ending = _WITH_FILE[software]
        return translate(job, f"{stem}{ending}")
    return _SCRIPTS[software](job)


def _commented(job: Job, translated: Translated) -> tuple[File, ...]:
    """Files of the target, Python with a header of comments; JSON has no comments."""
    return tuple(
        File(file.name, "\n".join(comment(header(job, translated))) + "\n" + file.text)
        if file.name.endswith(".py")
        else file
        for file in translated.files
    )


def _software_notes(job: Job, software: str) -> list[str]:
    """Note where the prediction was for other software than the target."""
    names = names_of(software)
    if job.stack.name == names.stack:
        return []
    return [
        f"predicted for the stack {job.stack.name}; {names.release} is {names.stack} here, and what the two do by "
        f"themselves may differ: compare with towtank predict --stack {names.stack}"
    ]
