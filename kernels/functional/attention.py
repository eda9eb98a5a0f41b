"""Attention, and the parts of it that a ring of keys is made of."""

from typing import Any

import torch

from towtank.kernels.attention import DIMENSIONS, sdpa
from towtank.kernels.functional.choice import apply, backend_of, run
from towtank.kernels.widen import wide


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool = True, window: int = 0
) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v; differentiable in all three.

    Args:
        q: [batch, sequence, heads, d].
        k: [batch, sequence, kv heads, d]; heads are a multiple of kv heads.
        v: as k.
        causal: a query sees the keys up to its own place.
        window: and of these only so many last ones; 0 is all.

    Raises:
        ValueError: heads are no multiple of kv heads.
    """
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"heads must be a multiple of kv heads, got {q.shape[2]} and {k.shape[2]}")
    if backend_of("attention", q.dtype, q.device.type) == "library":
        return sdpa((q, k, v), {"causal": int(causal), "window": window, "sequence": q.shape[1]})
    output: torch.Tensor = apply(_Attention, q, k, v, int(causal), window)
    return output


def attention_block(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention to one block of keys, and the logarithms [batch, heads, sequence] of the sums in its softmax.

    Outputs o_i of several blocks with logarithms l_i make up sum_i exp(l_i - l) o_i, where l = logsumexp_i l_i.
    Queries and keys have the shapes of `attention`, and are equally many. Not differentiable: see
    `attention_block_backward`.
    """
    with torch.no_grad():
        if backend_of("attention_block", q.dtype, q.device.type) == "triton":
            output, sums = run("attention_block", "attention", (q, k, v), _sizes(q, k, int(causal), 0))
            return output, sums
        scores = _scores(q, k, causal)
        sums = scores.logsumexp(-1)
        output = torch.matmul((scores - sums[..., None]).exp(), _heads(v, q.shape[2]))
        return output.transpose(1, 2).to(q.dtype), sums


def attention_block_backward(
    gradient: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    output: torch.Tensor,
    sums: torch.Tensor,
    *,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What one block of keys adds to the gradient of q, and the gradients of its k and v.

    `output` and `sums` are those of all blocks together, so that weights are exp(scores - sums) (Dao, arXiv
    2307.08691, algorithm 2); dS = P (dP - rowsum(dO O)).
    """
    with torch.no_grad():
        if backend_of("attention_block", q.dtype, q.device.type) == "triton":
            inputs = (gradient, q, k, v, output, sums.float())
            of_q, of_k, of_v = run(
                "attention_block", "attention_backward", inputs, _sizes(q, k, int(causal), 0)
            )
            return of_q, of_k, of_v
        heads, group = q.shape[2], q.shape[2] // k.shape[2]
        given = wide(gradient).transpose(1, 2)
        weight = (_scores(q, k, causal) - sums[..., None]).exp()
        dots = (given * wide(output).transpose(1, 2)).sum(-1, keepdim=True)
        of_scores = weight * (given @ _heads(v, heads).transpose(-1, -2) - dots) * q.shape[-1] ** -0.5
        of_k = of_scores.transpose(-1, -2) @ wide(q).transpose(1, 2)
        of_v = weight.transpose(-1, -2) @ given
        return (
            (of_scores @ _heads(k, heads)).transpose(1, 2).to(q.dtype),
            _folded(of_k, group).transpose(1, 2).to(k.dtype),
            _folded(of_v, group).transpose(1, 2).to(v.dtype),
        )


def _heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """[batch, heads, sequence, d] in fp32 at least, with keys' heads repeated."""
    return wide(tensor).repeat_interleave(heads // tensor.shape[2], 2).transpose(1, 2)


def _folded(gradient: torch.Tensor, group: int) -> torch.Tensor:
    """Sum over the heads that share keys: [batch, heads, sequence, d] to [batch, kv heads, sequence, d]."""
    batch, heads, sequence, head_dim = gradient.shape
    return gradient.reshape(batch, heads // group, group, sequence, head_dim).sum(2)


def _scores(q: torch.Tensor, k: torch.Tensor, causal: bool) -> torch.Tensor:
    """q k^T / sqrt(d), -inf where a key is not seen: [batch, heads, queries, keys]."""
    queries, keys = wide(q).transpose(1, 2), _heads(k, q.shape[2])
    scores: torch.Tensor = torch.matmul(queries, keys.transpose(-1, -2)) * q.shape[-1] ** -0.5
    if not causal:
        return scores
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(later, float("-inf"))


def _sizes(q: torch.Tensor, k: torch.Tensor, causal: int, window: int) -> dict[str, int]:
    batch, sequence, heads, head_dim = q.shape
    values = (batch, sequence, heads, k.shape[2], head_dim)
    return {**dict(zip(DIMENSIONS, values, strict=True)), "causal": causal, "window": window}


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: int, window: int
    ) -> torch.Tensor:
        ctx.sizes = _sizes(q, k, causal, window)
        output, sums = run("attention", "attention", (q, k, v), ctx.sizes)
        ctx.save_for_backward(q, k, v, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs = (gradients[0], *ctx.saved_tensors)
        return (*run("attention", "attention_backward", inputs, ctx.sizes), None, None)
