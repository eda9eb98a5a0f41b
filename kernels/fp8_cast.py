"""Cast to fp8 with scales: each group of columns of a row shares one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import DTYPES, library, triton
from towtank.kernels.draws import normal
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Sizes, Tile

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

LARGEST = 448.0
"""Largest number of e4m3 (Micikevicius et al., arXiv 2209.05433, table 1)."""
SMALLEST = 1e-12
"""A group of zeros gets the scale of this magnitude, so that nothing is divided by 0."""
CASES: tuple[Sizes, ...] = (
    {"rows": 4, "columns": 256},
    {"rows": 5, "columns": 130},
    {"rows": 3, "columns": 33, "group": 33},
    {"rows": 35, "columns": 70, "group": 64},
    {"rows": 1, "columns": 1},
    {"rows": 0, "columns": 5},
)
SIZES_OF_ROWS = (1.0, 2.0**-14, 2.0**9, 2.0**-45, 0.0)
"""What rows are multiplied by in turn: scales differ, one is that of the smallest magnitude, and one row is empty."""


def _groups(x: "torch.Tensor", group: int) -> "torch.Tensor":
    """[rows, groups, group] with zeros after the last column."""
    import torch

    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % group))
    return padded.view(x.shape[0], padded.shape[1] // group, group)


def fp8_cast(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """(q, s) with x = q s, and s the largest magnitude of a group over 448: q [rows, columns], s [rows, groups].

    Groups are 128 columns by default (DeepSeek-V3, arXiv 2412.19437, section 3.3.2).
    """
    (x,) = inputs
    groups = _groups(x, sizes["group"])
    scales = groups.abs().amax(-1).clamp(min=SMALLEST) / LARGEST
    quotient = (groups / scales[..., None]).clamp(-LARGEST, LARGEST)
    return quotient.flatten(1)[:, : x.shape[1]], scales


def _inputs(sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator") -> "tuple[torch.Tensor, ...]":
    import torch

    x = normal((sizes["rows"], sizes["columns"]), torch.float32, generator)
    factors = torch.tensor(SIZES_OF_ROWS, device=x.device).repeat(-(-sizes["rows"] // len(SIZES_OF_ROWS)))
    x *= factors[: sizes["rows"], None]
    x[:1, : sizes["group"] // 2] = 0
    return (x.to(dtype),)


def _library(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
    """A row of PyTorch operations in fp32."""
    import torch

    quotient, scales = fp8_cast([inputs[0].float()], sizes)
    return quotient.to(torch.float8_e4m3fn), scales


def _cost(sizes: Sizes, dtype: str) -> Cost:
    rows, columns = sizes["rows"], sizes["columns"]
    groups = -(-columns // sizes["group"])
    moved = rows * columns * (DTYPE_BYTES[dtype] + 1) + rows * groups * DTYPE_BYTES["float32"]
    return Cost(4.0 * rows * columns, moved)


KERNELS = (
    Kernel(
        name="fp8_cast",
        dimensions=("rows", "columns"),
        backends=(library(_library, dtypes=DTYPES), triton("fp8_cast", "fp8_cast")),
        inputs=_inputs,
        reference=fp8_cast,
        cost=_cost,
        cases=CASES,
        options={"group": 128},
        # groups have scales of their own
        by_element=(0, 1),
    ),
)
