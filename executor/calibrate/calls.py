"""What is timed: kernels as PyTorch runs them in a training step, and collectives of a process group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from towtank.executor.calibrate.points import CollectivePoint, KernelPoint

if TYPE_CHECKING:
    import torch

Call = Callable[[], object]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Precisions of a plan as torch names them."""


def kernel_call(point: KernelPoint, device: str) -> Call:
    """A call of the kernel on random inputs of its size."""
    import torch

    dtype = getattr(torch, DTYPES[point.precision])
    name, _, part = point.kernel.partition(".")
    if name == "matmul":
        return _matmul(point, part, dtype, device)
    if name == "attention":
        return _attention(point, dtype, device, backward=part == "backward")
    if name in _ALONE:
        return _ALONE[name](point.sizes["rows"] * point.sizes["columns"], dtype, device)
    forward, inputs = _ROWS[name](point.sizes["rows"], point.sizes["columns"], dtype, device)
    return _backward(forward, inputs) if part == "backward" else _without_gradient(forward, inputs)


def _matmul(point: KernelPoint, role: str, dtype: torch.dtype, device: str) -> Call:
    import torch

    m, n, k = (point.sizes[each] for each in ("m", "n", "k"))
    if role == "forward":  # x [tokens, inputs] times the transpose of w [outputs, inputs]
        left, right = _random((m, k), dtype, device), _random((n, k), dtype, device).t()
    elif role == "dgrad":  # gradient [tokens, outputs] times w [outputs, inputs]
        left, right = _random((m, k), dtype, device), _random((k, n), dtype, device)
    else:  # transpose of the gradient [tokens, outputs] times x [tokens, inputs]
        left, right = _random((k, m), dtype, device).t(), _random((k, n), dtype, device)
    return lambda: torch.mm(left, right)


def _attention(point: KernelPoint, dtype: torch.dtype, device: str, *, backward: bool) -> Call:
    import torch

    batch, sequence, heads, kv_heads, head_dim = point.sizes.values()
    inputs = [
        _random((batch, each, sequence, head_dim), dtype, device) for each in (heads, kv_heads, kv_heads)
    ]

    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=heads != kv_heads
        )

    return _backward(forward, inputs) if backward else _without_gradient(forward, inputs)


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    import torch

    return torch.randn(shape, device=device).to(dtype)


def _without_gradient(forward: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Call:
    import torch

    def call() -> torch.Tensor:
        with torch.no_grad():
            return forward(*inputs)

    return call


def _backward(forward: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Call:
    """The backward pass alone, of a graph that is kept."""
    import torch

    wanted = [each.requires_grad_() for each in inputs if each.is_floating_point()]
    output = forward(*inputs)
    gradient = torch.ones_like(output)
    return lambda: torch.autograd.grad(output, wanted, gradient, retain_graph=True)


Prepared = tuple[Callable[..., "torch.Tensor"], "list[torch.Tensor]"]


def _norm(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    import torch

    x, weight = _random((rows, columns), dtype, device), _random((columns,), dtype, device)
    return (lambda a, w: torch.nn.functional.rms_norm(a, (columns,), w, 1e-5)), [x, weight]


def _activation(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    import torch

    return (lambda a: torch.nn.functional.gelu(a, approximate="tanh")), [
        _random((rows, columns), dtype, device)
    ]


def _gated(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    import torch

    return (lambda g, u: torch.nn.functional.silu(g) * u), [
        _random((rows, columns), dtype, device) for _ in range(2)
    ]


def _residual(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    return (lambda a, b: a + b), [_random((rows, columns), dtype, device) for _ in range(2)]


def _rope(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    import torch

    half = columns // 2
    cos, sin = _random((rows, half), dtype, device), _random((rows, half), dtype, device)

    def turn(x: torch.Tensor) -> torch.Tensor:
        first, second = x[:, :half], x[:, half:]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    return turn, [_random((rows, columns), dtype, device)]


def _softmax(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    import torch

    return (lambda a: torch.softmax(a, dim=-1)), [_random((rows, columns), dtype, device)]


def _cross_entropy(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    import torch

    targets = torch.zeros(rows, dtype=torch.int64, device=device)
    return (lambda a: torch.nn.functional.cross_entropy(a.float(), targets, reduction="sum")), [
        _random((rows, columns), dtype, device)
    ]


def _embedding(rows: int, columns: int, dtype: torch.dtype, device: str) -> Prepared:
    import torch

    tokens = torch.arange(rows, device=device) % 64
    return (lambda w: torch.nn.functional.embedding(tokens, w)), [_random((64, columns), dtype, device)]


_ROWS: dict[str, Callable[[int, int, Any, str], Prepared]] = {
    "norm": _norm,
    "activation": _activation,
    "gated": _gated,
    "residual": _residual,
    "rope": _rope,
    "softmax": _softmax,
    "cross-entropy": _cross_entropy,
    "embedding": _embedding,
}


def _copy(elements: int, dtype: torch.dtype, device: str) -> Call:
    source = _random((elements,), dtype, device)
    return source.clone


def _add(elements: int, dtype: torch.dtype, device: str) -> Call:
    import torch

    gradient, total = _random((elements,), dtype, device), _random((elements,), torch.float32, device)
    return lambda: total.add_(gradient)


def _adam(elements: int, dtype: torch.dtype, device: str) -> Call:
    import torch

    weight = _random((elements,), torch.float32, device).requires_grad_()
    weight.grad = _random((elements,), torch.float32, device)
    optimizer = torch.optim.AdamW([weight], fused=True)
    return optimizer.step


def _norm_of_gradients(elements: int, dtype: torch.dtype, device: str) -> Call:
    import torch

    gradient = _random((elements,), torch.float32, device)

    def call() -> object:
        total = gradient.square().sum()
        return gradient.mul_(1.0 / (1.0 + 0.0 * total))

    return call


_ALONE: dict[str, Callable[[int, Any, str], Call]] = {
    "elementwise": _copy,
    "gradient-add": _add,
    "optimizer": _adam,
    "gradient-norm": _norm_of_gradients,
}


def collective_call(point: CollectivePoint, group: Any, rank: int, device: str) -> Call:
    """A collective of a process group; `rank` is the place in the group. A send is there and back, twice."""
    import torch
    import torch.distributed as dist

    members, elements = point.size, max(point.size, point.message_bytes // 4 // point.size * point.size)
    whole = torch.zeros(elements, device=device)
    part = torch.zeros(elements // members, device=device)
    calls: dict[str, Call] = {
        "all-reduce": lambda: dist.all_reduce(whole, group=group),
        "all-gather": lambda: dist.all_gather_into_tensor(whole, part, group=group),
        "reduce-scatter": lambda: dist.reduce_scatter_tensor(part, whole, group=group),
        "all-to-all": lambda: dist.all_to_all_single(torch.empty_like(whole), whole, group=group),
        "broadcast": lambda: dist.broadcast(whole, group_src=0, group=group),
        "send": lambda: _there_and_back(whole, group, rank),
    }
    return calls[point.collective]


def _there_and_back(tensor: torch.Tensor, group: Any, rank: int) -> None:
    import torch.distributed as dist

    if rank == 0:
        dist.send(tensor, group_dst=1, group=group)
        dist.recv(tensor, group_src=1, group=group)
    else:
        dist.recv(tensor, group_src=0, group=group)
        dist.send(tensor, group_dst=0, group=group)


def trips(collective: str) -> int:
    """Operations in one call."""
    return 2 if collective == "send" else 1
