"""Attention without its matrix of scores, forward and backward: causal, grouped heads, sliding window."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.counts import attention_flop, mean_keys
from towtank.kernels.draws import largest, normal
from towtank.kernels.gradients import ThroughAutograd, gradients_of
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Sizes, Tile
from towtank.kernels.shared_memory import of_attention

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

CASES: tuple[Sizes, ...] = (
    {"batch": 2, "sequence": 19, "heads": 4, "kv_heads": 2, "head_dim": 16},
    {"batch": 1, "sequence": 17, "heads": 2, "kv_heads": 2, "head_dim": 12, "causal": 0},
    {"batch": 1, "sequence": 45, "heads": 3, "kv_heads": 1, "head_dim": 8, "window": 6},
    # several blocks of queries and keys, seen in part at both ends and whole between them
    {"batch": 1, "sequence": 200, "heads": 1, "kv_heads": 1, "head_dim": 16, "window": 130},
    # the same without a window, of grouped heads, and without an order
    {"batch": 1, "sequence": 150, "heads": 2, "kv_heads": 1, "head_dim": 16},
    {"batch": 1, "sequence": 140, "heads": 2, "kv_heads": 1, "head_dim": 16, "causal": 0},
    {"batch": 1, "sequence": 140, "heads": 1, "kv_heads": 1, "head_dim": 8, "window": 6},
    {"batch": 1, "sequence": 23, "heads": 2, "kv_heads": 1, "head_dim": 4, "window": 1},
    {"batch": 1, "sequence": 23, "heads": 1, "kv_heads": 1, "head_dim": 4, "window": 64},
    {"batch": 3, "sequence": 21, "heads": 2, "kv_heads": 1, "head_dim": 16},
    {"batch": 1, "sequence": 1, "heads": 1, "kv_heads": 1, "head_dim": 1},
    {"batch": 0, "sequence": 5, "heads": 1, "kv_heads": 1, "head_dim": 4},
)
FAR = 100.0
"""How far the keys of a third sequence lie from 0, forward: exponentials of their scores overflow in fp32."""
OPTIONS = {"causal": 1, "window": 0}
"""A query sees the keys up to its own place if causal, and of these only the last `window` if that is not 0."""
DIMENSIONS = ("batch", "sequence", "heads", "kv_heads", "head_dim")
FUSED_ON_CPU = 16
"""Keys from which on PyTorch's fused kernel for CPUs is used: with few keys it loses a NaN of a query. In 16 bits it
is several times slower than its parts."""


EXACT = 256
"""Longest sequence whose inputs are made by a loop over queries; longer ones are only timed."""


def visible_keys(query: int, sizes: Sizes) -> tuple[int, int]:
    """First key that a query sees, and the first after those."""
    last = query + 1 if sizes["causal"] else sizes["sequence"]
    window = sizes["window"]
    return (max(0, query + 1 - window) if window else 0), last


def attention(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """softmax(q k^T / sqrt(d)) v (Vaswani et al., arXiv 1706.03762, equation 1), and logs of the sums in softmax.

    q is [batch, sequence, heads, d], k and v are [batch, sequence, kv heads, d]; the logarithms are [batch, heads,
    sequence]. Query by query, so that keys that a query does not see take no part.
    """
    import torch

    q, k, v = inputs
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    rows, sums = [], []
    for query in range(q.shape[1]):
        first, last = visible_keys(query, sizes)
        scores = (q[:, query, None] * k[:, first:last]).sum(-1) / q.shape[-1] ** 0.5
        rows.append((scores.softmax(1)[..., None] * v[:, first:last]).sum(1))
        sums.append(scores.logsumexp(1))
    return torch.stack(rows, 1), torch.stack(sums, 2)


def _forward_inputs(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    batch, sequence, heads, kv_heads, head_dim = (sizes[name] for name in DIMENSIONS)
    return tuple(
        normal((batch, sequence, each, head_dim), dtype, generator) for each in (heads, kv_heads, kv_heads)
    )


def _far_inputs(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    """Those of which the third sequence has scores of some hundreds, of either sign."""
    q, k, v = _forward_inputs(sizes, dtype, generator)
    if sizes["sequence"] <= EXACT:  # longer ones are only timed
        k[2:3] += FAR
    return q, k, v


def _backward_inputs(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    """Gradient of the output, q, k, v, and what the forward pass kept: its output, and the logarithms in fp32."""
    import torch

    gradient = normal([sizes[name] for name in ("batch", "sequence", "heads", "head_dim")], dtype, generator)
    given = _forward_inputs(sizes, dtype, generator)
    exact = sizes["sequence"] <= EXACT
    output, sums = attention([each.double() for each in given], sizes) if exact else _kept(given, sizes)
    return gradient, *given, output.to(dtype), sums.to(torch.float32)


def _kept(given: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, torch.Tensor]":
    """Output and logarithms for measurements: the logarithms of scores that are all 0."""
    import torch

    batch, sequence, heads, _ = given[0].shape
    keys = [last - first for first, last in (visible_keys(each, sizes) for each in range(sequence))]
    sums = torch.tensor(keys, device=given[0].device, dtype=torch.float32).log()
    return sdpa(given, sizes), sums.expand(batch, heads, sequence).contiguous()


def _mask(sizes: Sizes, device: "torch.device") -> "torch.Tensor":
    import torch

    place = torch.arange(sizes["sequence"], device=device)
    distance = place[:, None] - place[None, :]
    inside = distance < sizes["window"]
    return inside & (distance >= 0) if sizes["causal"] else inside


def sdpa(inputs: "Tensors", sizes: Sizes) -> "torch.Tensor":
    """PyTorch's fastest implementation for the case; a window needs a mask, which only some of them take."""
    import torch

    q, k, v = (each.transpose(1, 2) for each in inputs)
    mask = _mask(sizes, q.device) if sizes["window"] else None
    causal, grouped = bool(sizes["causal"]) and mask is None, q.shape[1] != k.shape[1]
    product = torch.nn.functional.scaled_dot_product_attention
    if q.device.type != "cpu" or (q.dtype.itemsize > 2 and q.shape[2] >= FUSED_ON_CPU):
        return product(q, k, v, mask, is_causal=causal, enable_gqa=grouped).transpose(1, 2)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return product(q, k, v, mask, is_causal=causal, enable_gqa=grouped).transpose(1, 2)


def _library(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
    return (sdpa(inputs, sizes),)


def _forward_terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """A weight is the exponential of a score, whose rounding errors grow with it; as scores of 16 are allowed for."""
    q, k, v = inputs
    scores = q.transpose(1, 2) @ k.repeat_interleave(q.shape[2] // k.shape[2], 2).permute(0, 2, 3, 1)
    score = largest(scores) * q.shape[-1] ** -0.5
    return (largest(v) * score / 16 if score > 16 else 0.0,)


def _terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """Gradients of scores are P (dP - rowsum(P dP)): what cancels is P dP, times a key or a query over sqrt(d)."""
    gradient, q, k, v, *_ = inputs
    group, scale = q.shape[2] // k.shape[2], q.shape[-1] ** -0.5
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    cancelling = 0.0
    for query in range(q.shape[1]):
        first, last = visible_keys(query, sizes)
        weight = (scale * (q[:, query, None] * k[:, first:last]).sum(-1)).softmax(1)
        cancelling = max(cancelling, largest(weight * (gradient[:, query, None] * v[:, first:last]).sum(-1)))
    return cancelling * scale * largest(k), cancelling * scale * largest(q), 0.0


def _cost(matrix_products: float, tensors: tuple[int, int]) -> "Callable[[Sizes, str], Cost]":
    """Cost of so many products of the size of the scores, and of reading and writing q-like and k-like tensors."""

    def cost(sizes: Sizes, dtype: str) -> Cost:
        batch, sequence, heads, kv_heads, head_dim = (sizes[name] for name in DIMENSIONS)
        keys = mean_keys(sequence, sizes["window"] or None, bool(sizes["causal"]))
        flop = attention_flop(batch, sequence, keys, heads, head_dim, head_dim) * matrix_products / 2
        elements = batch * sequence * head_dim * (tensors[0] * heads + tensors[1] * kv_heads)
        return Cost(flop, elements * DTYPE_BYTES[dtype])

    return cost


def _fault(sizes: Sizes) -> str | None:
    heads, kv_heads = sizes["heads"], sizes["kv_heads"]
    return f"heads must be a multiple of kv_heads, got {heads} and {kv_heads}" if heads % kv_heads else None


def _summed(sizes: Sizes) -> int:
    """A score is a sum over the head, an output one over the keys."""
    return sizes["head_dim"] + sizes["sequence"] * (sizes["heads"] // sizes["kv_heads"])


def tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    """Blocks of queries (m) and keys (n) of the Triton backend, the default first."""
    wide = dtype == "float32" or sizes.get("head_dim", 0) > 128
    first = {"block_m": 64 if wide else 128, "block_n": 32 if wide else 64, "warps": 4, "stages": 2}
    if not wide:
        first |= {"warps": 8, "stages": 3}
    return _with_first(first, (32, 64) if wide else (64, 128), (32,) if wide else (32, 64, 128))


def backward_tiles(sizes: Sizes, dtype: str) -> tuple[Tile, ...]:
    """Blocks of the backward pass, the default first: what a program owns (m), and what it goes through (n).

    A program holds gradients of keys and of values: for heads of more than 64 the default is the tile of which the
    compiler spills least for compute capability 9.0 (56 bytes a thread, with blocks of 128 and 64: 788), as
    tests/kernels/compile_for_gpu.py prints.
    """
    head_dim = sizes.get("head_dim", 0)
    wide = dtype == "float32" or head_dim > 128
    first = {"block_m": 64 if wide else 128, "block_n": 32, "warps": 4, "stages": 2}
    if not wide:
        first |= {"block_m": 64, "warps": 8} if head_dim > 64 else {"block_n": 64}
    return _with_first(first, (32, 64) if wide else (64, 128), (32,) if wide else (32, 64))


def _with_first(first: Tile, rows: tuple[int, ...], columns: tuple[int, ...]) -> tuple[Tile, ...]:
    found = (
        {"block_m": m, "block_n": n, "warps": warps, "stages": stages}
        for m, n, warps, stages in product(rows, columns, (4, 8), (1, 2, 3))
    )
    return (first, *(tile for tile in found if tile != first))


KERNELS = (
    Kernel(
        name="attention",
        dimensions=DIMENSIONS,
        backends=(
            library(_library, outputs=1),
            triton("attention", "attention", tiles, needs=of_attention),
        ),
        inputs=_far_inputs,
        reference=attention,
        cost=_cost(2, (2, 2)),
        # a query whose every score is -inf, as an infinity in it makes them, sees no key: PyTorch returns 0
        infinities=(),
        cases=CASES,
        options=OPTIONS,
        fault=_fault,
        summed=_summed,
        terms=_forward_terms,
        # keys and values that a query does not see take part with a weight of 0
        spreads=(1, 2),
    ),
    Kernel(
        name="attention_backward",
        dimensions=DIMENSIONS,
        backends=(
            library(ThroughAutograd(sdpa, 3)),
            triton("attention_backward", "attention_backward", backward_tiles),
        ),
        inputs=_backward_inputs,
        reference=gradients_of(attention, (0, 1, 2), 3),
        # scores again, and two products each for the gradients of weights and of scores
        cost=_cost(5, (4, 4)),
        cases=CASES,
        options=OPTIONS,
        fault=_fault,
        summed=_summed,
        terms=_terms,
        # what the forward pass kept goes with its keys and values
        aside=(2, 3, 4, 5),
        infinities=(0,),
        spreads=(0, 1),
    ),
)
