"""What a calibration measures: sizes of matrix multiplies, attention and memory-bound kernels of training steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from towtank.kernels.records import Sizes


@dataclass(frozen=True, slots=True)
class Sweep:
    """Axes of the sweeps of one device type."""

    dtypes: tuple[str, ...]
    rows: tuple[int, ...]
    """Tokens: rows of the matrix multiplies."""
    widths: tuple[int, ...]
    """Inputs and outputs of a layer: the other two sizes of the matrix multiplies."""
    hidden: tuple[int, ...]
    """Hidden sizes of the GPT layers whose multiplies are measured in all directions."""
    layer_rows: int
    heads: tuple[int, ...]
    """Batch times heads of attention."""
    head_dims: tuple[int, ...]
    sequences: tuple[int, ...]
    elements: tuple[int, ...]
    """Sizes of copies and of element-wise kernels."""
    fp8: bool = False
    """Whether the grid of matrix multiplies is measured in e4m3 as well."""


LARGE = Sweep(
    dtypes=("bfloat16",),
    rows=(128, 256, 512, 1024, 2048, 4096, 8192, 16384),
    widths=(512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
    hidden=(2048, 4096, 5120, 6144, 8192, 12288),
    layer_rows=4096,
    heads=(8, 16, 32, 64, 128),
    head_dims=(64, 128),
    sequences=(512, 1024, 2048, 4096, 8192, 16384),
    elements=(2**20, 2**24, 2**26, 2**28),
    fp8=True,
)
LARGE_QUICK = Sweep(
    dtypes=("bfloat16",),
    rows=(128, 1024, 4096, 8192),
    widths=(1024, 4096, 8192, 16384),
    hidden=(4096, 8192),
    layer_rows=4096,
    heads=(16, 64),
    head_dims=(64, 128),
    sequences=(1024, 4096, 8192),
    elements=(2**24, 2**28),
    fp8=True,
)
SMALL = Sweep(
    dtypes=("float32", "bfloat16"),
    rows=(128, 512, 2048),
    widths=(256, 512, 1024, 2048),
    hidden=(256, 512, 768, 1024),
    layer_rows=256,
    heads=(4, 16),
    head_dims=(64, 128),
    sequences=(128, 512, 1024),
    elements=(2**20, 2**22, 2**24),
)
SMALL_QUICK = Sweep(
    dtypes=("float32", "bfloat16"),
    rows=(128, 512),
    widths=(256, 1024),
    hidden=(512,),
    layer_rows=256,
    heads=(4, 8),
    head_dims=(64, 128),
    sequences=(128, 512),
    elements=(2**20, 2**24),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to measure: a kernel at sizes, or a copy or a launch, which are no kernels of ours."""

    kind: str
    """matmul, layer, attention, elementwise, copy or launch."""
    kernel: str
    dtype: str
    sizes: Sizes


def sweep_for(device: str, quick: bool) -> Sweep:
    """The sweep of a device type: a CPU multiplies a thousandth as fast as a GPU."""
    if device == "cuda":
        return LARGE_QUICK if quick else LARGE
    return SMALL_QUICK if quick else SMALL


def layer_shapes(hidden: int) -> Mapping[str, tuple[int, int]]:
    """Outputs n and inputs k of the four multiplies of a GPT layer (arXiv 2104.04473, figure 5)."""
    return {
        "qkv": (3 * hidden, hidden),
        "projection": (hidden, hidden),
        "up": (4 * hidden, hidden),
        "down": (hidden, 4 * hidden),
    }


def points(sweep: Sweep) -> Iterator[Point]:
    """Everything that a sweep measures, in the order in which it does."""
    for dtype in sweep.dtypes:
        yield Point("launch", "fill", dtype, {"elements": 1})
        for elements in sweep.elements:
            yield Point("copy", "copy", dtype, {"elements": elements})
        yield from _matmuls(sweep, dtype)
        yield from _attention(sweep, dtype)
        yield from _elementwise(sweep, dtype)
    if sweep.fp8:
        for m, n, k in product(sweep.rows, sweep.widths, sweep.widths):
            yield Point("matmul", "fp8_matmul", "float8_e4m3fn", {"m": m, "n": n, "k": k})


def _matmuls(sweep: Sweep, dtype: str) -> Iterator[Point]:
    for m, n, k in product(sweep.rows, sweep.widths, sweep.widths):
        yield Point("matmul", "matmul", dtype, {"m": m, "n": n, "k": k})
    for hidden in sweep.hidden:
        for n, k in layer_shapes(hidden).values():
            for name in ("matmul", "matmul_dgrad", "matmul_wgrad"):
                yield Point("layer", name, dtype, {"m": sweep.layer_rows, "n": n, "k": k})


def _attention(sweep: Sweep, dtype: str) -> Iterator[Point]:
    shapes = product(sweep.head_dims, sweep.sequences, sweep.heads, (1, 4))
    for head_dim, sequence, heads, group in shapes:
        sizes = {
            "batch": 1, "sequence": sequence, "heads": heads, "kv_heads": heads // group, "head_dim": head_dim
        }  # fmt: skip
        yield Point("attention", "attention", dtype, sizes)
        if group == 1:
            yield Point("attention", "attention_backward", dtype, sizes)


def _elementwise(sweep: Sweep, dtype: str) -> Iterator[Point]:
    columns = 2**10
    for elements in sweep.elements:
        for name in ("rms_norm", "rms_norm_backward", "layer_norm", "swiglu", "swiglu_backward", "gelu"):
            yield Point("elementwise", name, dtype, {"rows": elements // columns, "columns": columns})
        yield Point("elementwise", "adamw", dtype, {"elements": elements})
