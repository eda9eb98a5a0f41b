"""What a result on this machine depends on: device, software, and the source of the kernels."""

import hashlib
import importlib.metadata
import os
import platform
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from towtank.kernels.backends import interpreted


def device_types() -> tuple[str, ...]:
    """Device types that torch can use here, the fastest first; only the CPU where torch is missing."""
    try:
        import torch
    except ImportError:
        return ("cpu",)
    return ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)


def device_name(device: str) -> str:
    """Name of the device that its maker gave it, such as `NVIDIA H200`, and the threads that torch uses of a CPU."""
    if device == "cpu":
        import torch

        return f"{hardware_name(device)}, {torch.get_num_threads()} threads"
    return hardware_name(device)


@cache
def hardware_name(device: str) -> str:
    """The same without threads."""
    if device == "cpu":
        return _processor()
    import torch

    return str(torch.cuda.get_device_name())


def memory_bytes(device: str) -> int:
    """Memory of the device, whoever uses it."""
    if device == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def software(device: str) -> str:
    """Versions that decide which code runs, such as `torch 2.13.0 triton 3.9.0 cuda 12.8`."""
    parts = [f"{name} {_version(name)}" for name in ("torch", "triton")]
    if device != "cpu":
        import torch

        parts.append(f"rocm {torch.version.hip}" if torch.version.hip else f"cuda {torch.version.cuda}")
    elif interpreted():
        parts.append("interpreted")
    return " ".join(parts)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@cache
def source_version() -> str:
    """Digest of everything that kernels are made of: a change to any of it asks for validation again."""
    digest = hashlib.sha256()
    for name, content in sorted(_sources(resources.files("towtank.kernels"))):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:16]


def _sources(folder: Traversable, prefix: str = "") -> list[tuple[str, bytes]]:
    found = []
    for each in folder.iterdir():
        if each.is_dir() and each.name not in {"captures", "__pycache__"}:
            found += _sources(each, f"{prefix}{each.name}/")
        elif each.name.endswith((".py", ".yaml", ".c")):
            found.append((f"{prefix}{each.name}", each.read_bytes()))
    return found
