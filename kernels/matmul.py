"""Matrix multiplies of a linear layer: forward, gradient of the input, gradient of the weight.

y[m, n] = x[m, k] W^T with W[n, k], as PyTorch stores it; dx = dy W; dW = dy^T x.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.c_code.backend import generated_c
from towtank.kernels.counts import matmul_bytes, matmul_flop
from towtank.kernels.draws import normal, sum_of_products
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Launch, Sizes, Tile
from towtank.kernels.shared_memory import of_product

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]
    Operands = Callable[[Tensors], tuple[torch.Tensor, torch.Tensor]]

CASES: tuple[Sizes, ...] = (
    {"m": 130, "n": 270, "k": 64},
    {"m": 33, "n": 65, "k": 71},
    {"m": 1, "n": 17, "k": 45},
    {"m": 19, "n": 1, "k": 1},
    {"m": 5, "n": 6, "k": 0},
    {"m": 0, "n": 6, "k": 3},
)
_LAYOUTS = ((0, 0), (1, 0), (0, 1))

LIBRARY_TILES: tuple[Tile, ...] = (
    *({"swap": swap} for swap in (0, 1)),
    *({"swap": swap, "a_transposed": a, "b_transposed": b} for swap in (0, 1) for a, b in _LAYOUTS),
)
"""Modes of a library product: as the operands lie, or with A and B copied to row-major (0) or column-major (1) order;
`swap` computes (B^T A^T)^T. The eight that AxoNN's tuner tries (axonn-ai/axonn, branch add-timers-gordon-bell,
intra_layer/tuned_matmul.py), the default first. Copies belong to the product and are timed with it."""


def forward_operands(inputs: "Tensors") -> "tuple[torch.Tensor, torch.Tensor]":
    """A = x, B = W^T."""
    x, weight = inputs
    return x, weight.t()


def dgrad_operands(inputs: "Tensors") -> "tuple[torch.Tensor, torch.Tensor]":
    """A = dy, B = W."""
    gradient, weight = inputs
    return gradient, weight


def wgrad_operands(inputs: "Tensors") -> "tuple[torch.Tensor, torch.Tensor]":
    """A = dy^T, B = x."""
    gradient, x = inputs
    return gradient.t(), x


def _laid_out(operand: "torch.Tensor", transposed: int) -> "torch.Tensor":
    return operand.t().contiguous().t() if transposed else operand.contiguous()


def multiply(a: "torch.Tensor", b: "torch.Tensor", mode: Tile) -> "torch.Tensor":
    """A B by the library, in one of the modes of `LIBRARY_TILES`."""
    import torch

    swap = mode.get("swap", 0)
    if swap:
        a, b = b.t(), a.t()
    if "a_transposed" in mode:
        a, b = _laid_out(a, mode["a_transposed"]), _laid_out(b, mode["b_transposed"])
    result = torch.mm(a, b)
    return result.t().contiguous() if swap else result


def _library(operands: "Operands") -> Launch:
    def launch(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
        return (multiply(*operands(inputs), tile),)

    return launch


def _library_tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    return LIBRARY_TILES


def triton_tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    """Tiles of the Triton backend, the default first: those whose accumulators leave room in the registers.

    A multiprocessor's thread has 255 registers of 4 bytes; half of them hold accumulators at most.
    """
    wide = dtype == "float32"
    blocks = (32, 64, 128) if wide else (64, 128, 256)
    first = {"block_m": 64, "block_n": 64, "block_k": 32, "group_m": 8, "warps": 4, "stages": 3}
    if not wide:
        first |= {"block_m": 128, "block_n": 256, "block_k": 64, "warps": 8}
    others = (
        {"block_m": m, "block_n": n, "block_k": k, "group_m": 8, "warps": warps, "stages": stages}
        for m, n, k, warps, stages in product(
            blocks, blocks, (16, 32) if wide else (32, 64, 128), (4, 8), (2, 3, 4)
        )
        if 16 <= m * n / (32 * warps) <= 128
    )
    return (first, *(tile for tile in others if tile != first))


def tile_cases(tile: Tile, rows: str, columns: str, depth: str) -> tuple[Sizes, ...]:
    """Sizes at which programs of a tile of the Triton backend form more than one group, and their loops go round more
    often than there are stages: multiples of 16, as sizes of models are and as the compiler has code of its own for,
    and odd ones. Of a product whose sizes are named by letters."""
    stages, step = tile["stages"], tile["block_k"]
    return (
        {
            rows: tile["block_m"] * (tile.get("group_m", 1) + 1),
            columns: tile["block_n"] + 16,
            depth: step * (stages + 2),
        },
        {rows: tile["block_m"] + 1, columns: tile["block_n"] + 3, depth: step * stages + 5},
    )


def _reference(operands: "Operands") -> "Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]":
    def reference(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
        a, b = operands(inputs)
        return (a @ b,)

    return reference


def _kernel(name: str, operands: "Operands", shapes: tuple[str, str], output: str, summed: str) -> Kernel:
    """A product whose inputs and output have the sizes named by two letters each."""

    def inputs(
        sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
    ) -> "tuple[torch.Tensor, ...]":
        return tuple(normal([sizes[letter] for letter in shape], dtype, generator) for shape in shapes)

    def cost(sizes: Sizes, dtype: str) -> Cost:
        m, n = (sizes[letter] for letter in output)
        k, element = sizes[summed], DTYPE_BYTES[dtype]
        return Cost(matmul_flop(m, n, k), matmul_bytes(m, n, k, element, element))

    return Kernel(
        name=name,
        dimensions=("m", "n", "k"),
        backends=(
            library(_library(operands), _library_tiles),
            triton(
                "matmul",
                name,
                triton_tiles,
                needs=of_product,
                cases=lambda tile, dtype: tile_cases(tile, output[0], output[1], summed) if tile else (),
            ),
            generated_c(operands, output, summed),
        ),
        inputs=inputs,
        reference=_reference(operands),
        cost=cost,
        # a deep sum tells one in fp32 from one in 16 bits
        cases=(*CASES, {output[0]: 5, output[1]: 7, summed: 2053}),
        summed=lambda sizes: sizes[summed],
        terms=lambda inputs, sizes: (sum_of_products(inputs[0], inputs[1], sizes[summed]),),
    )


KERNELS = (
    _kernel("matmul", forward_operands, ("mk", "nk"), "mn", "k"),
    _kernel("matmul_dgrad", dgrad_operands, ("mn", "nk"), "mk", "n"),
    _kernel("matmul_wgrad", wgrad_operands, ("mn", "mk"), "nk", "m"),
)
