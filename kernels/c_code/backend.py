"""The generated C multiply as a backend of a kernel; nothing here imports torch or compiles before it must."""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from towtank.kernels.backends import library_missing
from towtank.kernels.c_code.compiler import find, here, not_found
from towtank.kernels.c_code.tiles import default, register_blocks
from towtank.kernels.errors import KernelError
from towtank.kernels.records import Backend, Launch, Sizes, Tile


def generated_c(operands: Callable[..., Any], output: str, summed: str) -> Backend:
    """Backend of a product whose output has the sizes named by two letters and sums over a third."""

    def load() -> Launch:
        code = importlib.import_module("towtank.kernels.c_code.matmul")
        launch: Launch = code.launcher(operands)
        return launch

    def cases(tile: Tile, dtype: str) -> tuple[Sizes, ...]:
        """Sizes that need more than one block in each direction, with a remainder."""
        rows, columns = output[0], output[1]
        return (
            {rows: tile["mc"] + tile["mr"] + 1, columns: tile["nr"] + 3, summed: tile["kc"] + 5},
            {rows: tile["mr"] + 1, columns: tile["nc"] + tile["nr"] + 1, summed: 7},
        )

    return Backend("c", load, ("float32",), missing, _tiles, cases=cases)


def missing(device: str) -> str | None:
    """Why generated C cannot run on a device type; None where it can."""
    if device != "cpu":
        return "generated C runs on the CPU only; choose --device cpu"
    if find() is None:
        return not_found()
    try:
        here()
    except KernelError as error:
        return str(error)
    return library_missing(device)


def _tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    import torch

    return _variants(
        torch.get_num_threads()
    )  # as many as the library uses, so that OMP_NUM_THREADS is heeded


@cache
def _variants(threads: int) -> tuple[Tile, ...]:
    """The default, then each register block with and without panels of A: what the compiler has a part in."""
    target = here()
    first = default(target, threads)
    others = (
        {**first, "mr": rows, "nr": columns, "mc": 96, "nc": 8 * columns, "pack_a": pack}
        for rows, columns in register_blocks(target)
        for pack in (1, 0)
    )
    return (first, *others)
