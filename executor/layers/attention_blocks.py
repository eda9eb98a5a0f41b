"""Attention of a block of queries over a block of keys, as ring attention puts it together.

A block gives its output and, for each query, the logarithm of the sum of exponentials; outputs of several blocks are
merged with these (online softmax: Milakov and Gimelshein, arXiv 1805.02867; Liu et al., arXiv 2310.01889). The
backward pass of a block needs only the merged output and logarithm (Dao et al., arXiv 2205.14135, section B.2).

Tensors are [batch, tokens, heads, head size]; keys and values may have fewer heads, each for a group of queries.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block of scores lies: global position of its first query and key, lengths, and the window."""

    first_query: int
    first_key: int
    queries: int
    keys: int
    window: int | None = None
    """A query sees itself and the tokens before it, so many in all; None: all of them."""

    @property
    def empty(self) -> bool:
        """Whether no query sees any key."""
        after = self.first_key > self.first_query + self.queries - 1
        if self.window is None:
            return after
        return after or self.first_key + self.keys - 1 <= self.first_query - self.window

    @property
    def full(self) -> bool:
        """Whether every query sees every key."""
        past = self.first_key + self.keys - 1 <= self.first_query
        if self.window is None:
            return past
        return past and self.first_key > self.first_query + self.queries - 1 - self.window

    def hidden(self, device: torch.device) -> torch.Tensor:
        """Which keys a query does not see, [queries, keys]."""
        queries = torch.arange(self.first_query, self.first_query + self.queries, device=device)[:, None]
        keys = torch.arange(self.first_key, self.first_key + self.keys, device=device)
        unseen: torch.Tensor = keys > queries
        if self.window is not None:
            unseen = unseen | (keys <= queries - self.window)
        return unseen


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type in which scores and sums are kept: float64 for float64, else fp32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _grouped(queries: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[batch, tokens, heads, d] as [batch, kv heads, group x tokens, d] in the type of sums."""
    batch, tokens, heads, width = queries.shape
    wide = queries.to(accumulation_dtype(queries.dtype))
    split = wide.view(batch, tokens, kv_heads, heads // kv_heads, width).permute(0, 2, 3, 1, 4)
    return split.reshape(batch, kv_heads, heads // kv_heads * tokens, width)


def _ungrouped(values: torch.Tensor, tokens: int) -> torch.Tensor:
    """The way back from `_grouped`."""
    batch, kv_heads, rows, width = values.shape
    group = rows // tokens
    split = values.view(batch, kv_heads, group, tokens, width).permute(0, 3, 1, 2, 4)
    return split.reshape(batch, tokens, kv_heads * group, width)


def _keys(values: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, kv heads, d] as [batch, kv heads, tokens, d] in the type of sums."""
    return values.to(accumulation_dtype(values.dtype)).transpose(1, 2)


def _scores(queries: torch.Tensor, keys: torch.Tensor, block: Block) -> torch.Tensor:
    """Scaled scores [batch, kv heads, group x queries, keys], minus infinity where a query does not see a key."""
    scores: torch.Tensor = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if block.full:
        return scores
    rows = scores.shape[-2] // block.queries
    return scores.masked_fill_(block.hidden(scores.device).repeat(rows, 1), -torch.inf)


def block_forward(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: Block
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(q k^T / sqrt(d)) v over the keys of one block.

    Returns:
        Output [batch, queries, heads, d] and logarithms [batch, queries, heads, 1] in the type of sums; a query that
        sees no key of the block has output 0 and logarithm minus infinity.
    """
    scores = _scores(_grouped(queries, keys.shape[2]), _keys(keys), block)
    logarithms = scores.logsumexp(-1, keepdim=True)
    # minus infinity minus itself is not a number: a row without keys subtracts 0 and stays minus infinity
    weights = (scores - logarithms.clamp(min=torch.finfo(scores.dtype).min)).exp_()
    return _ungrouped(weights @ _keys(values), block.queries), _ungrouped(logarithms, block.queries)


def merge(
    output: torch.Tensor, logarithms: torch.Tensor, more: torch.Tensor, more_logarithms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and logarithms over the keys of both; the first must have seen at least one key."""
    both = torch.logaddexp(logarithms, more_logarithms)
    return output * (logarithms - both).exp() + more * (more_logarithms - both).exp(), both


def block_backward(
    gradient: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    logarithms: torch.Tensor,
    delta: torch.Tensor,
    block: Block,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of queries, keys and values through one block, in the type of sums.

    Args:
        gradient: of the merged output.
        queries: of the block.
        keys: of the block.
        values: of the block.
        logarithms: of the merged output, [batch, queries, heads, 1].
        delta: sum over features of output x gradient, [batch, queries, heads, 1].
        block: where the block lies.
    """
    kv_heads = keys.shape[2]
    q, k, v = _grouped(queries, kv_heads), _keys(keys), _keys(values)
    do = _grouped(gradient, kv_heads)
    weights = (_scores(q, k, block) - _grouped(logarithms, kv_heads)).exp_()
    of_weights = do @ v.transpose(-1, -2)
    of_scores = of_weights.sub_(_grouped(delta, kv_heads)).mul_(weights).mul_(q.shape[-1] ** -0.5)
    of_queries = _ungrouped(of_scores @ k, block.queries)
    of_keys = (of_scores.transpose(-1, -2) @ q).transpose(1, 2)
    return of_queries, of_keys, (weights.transpose(-1, -2) @ do).transpose(1, 2)
