"""What a backend needs of the machine, and where it finds it."""

import importlib.util
import os


def library_missing(device: str) -> str | None:
    """Why PyTorch's own kernels cannot run on a device type; None where they can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed; pip install 'towtank[kernels]'"
    return _device_missing(device)


def triton_missing(device: str) -> str | None:
    """Why Triton kernels cannot run on a device type: they need a GPU, or TRITON_INTERPRET=1 for a trial on CPU."""
    if (missing := library_missing(device)) is not None:
        return missing
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install 'towtank[kernels]'"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "triton compiles for GPUs only; set TRITON_INTERPRET=1 to interpret its kernels on the CPU"
    return None


def _device_missing(device: str) -> str | None:
    if device == "cpu":
        return None
    import torch

    return None if torch.cuda.is_available() else "no GPU that torch can use was found"
