"""Launcher of the generated matrix multiply: which tile, which strides, and working memory that is kept."""

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from towtank.kernels.c_code.compiler import build, here
from towtank.kernels.c_code.source import pool_source, source
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]
    Operands = Callable[[Tensors], tuple[torch.Tensor, torch.Tensor]]

_SIZE, _POINTER = ctypes.c_long, ctypes.c_void_p
_ARGUMENTS = (
    *(_SIZE, _SIZE, _SIZE),
    *(_POINTER, _SIZE, _SIZE),
    *(_POINTER, _SIZE, _SIZE),
    *(_POINTER, _SIZE),
    *(_SIZE, _SIZE, _SIZE, _SIZE, _SIZE),
    *(_POINTER, _POINTER),
)
_ALIGNMENT = 64
_KEPT = threading.local()


@cache
def _compiled(rows: int, columns: int) -> ctypes.CDLL:
    library = build(source(rows, columns, here().vector_floats))
    library.multiply.argtypes, library.multiply.restype = _ARGUMENTS, None
    library.workspace.argtypes, library.workspace.restype = (_SIZE,) * 7, _SIZE
    return library


@cache
def _together() -> int | None:
    """Address of the function that runs another on several threads."""
    pool = build(pool_source())
    return ctypes.cast(pool.together, _POINTER).value


def multiply(a: "torch.Tensor", b: "torch.Tensor", out: "torch.Tensor", tile: Tile) -> None:
    """out = a b, fp32 on the CPU; a[m, k] and b[k, n] may lie anyhow, rows of out[m, n] are contiguous.

    Raises:
        KernelError: there is no compiler, or it fails.
        ValueError: the tile's columns are no multiple of the vector width.
    """
    (m, k), n = a.shape, b.shape[1]
    library = _compiled(tile["mr"], tile["nr"])
    blocks = max(tile["mc"], tile["mr"]), max(tile["kc"], 1), max(tile["nc"], tile["nr"])
    floats = library.workspace(m, n, k, *blocks, tile["threads"])
    library.multiply(
        *(m, n, k),
        *(a.data_ptr(), *a.stride()),
        *(b.data_ptr(), *b.stride()),
        *(out.data_ptr(), out.stride(0)),
        *blocks,
        *(tile["pack_a"], tile["threads"]),
        *(_working_memory(4 * floats), _together()),
    )  # fmt: skip


def _working_memory(size: int) -> int:
    """Address of `size` bytes that stay ours between calls: fresh pages cost more than small products."""
    if size > getattr(_KEPT, "size", -1):
        _KEPT.buffer = ctypes.create_string_buffer(size + _ALIGNMENT)
        _KEPT.size = size
    return -(-ctypes.addressof(_KEPT.buffer) // _ALIGNMENT) * _ALIGNMENT


def launcher(operands: "Operands") -> Launch:
    """A launcher whose operands A and B are made of its inputs by `operands`."""
    import torch

    def launch(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
        a, b = operands(inputs)
        out = allocate(a.shape[0], b.shape[1], dtype=torch.float32)
        multiply(a, b, out, tile)
        return (out,)

    return launch
