"""Matrix multiply of e4m3 numbers with scales, as a linear layer in fp8 runs it: bf16 out.

y[m, n] = (s_x q_x[m, k]) (s_w q_w[n, k])^T, with one scale for each tensor, or for each row of both.
"""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, library_missing, triton, triton_missing
from towtank.kernels.counts import matmul_flop
from towtank.kernels.draws import normal, sum_of_products
from towtank.kernels.matmul import CASES, tile_cases
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Sizes, Tile
from towtank.kernels.shared_memory import of_product

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

DTYPES = ("float8_e4m3fn",)
OPTIONS = {"by_row": 0}
"""Whether each row of x and of W has a scale of its own."""
STEP = 16
"""PyTorch's fp8 multiply takes sizes n and k that are multiples of this."""
LIBRARY_TILES: tuple[Tile, ...] = ({"fast": 1}, {"fast": 0})
"""Whether sums may be kept in the matrix units, which hold some 14 bits of them on Hopper (DeepSeek-V3, arXiv
2412.19437, section 3.3.2), or are added up in fp32 from time to time."""
OLDEST = (8, 9)
"""Compute capability from which on NVIDIA's matrix units take e4m3: Ada and Hopper (CUDA C++ Programming Guide)."""


def fp8_matmul(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y = (s_x q_x) (s_w q_w)^T; scales are [1], or [m] and [n]."""
    x, weight, x_scale, weight_scale = inputs
    return ((x * x_scale[:, None]) @ (weight * weight_scale[:, None]).t(),)


def _inputs(sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator") -> "tuple[torch.Tensor, ...]":
    import torch

    m, n, k = (sizes[name] for name in "mnk")
    scales = [
        torch.rand(each if sizes["by_row"] else 1, generator=generator, device=generator.device) + 0.5
        for each in (m, n)
    ]
    return normal((m, k), dtype, generator, 8.0), normal((n, k), dtype, generator, 8.0), *scales


def _library(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
    """PyTorch's scaled multiply, on operands that are padded with zeros to multiples of 16."""
    import torch

    x, weight, *scales = inputs
    (m, k), n = x.shape, weight.shape[0]
    if not m * n * k:
        return (x.new_zeros((m, n), dtype=torch.bfloat16),)
    x, weight = (
        _padded(x, m, -(-k // STEP) * STEP),
        _padded(weight, -(-n // STEP) * STEP, -(-k // STEP) * STEP),
    )
    x_scale, weight_scale = (each.contiguous() for each in scales)
    if sizes["by_row"]:
        x_scale = x_scale[:, None]
        weight_scale = torch.nn.functional.pad(weight_scale, (0, -n % STEP))[None, :]
    y = torch._scaled_mm(
        x, weight.t(), scale_a=x_scale, scale_b=weight_scale,
        out_dtype=torch.bfloat16, use_fast_accum=bool(tile.get("fast", 1)),
    )  # fmt: skip
    return (y if y.shape[1] == n else y[:, :n],)


def _padded(tensor: "torch.Tensor", rows: int, columns: int) -> "torch.Tensor":
    """The dense tensor with zeros after its last row and column."""
    if tensor.shape == (rows, columns):
        return tensor.contiguous()
    padded = tensor.new_zeros((rows, columns))
    padded[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded


def _library_tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    return LIBRARY_TILES


def _too_old(device: str) -> str | None:
    """Why a GPU multiplies no e4m3 numbers; None where it does."""
    if device == "cpu":
        return None
    import torch

    if torch.version.hip:
        name = str(torch.cuda.get_device_properties(0).gcnArchName)
        wanted = name.startswith("gfx95")
        return None if wanted else f"matrix units of {name} take another e4m3 than this one (fnuz)"
    found = torch.cuda.get_device_capability()
    if found >= OLDEST:
        return None
    return f"fp8 needs compute capability {OLDEST[0]}.{OLDEST[1]}, this GPU has {found[0]}.{found[1]}"


def _library_missing(device: str) -> str | None:
    if (missing := library_missing(device) or _too_old(device)) is not None:
        return missing
    import torch

    return (
        None if hasattr(torch, "_scaled_mm") else "this torch has no scaled multiply; it needs 2.6 or newer"
    )


def _triton_missing(device: str) -> str | None:
    return triton_missing(device) or _too_old(device)


def tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    """Tiles of the Triton backend, the default first: those whose accumulators leave room in the registers."""
    first = {"block_m": 128, "block_n": 256, "block_k": 128, "group_m": 8, "warps": 8, "stages": 3}
    others = (
        {"block_m": m, "block_n": n, "block_k": k, "group_m": 8, "warps": warps, "stages": stages}
        for m, n, k, warps, stages in product((64, 128, 256), (64, 128, 256), (64, 128), (4, 8), (3, 4))
        if 16 <= m * n / (32 * warps) <= 128
    )
    return (first, *(tile for tile in others if tile != first))


def _tile_cases(tile: Tile, dtype: str) -> tuple[Sizes, ...]:
    if not tile:
        return ()
    whole, odd = tile_cases(tile, "m", "n", "k")
    return whole, {**odd, "by_row": 1}


def _cost(sizes: Sizes, dtype: str) -> Cost:
    m, n, k = (sizes[name] for name in "mnk")
    scales = (m + n if sizes["by_row"] else 2) * DTYPE_BYTES["float32"]
    return Cost(matmul_flop(m, n, k), (m * k + n * k) * DTYPE_BYTES[dtype] + m * n * 2 + scales)


def _terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    x, weight, x_scale, weight_scale = inputs
    return (sum_of_products(x * x_scale[:, None], weight * weight_scale[:, None], sizes["k"]),)


KERNELS = (
    Kernel(
        name="fp8_matmul",
        dimensions=("m", "n", "k"),
        backends=(
            library(_library, _library_tiles, dtypes=DTYPES, missing=_library_missing),
            triton(
                "fp8_matmul",
                "fp8_matmul",
                tiles,
                dtypes=DTYPES,
                missing=_triton_missing,
                needs=of_product,
                cases=_tile_cases,
            ),
        ),
        inputs=_inputs,
        reference=fp8_matmul,
        cost=_cost,
        cases=(
            *CASES,
            {"m": 40, "n": 33, "k": 150, "by_row": 1},
            {"m": 128, "n": 256, "k": 512, "by_row": 1},
        ),
        options=OPTIONS,
        summed=lambda sizes: sizes["k"],
        # e4m3 has no infinity
        infinities=(),
        # a sum of nothing is multiplied by its scales as well
        spreads=(2, 3),
        terms=_terms,
    ),
)
