"""Shared memory that a tile of a Triton kernel needs, and what a block may have on the GPU at hand.

A tile that needs more fails when it is launched, and the first tiles of our kernels, which suit Hopper and A100,
need more than Ada (99 KiB) or CDNA 2 and 3 (64 KiB) have. The counts are those of Triton 3.9 for compute capability
9.0 and for gfx942, as a test compiles them.
"""

from collections.abc import Callable, Sequence
from functools import cache

from towtank.kernels.records import DTYPE_BYTES, Sizes, Tile

Needs = Callable[[Sizes, Tile, str], int]
"""Bytes by sizes, tile and dtype."""


def of_product(sizes: Sizes, tile: Tile, dtype: str) -> int:
    """Blocks of both operands, once for each stage of the loop over the depth."""
    rows = tile["block_m"] + tile["block_n"]
    return rows * tile["block_k"] * DTYPE_BYTES[dtype] * held(tile["stages"])


def of_attention(sizes: Sizes, tile: Tile, dtype: str) -> int:
    """The queries, and keys and values of each stage; on AMD in place of the queries the weights of one stage."""
    rows, columns, head = tile["block_m"], tile["block_n"], padded(sizes["head_dim"])
    keys = 2 * columns * head * held(tile["stages"])
    elements = max(rows * head, keys + rows * columns) if is_amd() else rows * head + keys
    return elements * DTYPE_BYTES[dtype]


def padded(head_dim: int) -> int:
    """Columns in which a head is computed: the next power of two, and no fewer than matrix units take."""
    return max(16, 1 << (head_dim - 1).bit_length())


def held(stages: int) -> int:
    """Stages whose operands lie in shared memory: all, but for the one that AMD's compiler keeps in registers."""
    return max(1, stages - 1) if is_amd() else stages


@cache
def is_amd() -> bool:
    """Whether torch is built for GPUs of AMD."""
    import torch

    return torch.version.hip is not None


@cache
def of_block() -> int | None:
    """Bytes that a block may have on the GPU at hand; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    from triton.runtime import driver

    return int(driver.active.utils.get_device_properties(torch.cuda.current_device())["max_shared_mem"])


def fitting(tiles: Sequence[Tile], sizes: Sizes, dtype: str, needs: Needs) -> tuple[Tile, ...]:
    """Tiles that the GPU at hand can run, in their order; all of them where there is none, or none would be left."""
    limit = of_block()
    if limit is None:
        return tuple(tiles)
    return tuple(each for each in tiles if needs(sizes, each, dtype) <= limit) or tuple(tiles)
