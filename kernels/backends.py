"""What a backend needs of the machine, and where it finds it."""

import importlib
import importlib.util
import os
from collections.abc import Callable

from towtank.kernels.records import Backend, Launch, Sizes, Tile, no_cases, no_tiles
from towtank.kernels.shared_memory import Needs, fitting

DTYPES = ("float32", "float16", "bfloat16")
"""What every kernel is written for, by PyTorch's names; arithmetic inside is fp32."""
LIBRARY_DTYPES = (*DTYPES, "float64")
"""What the library computes in as well: float64, in which equality of algorithms is shown."""

Tiles = Callable[[Sizes, str], tuple[Tile, ...]]
Missing = Callable[[str], str | None]
Cases = Callable[[Tile, str], tuple[Sizes, ...]]


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
    if device == "cpu" and not interpreted():
        return "triton compiles for GPUs only; set TRITON_INTERPRET=1 to interpret its kernels on the CPU"
    return None


def _device_missing(device: str) -> str | None:
    if device == "cpu":
        return None
    import torch

    return None if torch.cuda.is_available() else "no GPU that torch can use was found"


def interpreted() -> bool:
    """Whether Triton interprets its kernels on the CPU instead of compiling them for a GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def library(
    launch: Launch,
    tiles: Tiles | None = None,
    outputs: int | None = None,
    dtypes: tuple[str, ...] = LIBRARY_DTYPES,
    missing: Missing = library_missing,
) -> Backend:
    """PyTorch's own kernels: cuBLAS, cuDNN, oneDNN or whatever it was built with."""
    return Backend("library", lambda: launch, dtypes, missing, tiles or no_tiles, outputs=outputs)


def triton(
    module: str,
    operation: str,
    tiles: Tiles | None = None,
    dtypes: tuple[str, ...] = DTYPES,
    missing: Missing = triton_missing,
    needs: Needs | None = None,
    cases: Cases = no_cases,
) -> Backend:
    """The launcher of an operation in `triton_code/MODULE.py`, which is imported when it is first needed.

    Of its tiles those are offered that find the shared memory that they need on the GPU at hand.
    """

    def load() -> Launch:
        code = importlib.import_module(f"towtank.kernels.triton_code.{module}")
        launch: Launch = code.LAUNCHERS[operation]
        return launch

    if tiles is None or needs is None:
        return Backend("triton", load, dtypes, missing, tiles or no_tiles, cases=cases)

    def offered(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
        return fitting(tiles(sizes, dtype), sizes, dtype, needs)

    return Backend("triton", load, dtypes, missing, offered, cases=cases)
