"""Tiles of the generated matrix multiply."""

from functools import cache
from itertools import product

from towtank.kernels.c_code.compiler import Target
from towtank.kernels.records import Tile

NAMES = ("mr", "nr", "mc", "kc", "nc", "pack_a", "threads")
"""Register block (rows, columns), largest blocks (rows, depth, columns: cut into equal parts of whole register
blocks), whether A is copied to panels, threads."""
_ROWS = (1, 2, 4, 6, 8, 12, 14)
_VECTORS = (1, 2, 3, 4)
_BLOCK_ROWS = (24, 96, 384)
_BLOCK_DEPTH = (64, 128, 256, 512)
_BLOCK_COLUMNS = (256, 4096)


def register_blocks(target: Target) -> tuple[tuple[int, int], ...]:
    """Rows and columns of C to hold in registers, with one row of B and one element of A; a few that just do not fit
    are left in, for a search to find out."""
    fits = target.registers + target.registers // 4
    return tuple(
        (rows, vectors * target.vector_floats)
        for rows, vectors in product(_ROWS, _VECTORS)
        if rows * vectors + vectors + 1 <= fits
    )


def default(target: Target, threads: int) -> Tile:
    """Two vectors wide and as high as registers allow: 6 x 16 of AVX2, 14 x 32 of AVX-512."""
    fitting = [
        (rows, columns)
        for rows, columns in register_blocks(target)
        if columns == 2 * target.vector_floats and 2 * rows + 3 <= target.registers
    ]
    rows, columns = max(fitting)
    return _tile(rows, columns, 192, 256, 4096, 1, threads)


@cache
def space(target: Target, threads: int) -> tuple[Tile, ...]:
    """Every tile that a search may choose, the default first."""
    first = default(target, threads)
    found = (
        _tile(rows, columns, mc, kc, nc, pack, threads)
        for (rows, columns), mc, kc, nc, pack in product(
            register_blocks(target), _BLOCK_ROWS, _BLOCK_DEPTH, _BLOCK_COLUMNS, (0, 1)
        )
    )
    return (first, *(tile for tile in found if tile != first))


def _tile(*values: int) -> Tile:
    return dict(zip(NAMES, values, strict=True))
