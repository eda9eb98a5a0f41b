"""Matrix multiplies of experts on the rows that were routed to each: forward and both gradients.

Rows are sorted by expert. For expert e with rows I_e: y[I_e] = x[I_e] W_e^T with W[experts, n, k].
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.counts import matmul_flop
from towtank.kernels.draws import normal, sum_of_products
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Launch, Sizes, Tile
from towtank.kernels.shared_memory import of_product

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

CASES: tuple[Sizes, ...] = (
    {"experts": 3, "m": 150, "n": 40, "k": 32},
    {"experts": 5, "m": 9, "n": 17, "k": 33},
    {"experts": 1, "m": 5, "n": 3, "k": 7},
    {"experts": 2, "m": 1, "n": 1, "k": 1},
    {"experts": 2, "m": 0, "n": 3, "k": 2},
)
DIMENSIONS = ("experts", "m", "n", "k")
LIBRARY_TILES: tuple[Tile, ...] = ({"together": 1}, {"together": 0})
"""All experts in one call of the library where it has one, or a batch or a row of products."""


def _parts(counts: "torch.Tensor") -> list[slice]:
    """Rows of each expert."""
    ends = counts.cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def grouped_matmul(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y[I_e] = x[I_e] W_e^T; x [m, k], W [experts, n, k], rows of each expert [experts]."""
    import torch

    x, weight, counts = inputs
    return (torch.cat([x[part] @ each.t() for part, each in zip(_parts(counts), weight, strict=True)]),)


def grouped_matmul_dgrad(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """dx[I_e] = dy[I_e] W_e; dy [m, n]."""
    import torch

    gradient, weight, counts = inputs
    return (torch.cat([gradient[part] @ each for part, each in zip(_parts(counts), weight, strict=True)]),)


def grouped_matmul_wgrad(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """dW_e = dy[I_e]^T x[I_e], which is 0 for an expert without rows."""
    import torch

    gradient, x, counts = inputs
    return (torch.stack([gradient[part].t() @ x[part] for part in _parts(counts)]),)


def _counts(sizes: Sizes, generator: "torch.Generator") -> "torch.Tensor":
    """Rows of each expert at random; the last one has none where there are three or more."""
    import torch

    experts = sizes["experts"]
    used = experts - 1 if experts > 2 else experts
    chosen = torch.randint(used, (sizes["m"],), generator=generator, device=generator.device)
    return chosen.bincount(minlength=experts)


def _operands(name: str, inputs: "Tensors") -> "tuple[torch.Tensor, torch.Tensor]":
    """A and B of the products A_e B_e, of which rows of one or columns of both are an expert's."""
    one, other, _ = inputs
    if name == "grouped_matmul":
        return one, other.transpose(1, 2)
    return (one.t(), other) if name == "grouped_matmul_wgrad" else (one, other)


def _aligned(tensor: "torch.Tensor") -> bool:
    """What PyTorch's grouped multiply asks for: one dense dimension, and 16 bytes between what lies in the other."""
    *outer, row, column = tensor.stride()
    if 1 not in (row, column):
        return False
    rest = [*outer, column if row == 1 else row]
    return tensor.numel() > 0 and all(each * tensor.element_size() % 16 == 0 for each in rest)


def _together(name: str, inputs: "Tensors") -> "torch.Tensor | None":
    """All experts in one call of the library, which does not wait for their counts; None where it has none."""
    import torch

    multiply = getattr(torch.nn.functional, "grouped_mm", None)
    a, b = _operands(name, inputs)
    wanted = (torch.bfloat16,) if a.device.type == "cuda" else (torch.bfloat16, torch.float32)
    if multiply is None or a.dtype not in wanted or not (_aligned(a) and _aligned(b)):
        return None
    result: torch.Tensor = multiply(a, b, offs=inputs[2].cumsum(0).to(torch.int32))
    return result


def _equal_parts(name: str, inputs: "Tensors") -> "torch.Tensor":
    """Products of experts that have equally many rows, as one batch."""
    import torch

    first, second, counts = inputs
    one = first.reshape(counts.numel(), -1, first.shape[1])
    if name == "grouped_matmul_wgrad":
        return torch.bmm(one.transpose(1, 2), second.reshape(counts.numel(), -1, second.shape[1]))
    return torch.bmm(one, second.transpose(1, 2) if name == "grouped_matmul" else second).flatten(0, 1)


def _library(name: str, reference: "Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]") -> Launch:
    """PyTorch's grouped multiply; without it a batch if experts have equally many rows, else one after the other."""

    def launch(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
        if tile.get("together", 1) and (result := _together(name, inputs)) is not None:
            return (result,)
        counts = inputs[2].tolist()
        if len(set(counts)) == 1 and counts[0]:
            return (_equal_parts(name, inputs),)
        return reference(inputs, sizes)

    return launch


def _library_tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    return LIBRARY_TILES


def tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    """Blocks of the Triton backend, the default first."""
    first = {"block_m": 64, "block_n": 64, "block_k": 32, "warps": 4, "stages": 3}
    if dtype == "float32":
        return (first, {**first, "block_m": 32}, {**first, "block_n": 128, "warps": 8})
    blocks = ((128, 128, 8), (64, 128, 4), (128, 256, 8), (64, 64, 4), (64, 256, 8))
    return tuple(
        {"block_m": m, "block_n": n, "block_k": k, "warps": warps, "stages": stages}
        for m, n, warps in blocks
        for k in (64, 32)
        for stages in (3, 4)
    )


def _tile_cases(tile: Tile, dtype: str) -> tuple[Sizes, ...]:
    """Sizes at which experts have several blocks in each direction, whichever of them is which: odd ones, and
    multiples of 16."""
    if not tile:
        return ()
    step, rows = tile["block_k"], max(tile["block_m"], tile["block_k"])
    wide, deep = max(tile["block_m"], tile["block_n"]), max(tile["block_n"], step * tile["stages"])
    return (
        {"experts": 4, "m": 3 * rows + 5, "n": wide + 3, "k": deep + 5},
        {"experts": 3, "m": 4 * rows, "n": wide + 16, "k": deep + step},
    )


def _kernel(
    name: str,
    reference: "Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]",
    left: str,
    right: str,
    summed: str,
) -> Kernel:
    """A product of two tensors whose shapes are named by letters, e being the experts."""

    def shape(letters: str, sizes: Sizes) -> list[int]:
        return [sizes["experts" if letter == "e" else letter] for letter in letters]

    def inputs(
        sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
    ) -> "tuple[torch.Tensor, ...]":
        first, second = (normal(shape(each, sizes), dtype, generator) for each in (left, right))
        return first, second, _counts(sizes, generator)

    def cost(sizes: Sizes, dtype: str) -> Cost:
        m, n, k, experts = (sizes[letter] for letter in ("m", "n", "k", "experts"))
        moved = (m * k + m * n + experts * n * k) * DTYPE_BYTES[dtype]
        return Cost(matmul_flop(m, n, k), moved + experts * DTYPE_BYTES["int64"])

    return Kernel(
        name=name,
        dimensions=DIMENSIONS,
        backends=(
            library(_library(name, reference), _library_tiles),
            triton("grouped_matmul", name, tiles, needs=of_product, cases=_tile_cases),
        ),
        inputs=inputs,
        reference=reference,
        cost=cost,
        cases=CASES,
        summed=lambda sizes: sizes[summed],
        # the rows of an expert may be few: those of one are sums of one product at least
        terms=lambda inputs, sizes: (
            sum_of_products(inputs[0], inputs[1], sizes[summed] if summed != "m" else 1),
        ),
    )


KERNELS = (
    _kernel("grouped_matmul", grouped_matmul, "mk", "enk", "k"),
    _kernel("grouped_matmul_dgrad", grouped_matmul_dgrad, "mn", "enk", "n"),
    _kernel("grouped_matmul_wgrad", grouped_matmul_wgrad, "mn", "mk", "m"),
)
