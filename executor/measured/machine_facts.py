"""What decides how fast this machine is, without saying whose it is: no host name, no address, no user."""

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from towtank.executor.measured.run_record import MachineFacts
from towtank.hardware_profiles.calibrated.here import processor_name, usable_cores


def machine_facts() -> MachineFacts:
    """This node: processor, cores, memory and accelerators."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = tuple(torch.cuda.get_device_name(index) for index in range(count))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = MachineFacts("", processor_name(), usable_cores(), memory, devices)
    return replace(found, fingerprint=_fingerprint(found))


def _fingerprint(facts: MachineFacts) -> str:
    """A short hash of what decides the speed; memory to the nearest GiB, since kernels keep back different parts."""
    parts = [facts.processor, facts.cores, round(facts.memory_bytes / 2**30), *facts.devices]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def job_facts(nodes: Sequence[tuple[str, MachineFacts]]) -> tuple[MachineFacts, tuple[str, ...]]:
    """The machine of a job from (boot, facts) of every rank, and notes where its nodes differ."""
    distinct = dict(nodes)
    first = nodes[0][1]
    notes = []
    if any(facts.fingerprint != first.fingerprint for facts in distinct.values()):
        notes.append("the nodes of the job are of several kinds; `machine` is that of rank 0")
    return replace(first, nodes=len(distinct)), tuple(notes)


def boot() -> str:
    """What processes of one running system have in common, to count nodes; never written down."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def versions() -> dict[str, str]:
    """Versions of the software that a measurement depends on."""
    import numpy
    import torch

    found = {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": str(torch.__version__),
        "system": f"{platform.system()} {platform.release()}",
    }
    if torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda or torch.version.hip)
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return found
