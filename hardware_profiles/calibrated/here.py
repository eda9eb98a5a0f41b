"""The machine that this process runs on: its processor, cores, memory, caches and GPUs."""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROCESSOR_KEYS = ("model name", "cpu model", "Model", "uarch")
"""Where /proc/cpuinfo of several architectures names the processor."""


@dataclass(frozen=True, slots=True)
class Here:
    """What the operating system and the driver say, without names of hosts or users."""

    processor: str
    cores: int
    """Cores that this process may use."""
    memory_bytes: float
    """Memory of the node, or of the control group where that is less."""
    cache_bytes: float | None
    """Largest cache of a core."""
    gpus: tuple[str, ...]
    gpu_memory_bytes: float | None
    """Of one GPU."""
    links: str | None
    """What joins the first two GPUs, in the words of `nvidia-smi topo -m`: NV18, PIX, SYS ..."""


def here() -> Here:
    """Look at this machine."""
    gpus, memory = _gpus()
    return Here(
        processor=processor_name(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        cache_bytes=_cache_bytes(Path("/sys/devices/system/cpu/cpu0/cache")),
        gpus=gpus,
        gpu_memory_bytes=memory,
        links=first_link(_output(["nvidia-smi", "topo", "-m"])) if len(gpus) > 1 else None,
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Name of the processor as the kernel tells it; the architecture where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = (line.partition(":") for line in lines)
    named = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    found = next((named[key] for key in _PROCESSOR_KEYS if named.get(key)), None)
    return found or platform.processor() or platform.machine()


def _memory_bytes() -> float:
    total = float(os.sysconf("SC_PAGE_SIZE")) * float(os.sysconf("SC_PHYS_PAGES"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("utf-8").strip()
    except OSError:
        return total
    return min(total, float(limit)) if limit.isdigit() else total


def _cache_bytes(folder: Path) -> float | None:
    sizes = []
    for path in folder.glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KMG]?)", path.read_text("utf-8").strip())
        if found:
            sizes.append(float(found.group(1)) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[found.group(2)])
    return max(sizes, default=None)


def _gpus() -> tuple[tuple[str, ...], float | None]:
    """Names of the GPUs, and the memory of the smallest in bytes; none where there is no driver."""
    text = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"])
    rows = [line.rsplit(",", 1) for line in text.splitlines() if "," in line]
    names = tuple(name.strip() for name, _ in rows)
    sizes = [float(size) * 2**20 for _, size in rows if size.strip().isdigit()]
    return names, min(sizes, default=None)


def _output(command: list[str]) -> str:
    """What a program prints; empty where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def first_link(matrix: str) -> str | None:
    """The link between the first two GPUs in the matrix of `nvidia-smi topo -m`."""
    for line in matrix.splitlines():
        cells = line.split()
        if cells[:1] == ["GPU0"] and len(cells) > 2 and cells[1] == "X":
            return cells[2]
    return None
