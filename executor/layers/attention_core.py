"""Causal attention of whole sequences on one device: softmax(q k^T / sqrt(d)) v without its matrix of scores.

On a CPU PyTorch's own kernels by their forward and backward halves, so that each half is one operation of the record,
and so that selective recomputation can repeat the forward half within the backward pass (Korthikanti et al., arXiv
2205.05198). On a GPU the forward half is kept as autograd has recorded it.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch

from towtank.executor.distributed.grid import apply
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.kernels.attention import sdpa
from towtank.simulator.operations import Phase


class Core(NamedTuple):
    """The core of one layer."""

    name: str
    window: int | None
    """A query sees itself and the tokens before it, so many in all; None: all of them."""
    repeats: bool
    """Whether the forward half runs again in the backward pass (selective recomputation)."""


@lru_cache(maxsize=8)
def _mask(tokens: int, window: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Added to scores [tokens, tokens]: minus infinity where a query does not see a key."""
    seen = torch.ones((tokens, tokens), dtype=torch.bool, device=device).tril_().triu_(1 - window)
    return torch.zeros((tokens, tokens), dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)


def attention_core(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, core: Core) -> torch.Tensor:
    """Attended values [sequences, tokens, heads, d] of q, and k and v with as many or fewer heads."""
    # in 16 bits the CPU's fused kernel is several times slower than its parts
    halves = q.device.type == "cpu" and q.dtype.itemsize > 2
    attended: torch.Tensor = apply(_Core if halves else _GraphCore, q, k, v, core)
    return attended


class _Graph(NamedTuple):
    """A forward half by autograd: what its backward half differentiates."""

    inputs: tuple[torch.Tensor, ...]
    output: torch.Tensor


def _graph(inputs: tuple[torch.Tensor, ...], core: Core) -> _Graph:
    """The forward half of whichever kernel PyTorch chooses on a GPU."""
    with torch.enable_grad():
        leaves = tuple(each.detach().requires_grad_() for each in inputs)
        sizes = {"causal": 1, "window": core.window or 0, "sequence": inputs[0].shape[1]}
        return _Graph(leaves, sdpa(leaves, sizes).contiguous())


class _GraphCore(torch.autograd.Function):
    """Attention on devices whose kernels are not to be had by halves."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, core: Core) -> torch.Tensor:
        ctx.core = core
        with recorder.operation(core.name, "attention", forward_phase()):
            graph = _graph((q, k, v), core)
        ctx.graph = None if core.repeats else graph
        ctx.save_for_backward(*((q, k, v) if core.repeats else ()))
        return graph.output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        core: Core = ctx.core
        graph: _Graph | None = ctx.graph
        if graph is None:
            with recorder.operation(core.name, "attention", Phase.RECOMPUTE):
                graph = _graph(ctx.saved_tensors, core)
        with recorder.operation(core.name, "attention", Phase.BACKWARD):
            found = torch.autograd.grad(graph.output, graph.inputs, gradients[0])
        ctx.graph = None
        return *found, None


def _forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, core: Core) -> tuple[torch.Tensor, ...]:
    """Output [sequences, tokens, heads, d] and what else the backward half needs."""
    tokens, window = q.shape[1], core.window
    mask = None if window is None or window >= tokens else _mask(tokens, window, q.dtype, q.device)
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    output, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, mask is None, attn_mask=mask
    )
    # heads beside one another again, as the projection reads them
    return output.transpose(1, 2).contiguous(), sums


def _backward(
    dy: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kept: tuple[torch.Tensor, ...],
    core: Core,
) -> tuple[torch.Tensor, ...]:
    tokens, window = q.shape[1], core.window
    mask = None if window is None or window >= tokens else _mask(tokens, window, q.dtype, q.device)
    dy, q, k, v, output = (each.transpose(1, 2) for each in (dy, q, k, v, kept[0]))
    gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dy, q, k, v, output, kept[1], 0.0, mask is None, attn_mask=mask
    )
    return tuple(each.transpose(1, 2) for each in gradients)


class _Core(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, core: Core) -> torch.Tensor:
        ctx.core = core
        with recorder.operation(core.name, "attention", forward_phase()):
            kept = _forward(q, k, v, core)
        ctx.save_for_backward(q, k, v, *(() if core.repeats else kept))
        return kept[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        q, k, v, *kept = ctx.saved_tensors
        core: Core = ctx.core
        if core.repeats:
            with recorder.operation(core.name, "attention", Phase.RECOMPUTE):
                kept = list(_forward(q, k, v, core))
        with recorder.operation(core.name, "attention", Phase.BACKWARD):
            return *_backward(gradients[0], q, k, v, tuple(kept), core), None
